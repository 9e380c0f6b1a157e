import { CompactSign, exportJWK, generateKeyPair, type JWK } from 'jose'
import t from 'tap'
import { createTokenSigner, type TokenSigner } from '../../../sandbox/token-signer.js'
import {
  type AccessTokenVerifierOptions,
  createAccessTokenVerifier,
} from '../../../src/services/auth/access-token-verifier.js'
import { createSigningKeys } from '../../../src/services/auth/signing-keys.js'
import { createVirtualClock } from '../../virtual-clock.js'

const signer = await createTokenSigner('ES256', 'first')
const otherSigner = await createTokenSigner('ES256', 'first')
const issuer = 'https://idp.example'
const audience = 'onboarding'
/** The time at which the clocks of these tests begin, in seconds. */
const now = 1_800_000_000

/** A verifier that counts the tokens whose signature it has checked. */
function setUp(options: Partial<AccessTokenVerifierOptions> = {}, published: JWK[] = [signer.publicJwk]) {
  const virtual = createVirtualClock(now * 1000)
  const { clock } = virtual
  const provider = {
    keys: published,
    fetches: 0,
    respond: undefined as (() => Promise<string>) | undefined,
  }
  const signingKeys = createSigningKeys({
    fetchKeySet: async () => {
      provider.fetches += 1
      return provider.respond?.() ?? JSON.stringify({ keys: provider.keys })
    },
    algorithms: ['ES256'],
    fetchTimeoutMs: 60_000,
    unknownKeyIntervalMs: 1000,
    onFetchFailed: () => {},
    onKeysIgnored: () => {},
    clock,
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
    tokenTypes: ['at+jwt', 'JWT'],
    clockToleranceSeconds: 5,
    maxLifetimeSeconds: 86_400,
    timeoutMs: 5000,
    clock,
    ...options,
  })
  const token = (
    claims: object = {},
    header: Readonly<Record<string, unknown>> = {},
    by: TokenSigner = signer,
  ) => by.sign({ iss: issuer, aud: audience, sub: 'u-1', iat: now, exp: now + 600, ...claims }, header)
  return { ...virtual, verify, token, counted, provider }
}

const refusal = (reason: string, more: object = {}) => ({
  name: 'Problem',
  code: 'invalid-token',
  options: { diagnosis: { reason, ...more } },
})

t.test('the claims of a good token are returned', async (t) => {
  const { verify, token } = setUp()
  t.strictSame(await verify(await token({ company_id: 'acme' })), {
    iss: issuer,
    aud: audience,
    sub: 'u-1',
    iat: now,
    exp: now + 600,
    company_id: 'acme',
  })
})

t.test('a token that comes again is not checked again', async (t) => {
  const { verify, token, counted } = setUp()
  const text = await token()
  for (let index = 0; index < 3; index++) t.equal((await verify(text)).sub, 'u-1')
  t.equal(counted.checked, 1)
  await verify(await token({ sub: 'u-2' }))
  t.equal(counted.checked, 2)
})

t.test('only a token that passed every check is remembered', async (t) => {
  const { verify, token, counted } = setUp()
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
  const { verify, token, counted } = setUp()
  const filler = 'x'.repeat(25_000 / 3)
  const texts = await Promise.all(
    Array.from({ length: 250 }, (_, index) => token({ sub: `u-${100 + index}`, filler })),
  )
  for (const text of texts) await verify(text)
  t.equal(counted.checked, 250)
  const [text = ''] = texts
  // 600 bytes, and two for each character.
  const fitting = Math.floor((5 * 1024 * 1024) / (600 + 2 * text.length))
  t.ok(fitting > 100 && fitting < 250)
  await verify(texts.at(-fitting) ?? '')
  t.equal(counted.checked, 250, 'as many as fit are remembered')
  await verify(texts.at(-fitting - 1) ?? '')
  t.equal(counted.checked, 251, 'and not one more')
})

t.test('a token is good until it expires, and a few seconds longer', async (t) => {
  const { verify, token, pass, counted } = setUp()
  const known = await token()
  await verify(known)
  await pass(604_999)
  t.equal((await verify(known)).sub, 'u-1')
  await verify(await token({ jti: 'new' }))
  const before = counted.checked
  await pass(1)
  t.equal((await verify(await token({ exp: now + 601 }))).sub, 'u-1')
  t.equal(counted.checked, before + 1)
  await t.rejects(verify(known), refusal('expired'))
  await t.rejects(verify(await token({ jti: 'newer' })), refusal('expired'))
})

t.test('a token that is not valid yet is refused, also by a clock that was set back', async (t) => {
  const { verify, token, setWallClock } = setUp()
  const text = await token({ nbf: now + 5, iat: now + 5 })
  await verify(text)
  await t.rejects(verify(await token({ nbf: now + 6 })), refusal('claim-nbf'))
  await t.rejects(verify(await token({ iat: now + 6 })), refusal('issued-in-future'))
  setWallClock(now * 1000 - 1000)
  await t.rejects(verify(text), refusal('claim-nbf'))
  const issued = await token({ iat: now + 4 })
  await verify(issued)
  setWallClock(now * 1000 - 2000)
  await t.rejects(verify(issued), refusal('issued-in-future'))
})

t.test('a token that lives too long is refused', async (t) => {
  const { verify, token, pass } = setUp()
  await verify(await token({ exp: now + 86_400 }))
  const expected = 'at most 86400 seconds'
  const tooLong = refusal('lifetime', { expected, received: /^86401$/ })
  await t.rejects(verify(await token({ exp: now + 86_401 })), tooLong)
  await t.rejects(verify(await token({ exp: now + 86_400.6 })), tooLong, 'rounded')
  const withoutIat = (exp: number) => token({ iat: undefined, exp })
  await verify(await withoutIat(now + 86_405))
  await t.rejects(
    verify(await withoutIat(now + 86_406)),
    refusal('lifetime', { expected, received: /^86406$/ }),
  )
  await pass(1000)
  await verify(await withoutIat(now + 86_406))
})

t.test('a claim that is missing or wrong is named, with what was expected', async (t) => {
  const { verify, token } = setUp()
  for (const [claims, reason, more] of [
    [{ iss: 'https://other.example' }, 'claim-iss', { expected: issuer, received: 'https://other.example' }],
    [{ iss: undefined }, 'claim-iss', { expected: issuer, received: 'none' }],
    [{ aud: ['a', 'b'] }, 'claim-aud', { expected: audience, received: 'a, b' }],
    [{ sub: undefined }, 'claim-sub', {}],
    [{ sub: 5 }, 'claim-sub', {}],
    [{ exp: undefined }, 'claim-exp', {}],
    [{ exp: 'soon' }, 'claim-exp', {}],
    [{ nbf: 'soon' }, 'claim-nbf', {}],
    [{ iat: 'soon' }, 'claim-iat', {}],
    [{ cnf: {} }, 'not-an-access-token', {}],
  ] as const) {
    const error = await t.rejects(verify(await token(claims as object)), refusal(reason, more), reason)
    const { diagnosis } = (error as unknown as { options: { diagnosis: object } }).options
    t.strictSame(diagnosis, { reason, ...more })
  }
  await verify(await token({ aud: ['other', audience] }))
})

t.test('a fault that jose finds is kept as the cause', async (t) => {
  const { verify, token } = setUp()
  for (const [text, reason, code] of [
    [await token({ aud: 'other' }), 'claim-aud', 'ERR_JWT_CLAIM_VALIDATION_FAILED'],
    [await token({ sub: undefined }), 'claim-sub', 'ERR_JWT_CLAIM_VALIDATION_FAILED'],
    [await token({ exp: now - 6 }), 'expired', 'ERR_JWT_EXPIRED'],
    [await token({}, {}, otherSigner), 'signature', 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED'],
  ] as const) {
    await t.rejects(verify(text), { ...refusal(reason), cause: { code } }, reason)
  }
})

t.test('a token of another type is refused', async (t) => {
  const { verify, token } = setUp()
  for (const typ of ['at+jwt', 'AT+JWT', 'application/at+jwt', 'jwt', undefined]) {
    await t.resolves(token({ jti: String(typ) }, { typ }).then(verify), String(typ))
  }
  for (const typ of ['logout+jwt', '', 'text/at+jwt']) {
    await t.rejects(
      verify(await token({}, { typ })),
      refusal('token-type', { expected: 'at+jwt, JWT', received: typ }),
    )
  }
  await t.rejects(verify(await token({}, { typ: 5 })), refusal('token-type', { received: '5' }))
  const strict = setUp({ tokenTypes: ['application/at+JWT'] })
  await strict.verify(await strict.token())
  await t.rejects(
    strict.verify(await strict.token({}, { typ: undefined })),
    refusal('token-type', { expected: 'application/at+JWT', received: 'JWT' }),
    'without a type it counts as JWT',
  )
})

t.test('a token that is no JWT is refused before any key is fetched', async (t) => {
  const { verify, token, provider } = setUp()
  await t.rejects(verify('x'), refusal('not-compact'))
  await t.rejects(verify(await token({}, { jku: 'https://other.example' })), refusal('header-parameter'))
  t.equal(provider.fetches, 0)
})

t.test('claims that are no object are refused', async (t) => {
  const { verify } = setUp()
  const { publicKey, privateKey } = await generateKeyPair('ES256')
  const own = setUp({}, [{ ...(await exportJWK(publicKey)), kid: 'own', alg: 'ES256' }])
  const text = await new CompactSign(Buffer.from('[1]'))
    .setProtectedHeader({ alg: 'ES256', kid: 'own' })
    .sign(privateKey)
  await t.rejects(own.verify(text), { ...refusal('claims'), cause: { code: 'ERR_JWT_INVALID' } })
  await t.rejects(verify(text), refusal('unknown-key'))
})

t.test('a token whose key was withdrawn is checked again', async (t) => {
  const { verify, token, provider, pass, counted } = setUp()
  const text = await token()
  await verify(text)
  await pass(299_999)
  await verify(text)
  t.equal(provider.fetches, 1)
  provider.keys = [{ ...otherSigner.publicJwk }]
  await pass(1)
  await t.rejects(verify(text), refusal('signature'))
  t.equal(provider.fetches, 2)
  t.equal(counted.checked, 2)
})

t.test('a token without a key id may have a new key', async (t) => {
  const anonymous = ({ publicJwk }: TokenSigner) => ({ ...publicJwk, kid: undefined }) as unknown as JWK
  const { verify, token, provider, pass } = setUp({}, [anonymous(signer)])
  await verify(await token({}, { kid: undefined }))
  const text = await token({}, { kid: undefined }, otherSigner)
  await t.rejects(verify(text), refusal('signature'))
  t.equal(provider.fetches, 2)
  provider.keys = [anonymous(otherSigner)]
  t.equal((await verify(text)).sub, 'u-1')
  t.equal(provider.fetches, 3)
  await pass(0)
  await t.rejects(verify(await token({}, {}, signer)), refusal('unknown-key'), 'one with an id names its key')

  const named = setUp()
  await named.verify(await named.token())
  await t.rejects(named.verify(await named.token({}, {}, otherSigner)), refusal('signature'))
  t.equal(named.provider.fetches, 1, 'so a wrong signature is no reason to fetch')
})

t.test('keys that do not come in time are not the fault of the token', async (t) => {
  const { verify, token, provider, pass, pendingTimers } = setUp()
  provider.respond = () => new Promise(() => {})
  const rejected = t.rejects(verify(await token()), {
    code: 'auth-keys-unavailable',
    cause: { name: 'TimeoutError' },
  })
  await pass(5000)
  await rejected
  t.equal(pendingTimers(), 1, 'the fetch goes on')

  const failing = setUp()
  failing.provider.respond = () => Promise.reject(new Error('lost'))
  await t.rejects(failing.verify(await failing.token()), { code: 'auth-keys-unavailable' })
})
