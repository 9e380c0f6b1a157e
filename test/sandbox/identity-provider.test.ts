import { createRemoteJWKSet, jwtVerify } from 'jose'
import t from 'tap'
import { audience, issuer, send, startPeers } from '../helper.js'

t.test('tokens for whoever asks', async (t) => {
  const { identityUrl } = await startPeers(t, { now: () => 1_800_000_000_000 })
  const keys = createRemoteJWKSet(new URL(`${identityUrl}/.well-known/jwks.json`))
  const ask = (body: unknown) =>
    send(`${identityUrl}/token`, {
      method: 'POST',
      body: JSON.stringify(body),
      headers: { 'content-type': 'application/json' },
    })
  const claimsOf = async (body: object) => {
    const { json } = await ask(body)
    const { payload, protectedHeader } = await jwtVerify(json.access_token, keys, {
      issuer,
      audience,
      currentDate: new Date(1_800_000_000_000),
    })
    t.match(protectedHeader, { alg: 'RS256', typ: 'at+jwt', kid: 'sandbox-RS256' })
    return payload
  }

  t.match(await claimsOf({ userId: 'u-1', companyId: 'acme' }), {
    sub: 'u-1',
    company_id: 'acme',
    iat: 1_800_000_000,
    exp: 1_800_003_600,
    jti: String,
  })
  const payload = await claimsOf({
    userId: 'u-2',
    companyIds: ['a', 'b'],
    scope: 'kyb:create',
    expiresIn: 5,
  })
  t.match(payload, { sub: 'u-2', company_id: ['a', 'b'], scope: 'kyb:create', exp: 1_800_000_005 })
  t.notMatch(Object.keys(await claimsOf({ userId: 'u-3' })), ['company_id'])

  t.equal((await ask({ companyId: 'acme' })).status, 400)
  t.equal((await ask({ userId: 'u-1', company: 'acme' })).status, 400)
  const { json } = await send(`${identityUrl}/.well-known/jwks.json`)
  t.strictSame(
    Object.keys(json.keys[0]).sort(),
    ['alg', 'e', 'kid', 'kty', 'n', 'use'],
    'public members alone',
  )
})
