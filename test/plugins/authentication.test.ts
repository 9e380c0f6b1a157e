import t from 'tap'
import { createTokenSigner, type TokenSigner } from '../../src/sandbox/token-signer.js'
import { audience, build, createClock, matchProblem, send, signer } from '../helper.js'

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
  await t.test('JWT-010 a token in the body or a cookie is none', async (t) => {
    const headers = { authorization: '', cookie: `access_token=${token}` }
    const answer = await service.mint({ body: { access_token: token }, headers })
    matchProblem(t, answer, 'unauthenticated')
  })
})

t.test('tokens at the edge of what is valid', async (t) => {
  const nowMs = 1_800_000_000_000
  const now = nowMs / 1000
  const service = await build(t, { now: () => nowMs })
  const rows: [string, string][] = [
    ['audience in a list', await service.token({ aud: ['other', audience] })],
    ['expired within the tolerance', await service.token({ iat: now - 60, exp: now - 4 })],
    ['not yet valid within the tolerance', await service.token({ nbf: now + 5, iat: now + 5 })],
    ['no typ', await service.token({}, { typ: undefined })],
    ['typ JWT', await service.token({}, { typ: 'JWT' })],
    ['typ as a full media type, in other case', await service.token({}, { typ: 'application/AT+JWT' })],
    ['valid for exactly a day', await service.token({ exp: now + 86_400 })],
  ]
  for (const [name, token] of rows) t.equal((await service.mint({ token })).status, 201, name)
  const signedByNobody = await (await createTokenSigner('RS256', 'nobody')).sign({})
  matchProblem(t, await service.mint({ token: signedByNobody }), 'invalid-token')
  t.equal(service.log('invalid-token').at(-1)?.reason, 'unknown-key')
})

t.test('token types can be held to RFC 9068', async (t) => {
  const service = await build(t, { env: { AUTH_TOKEN_TYPES: 'at+jwt' } })
  t.equal((await service.mint()).status, 201)
  matchProblem(t, await service.mint({ token: await service.token({}, { typ: 'JWT' }) }), 'invalid-token')
  matchProblem(t, await service.mint({ token: await service.token({}, { typ: undefined }) }), 'invalid-token')
})

t.test('JWT-086, JWT-092, STD-04 a required scope', async (t) => {
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

t.test('a token that was good before is good only as long as its time and its key last', async (t) => {
  const { clocks, pass } = createClock()
  const signers: [TokenSigner, ...TokenSigner[]] = [signer]
  const service = await build(t, { ...clocks, signers })
  const token = await service.token({}, {}, signers[0])
  const lasting = await service.token({ exp: Math.floor(clocks.now() / 1000) + 7200 })
  for (const text of [token, token, lasting]) t.equal((await service.mint({ token: text })).status, 201)
  const other = await service.token({ company_id: 'globex' })
  t.equal((await service.mint({ token: other })).json.clientId, 'globex')
  t.equal((await service.mint({ token: lasting })).json.clientId, 'acme')

  pass(606)
  matchProblem(t, await service.mint({ token }), 'invalid-token')
  t.equal((await service.mint({ token: lasting })).status, 201)

  // Another key under the same id. The unknown one makes the service look.
  signers[0] = await createTokenSigner('RS256')
  const unknown = await service.token({}, {}, await createTokenSigner('RS256', 'unknown'))
  matchProblem(t, await service.mint({ token: unknown }), 'invalid-token')
  matchProblem(t, await service.mint({ token: lasting }), 'invalid-token')
  t.strictSame(
    service.log('invalid-token').map(({ reason }) => reason),
    ['expired', 'unknown-key', 'signature'],
  )
})

t.test('API2-3 a route outside of a guarded scope has no caller', async (t) => {
  const service = await build(t, {
    prepare: (app) => {
      app.post('/open', async (request) =>
        app.kybTokens.issue({
          caller: request.getDecorator('caller'),
          wishes: {},
          requestId: request.id,
          log: request.log,
          waitedMs: 0,
          isAbandoned: () => false,
          admit: async () => {},
        }),
      )
    },
  })
  matchProblem(t, await send(`${service.url}/open`, { method: 'POST' }), 'internal-error')
  t.strictSame(await service.arrived(), [])
})
