import { createRemoteJWKSet, jwtVerify } from 'jose'
import t from 'tap'
import { createTokenSigner } from '../../sandbox/token-signer.js'
import { audience, issuer, send, signer, startPeers } from '../helper.js'

t.test('any client gets a token', async (t) => {
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
  t.strictSame(Object.keys(await claimsOf({ userId: 'u-3' })).sort(), [
    'aud',
    'exp',
    'iat',
    'iss',
    'jti',
    'sub',
  ])
  t.match(await claimsOf({ userId: 'u-4', companyId: 'a', companyIds: ['b'] }), { company_id: ['b'] })
  t.strictSame((await claimsOf({ userId: 'u-5', companyIds: [] })).company_id, [])
  t.not((await claimsOf({ userId: 'u-1' })).jti, (await claimsOf({ userId: 'u-1' })).jti)
  t.match(await ask({ userId: 'u-1', expiresIn: 5 }), {
    status: 200,
    json: { access_token: String, token_type: 'Bearer', expires_in: 5 },
  })
  await t.rejects(claimsOf({ userId: 'u-1', expiresIn: -1 }), { code: 'ERR_JWT_EXPIRED' })

  const wrong: unknown[] = [
    {},
    { companyId: 'acme' },
    { userId: '' },
    { userId: 5 },
    { userId: 'u-1', company: 'acme' },
    { userId: 'u-1', companyId: ['acme'] },
    { userId: 'u-1', companyIds: 'acme' },
    { userId: 'u-1', scope: ['a'] },
    { userId: 'u-1', expiresIn: '5' },
    null,
  ]
  for (const body of wrong) t.equal((await ask(body)).status, 400, JSON.stringify(body))
})

t.test('public keys alone, of every signer', async (t) => {
  const signers = [signer, await createTokenSigner('ES256')] as const
  const { identityUrl } = await startPeers(t, { signers })
  const { json } = await send(`${identityUrl}/.well-known/jwks.json`)
  t.strictSame(
    json.keys.map((key: object) => Object.keys(key).sort()),
    [
      ['alg', 'e', 'kid', 'kty', 'n', 'use'],
      ['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y'],
    ],
  )
})
