import t, { type Test } from 'tap'
import { Agent } from 'undici'
import { createTokenSigner } from '../../../sandbox/token-signer.js'
import { systemClock } from '../../../src/clock.js'
import { createAccessTokenVerifier } from '../../../src/services/auth/access-token-verifier.js'
import { fetchKeySet } from '../../../src/services/auth/fetch-key-set.js'
import { createSigningKeys } from '../../../src/services/auth/signing-keys.js'
import { audience, issuer } from '../../helper.js'
import { startKeyServer } from '../../key-server.js'

const signer = await createTokenSigner('ES256')

/** A verifier that counts the tokens whose signature it has checked. */
async function setUp(t: Test) {
  const provider = await startKeyServer(t, signer.publicJwk)
  const dispatcher = new Agent()
  t.teardown(() => dispatcher.destroy())
  const signingKeys = createSigningKeys({
    fetchKeySet: (signal) => fetchKeySet({ url: provider.url, dispatcher, userAgent: 'test/1' }, signal),
    algorithms: ['ES256'],
    fetchTimeoutMs: 1000,
    unknownKeyIntervalMs: 1000,
    onFetchFailed: () => {},
    onKeysIgnored: () => {},
    clock: systemClock,
  })
  const counted = { checked: 0 }
  const verify = createAccessTokenVerifier({
    signingKeys: {
      ...signingKeys,
      resolve: (header, since) => {
        counted.checked += 1
        return signingKeys.resolve(header, since)
      },
    },
    issuer,
    audience,
    algorithms: ['ES256'],
    tokenTypes: ['at+jwt'],
    clockToleranceSeconds: 5,
    maxLifetimeSeconds: 86_400,
    timeoutMs: 5000,
    clock: systemClock,
  })
  const iat = Math.floor(Date.now() / 1000)
  const token = (claims: object = {}) =>
    signer.sign({ iss: issuer, aud: audience, sub: 'u-1', iat, exp: iat + 600, ...claims })
  return { verify, token, counted }
}

t.test('a token that comes again is not checked again', async (t) => {
  const { verify, token, counted } = await setUp(t)
  const text = await token()
  for (let index = 0; index < 3; index++) t.equal((await verify(text)).sub, 'u-1')
  t.equal(counted.checked, 1)
})

t.test('only a token that passed every check is remembered', async (t) => {
  const { verify, token, counted } = await setUp(t)
  const now = Math.floor(Date.now() / 1000)
  const rows = [
    { aud: 'other' },
    { iss: 'other' },
    { exp: now - 60 },
    { nbf: now + 60 },
    { iat: now + 60 },
    { exp: now + 86_460 },
    { cnf: {} },
    { sub: 5 },
  ]
  for (const claims of rows) {
    const text = await token(claims)
    const before = counted.checked
    for (let index = 0; index < 2; index++) await t.rejects(verify(text), { code: 'invalid-token' })
    t.equal(counted.checked, before + 2, JSON.stringify(claims))
  }
})

t.test('the cache of verified tokens has a limit in bytes', async (t) => {
  const { verify, token, counted } = await setUp(t)
  const filler = 'x'.repeat(10_000)
  const texts = await Promise.all(
    Array.from({ length: 400 }, (_, index) => token({ sub: `u-${index}`, filler })),
  )
  for (const text of texts) await verify(text)
  t.equal(counted.checked, 400)
  await verify(texts.at(-1) ?? '')
  t.equal(counted.checked, 400, 'the last one is remembered')
  await verify(texts[0] ?? '')
  t.equal(counted.checked, 401, 'the first one is not: 400 would take more than 5 MB')
})
