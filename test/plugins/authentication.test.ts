import { CompactSign, exportJWK, generateKeyPair, SignJWT } from 'jose'
import t from 'tap'
import { createTokenSigner } from '../../src/sandbox/token-signer.js'
import { audience, build, issuer, matchProblem, send, signer } from '../helper.js'

t.test('every accepted algorithm', async (t) => {
  const signers = [
    signer,
    await createTokenSigner('PS256'),
    await createTokenSigner('ES256'),
    await createTokenSigner('EdDSA'),
  ] as const
  const service = await build(t, { signers: [...signers] })
  for (const by of signers) {
    const token = await service.token({}, {}, by)
    t.equal((await service.mint({ token })).status, 201, String(by.publicJwk.alg))
  }
})

t.test('credentials are one bearer token', async (t) => {
  const service = await build(t)
  const token = await service.token()
  const mint = (authorization: string | string[]) => service.mint({ headers: { authorization } })

  for (const authorization of ['', 'Basic dXNlcjpw', `DPoP ${token}`, 'Bearer', 'Bearer ', token]) {
    await t.test(`unauthenticated: ${authorization.slice(0, 12)}`, async (t) => {
      const answer = await mint(authorization)
      matchProblem(t, answer, 'unauthenticated')
      t.equal(answer.headers['www-authenticate'], 'Bearer')
    })
  }
  for (const scheme of ['bearer', 'BEARER', 'Bearer ']) {
    t.equal((await mint(`${scheme} ${token}`)).status, 201, scheme)
  }
  for (const authorization of [
    `Bearer ${token}, Bearer ${token}`,
    `Bearer ${token} ${token}`,
    'Bearer x',
    'Bearer a.b.c',
  ]) {
    await t.test(`invalid: ${authorization.slice(0, 12)}`, async (t) => {
      matchProblem(t, await mint(authorization), 'invalid-token')
    })
  }
  for (const pair of [
    [`Bearer ${token}`, 'Bearer x'],
    ['Bearer x', `Bearer ${token}`],
  ]) {
    await t.test('two headers are ambiguous', async (t) => {
      matchProblem(t, await mint(pair), 'malformed-request')
    })
  }
  await t.test('a token in the body or a cookie is none', async (t) => {
    const headers = { authorization: '', cookie: `access_token=${token}` }
    const answer = await service.mint({ body: { access_token: token }, headers })
    matchProblem(t, answer, 'unauthenticated')
  })
})

t.test('a token at fault gets one and the same answer, and its reason goes to the log', async (t) => {
  const nowMs = 1_800_000_000_000
  const now = nowMs / 1000
  const own = await generateKeyPair('RS256')
  const ownSigner = { publicJwk: { ...(await exportJWK(own.publicKey)), kid: 'own' }, sign: signer.sign }
  const service = await build(t, { now: () => nowMs, signers: [signer, ownSigner] })
  const stranger = await createTokenSigner('RS256', signer.publicJwk.kid)
  const { privateKey } = await generateKeyPair('RS512')
  const claims = { iss: issuer, aud: audience, sub: 'u-1', company_id: 'acme', iat: now, exp: now + 600 }
  const valid = await service.token()
  const [head = '', payload = '', signature = ''] = valid.split('.')
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')

  const cases: [string, string, string][] = [
    ['not-compact', 'no JWT', 'abc'],
    ['not-compact', 'unsigned parts', `${head}.${payload}`],
    ['header', 'header not JSON', `${Buffer.from('{').toString('base64url')}.${payload}.${signature}`],
    ['claims', 'payload not JSON', await signRaw('not json')],
    ['claims', 'payload a list', await signRaw('[]')],
    ['algorithm', 'alg none', `${encode({ alg: 'none', typ: 'JWT', kid: 'x' })}.${payload}.${signature}`],
    ['algorithm', 'alg HS256 with the public key', await signSymmetric()],
    [
      'algorithm',
      'asymmetric but not accepted',
      await new SignJWT(claims).setProtectedHeader({ alg: 'RS512', kid: 'x' }).sign(privateKey),
    ],
    ['key-id', 'no kid', await service.token({}, { kid: undefined })],
    ['key-id', 'kid that is no text', await service.token({}, { kid: 5 })],
    ['unknown-key', 'kid of nobody', await service.token({}, { kid: 'other' })],
    ['token-type', 'an ID token of strict providers', await service.token({}, { typ: 'id+jwt' })],
    ['token-type', 'typ that is no text', await service.token({}, { typ: 1 })],
    ['signature', 'signed by a stranger', await service.token({}, {}, stranger)],
    ['signature', 'payload changed', `${head}.${encode({ ...claims, company_id: 'globex' })}.${signature}`],
    ['claim-iss', 'other issuer', await service.token({ iss: `${issuer}/` })],
    ['claim-iss', 'no issuer', await service.token({ iss: undefined })],
    ['claim-aud', 'other audience', await service.token({ aud: 'other' })],
    ['claim-aud', 'no audience', await service.token({ aud: undefined })],
    ['claim-aud', 'audience prefix', await service.token({ aud: [`${audience}-2`] })],
    ['claim-exp', 'no exp', await service.token({ exp: undefined })],
    ['claim-exp', 'exp as text', await service.token({ exp: String(now + 600) })],
    ['expired', 'expired beyond the tolerance', await service.token({ iat: now - 60, exp: now - 5 })],
    ['claim-nbf', 'not yet valid', await service.token({ nbf: now + 6 })],
    ['claim-iat', 'no iat', await service.token({ iat: undefined })],
    ['issued-in-future', 'iat in the future', await service.token({ iat: now + 6 })],
    ['lifetime', 'valid for more than a day', await service.token({ exp: now + 86_401 })],
    ['lifetime', 'valid for ever', await service.token({ exp: 1e15 })],
    ['claim-sub', 'no user', await service.token({ sub: undefined })],
    ['claim-sub', 'user that is no text', await service.token({ sub: 5 })],
  ]
  for (const [reason, name, token] of cases) {
    await t.test(name, async (t) => {
      const answer = await service.mint({ token })
      matchProblem(t, answer, 'invalid-token')
      t.equal(answer.headers['www-authenticate'], 'Bearer error="invalid_token"')
      t.equal(service.log('invalid-token').at(-1)?.reason, reason)
    })
  }
  t.strictSame(await service.arrived(), [])

  const fine: [string, string][] = [
    ['audience in a list', await service.token({ aud: ['other', audience] })],
    ['expired within the tolerance', await service.token({ iat: now - 60, exp: now - 4 })],
    ['no typ', await service.token({}, { typ: undefined })],
    ['typ JWT', await service.token({}, { typ: 'JWT' })],
    ['typ as a full media type, in other case', await service.token({}, { typ: 'application/AT+JWT' })],
    ['valid for exactly a day', await service.token({ exp: now + 86_400 })],
  ]
  for (const [name, token] of fine) t.equal((await service.mint({ token })).status, 201, name)

  function signRaw(text: string): Promise<string> {
    return new CompactSign(new TextEncoder().encode(text))
      .setProtectedHeader({ alg: 'RS256', kid: 'own' })
      .sign(own.privateKey)
  }

  async function signSymmetric(): Promise<string> {
    const secret = new TextEncoder().encode(JSON.stringify(signer.publicJwk))
    return new SignJWT(claims)
      .setProtectedHeader({ alg: 'HS256', kid: String(signer.publicJwk.kid) })
      .sign(secret)
  }
})

t.test('token types can be held to RFC 9068', async (t) => {
  const service = await build(t, { env: { AUTH_TOKEN_TYPES: 'at+jwt' } })
  t.equal((await service.mint()).status, 201)
  matchProblem(t, await service.mint({ token: await service.token({}, { typ: 'JWT' }) }), 'invalid-token')
  matchProblem(t, await service.mint({ token: await service.token({}, { typ: undefined }) }), 'invalid-token')
})

t.test('a required scope', async (t) => {
  const service = await build(t, { env: { AUTH_REQUIRED_SCOPE: 'kyb:create' } })
  t.equal((await service.mint({ token: await service.token({ scope: 'openid kyb:create' }) })).status, 201)
  for (const scope of [undefined, '', 'kyb', 'kyb:create:all', 'KYB:CREATE']) {
    const answer = await service.mint({ token: await service.token({ scope }) })
    matchProblem(t, answer, 'insufficient-scope')
    t.equal(answer.headers['www-authenticate'], 'Bearer error="insufficient_scope", scope="kyb:create"')
  }
})

t.test('claims of other shapes', async (t) => {
  const service = await build(t, {
    env: { AUTH_USER_CLAIM: 'https://acme.example/user', AUTH_COMPANY_CLAIM: '/tenant/id' },
  })
  const token = await service.token({ 'https://acme.example/user': 'u-9', tenant: { id: 'globex' } })
  t.match((await service.mint({ token })).json, { clientId: 'globex', externalRef: 'u-9' })
  matchProblem(t, await service.mint(), 'invalid-token')
})

t.test('a route outside of a guarded scope has no caller', async (t) => {
  const service = await build(t, {
    prepare: (app) => {
      app.post('/open', async (request) =>
        app.kybTokens.issue(request.getDecorator('caller'), {}, request.id),
      )
    },
  })
  matchProblem(t, await send(`${service.url}/open`, { method: 'POST' }), 'internal-error')
  t.strictSame(await service.arrived(), [])
})
