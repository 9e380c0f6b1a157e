import { randomUUID } from 'node:crypto'
import t from 'tap'
import { createTokenSigner, type TokenSigner } from '../../sandbox/token-signer.js'
import { audience, build, createClock, matchProblem, send, signer, until } from '../helper.js'
import { startKeyServer } from '../key-server.js'

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
      const response = await mint(authorization)
      matchProblem(t, response, 'unauthenticated')
      t.equal(response.headers['www-authenticate'], 'Bearer realm="onboarding"')
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
    const response = await service.mint({ body: { access_token: token }, headers })
    matchProblem(t, response, 'unauthenticated')
  })
})

const uuids = (count: number) => Array.from({ length: count }, () => randomUUID())

t.test('tokens at the edge of what is valid', async (t) => {
  const nowMs = 1_800_000_000_000
  const now = nowMs / 1000
  const service = await build(t, { now: () => nowMs })
  const rows: [string, string, string?][] = [
    ['audience in a list', await service.token({ aud: ['other', audience] })],
    ['expired within the tolerance', await service.token({ iat: now - 60, exp: now - 4 })],
    ['not yet valid within the tolerance', await service.token({ nbf: now + 5, iat: now + 5 })],
    ['no typ', await service.token({}, { typ: undefined })],
    ['typ JWT', await service.token({}, { typ: 'JWT' })],
    ['typ as a full media type, in other case', await service.token({}, { typ: 'application/AT+JWT' })],
    ['no iat', await service.token({ iat: undefined, exp: now + 86_400 })],
    ['146 companies', await service.token({ company_id: ['acme', ...uuids(146)] }), 'acme'],
    ['valid for exactly a day', await service.token({ exp: now + 86_400 })],
  ]
  for (const [name, token, company] of rows) {
    const headers = { ...(company && { 'x-company-id': company }) }
    t.equal((await service.mint({ token, headers })).status, 201, name)
  }
  const signedByUnknownKey = await (await createTokenSigner('RS256', 'nobody')).sign({})
  matchProblem(t, await service.mint({ token: signedByUnknownKey }), 'invalid-token')
  t.equal(service.log('invalid-token').at(-1)?.reason, 'unknown-key')
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
    const response = await service.mint({ token: await service.token({ scope }) })
    matchProblem(t, response, 'insufficient-scope')
    t.equal(
      response.headers['www-authenticate'],
      'Bearer realm="onboarding", error="insufficient_scope", scope="kyb:create"',
    )
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

t.test('a value just outside the limit is refused, with the reason', async (t) => {
  const nowMs = 1_800_000_000_000
  const now = nowMs / 1000
  const service = await build(t, { now: () => nowMs })
  const rows: [string, string][] = [
    ['lifetime', await service.token({ iat: undefined, exp: now + 86_406 })],
    ['claim-exp', await service.token({ iat: undefined, exp: undefined })],
    ['claim-nbf', await service.token({ iat: undefined, nbf: now + 6 })],
    ['too-long', await service.token({ company_id: uuids(300) })],
  ]
  for (const [reason, token] of rows) {
    matchProblem(t, await service.mint({ token }), 'invalid-token')
    t.equal(service.log('invalid-token').at(-1)?.reason, reason)
  }
})

t.test('a token without kid is checked with the only key that fits its algorithm', async (t) => {
  const [es, other, rs] = [
    await createTokenSigner('ES256', 'es'),
    await createTokenSigner('ES256', 'other'),
    await createTokenSigner('RS256', 'rs'),
  ]
  const anonymous = { ...es.publicJwk, kid: undefined }
  const provider = await startKeyServer(t, es.publicJwk)
  const { clocks, pass } = createClock()
  const service = await build(t, { ...clocks, env: { AUTH_JWKS_URL: provider.url } })
  const exp = Math.floor(clocks.now() / 1000) + 7200
  const bare = await service.token({ exp }, { kid: undefined }, es)
  const named = await service.token({ exp }, {}, es)
  const outcomeOf = async (token: string, ...keys: object[]) => {
    provider.keys = keys
    pass(300)
    const { status } = await service.mint({ token })
    return status === 201 ? status : service.log('invalid-token').at(-1)?.reason
  }
  t.equal(await outcomeOf(bare, es.publicJwk, rs.publicJwk), 201, 'one of its algorithm')
  t.equal(await outcomeOf(bare, es.publicJwk, { ...other.publicJwk, use: 'enc' }), 201, 'one that signs')
  t.equal(await outcomeOf(bare, anonymous), 201, 'a key that has no id either')
  t.equal(await outcomeOf(bare, es.publicJwk, other.publicJwk), 'ambiguous-key')
  t.equal(await outcomeOf(bare, anonymous, other.publicJwk), 'ambiguous-key')
  t.equal(await outcomeOf(bare, other.publicJwk), 'signature')
  t.equal(await outcomeOf(bare, rs.publicJwk), 'unknown-key')
  t.equal(await outcomeOf(named, anonymous), 'unknown-key', 'an id has to be there')
})

t.test('a kid is only compared', async (t) => {
  const kids = ['public:hydra.openid.id-token', 'a b', 'ключ', '../../x', '', 'x'.repeat(512), '"}\n']
  const signers = await Promise.all(kids.map((kid) => createTokenSigner('ES256', kid)))
  const service = await build(t, { signers: signers as [TokenSigner, ...TokenSigner[]] })
  for (const by of signers) {
    t.equal(
      (await service.mint({ token: await service.token({}, {}, by) })).status,
      201,
      `${by.publicJwk.kid}`,
    )
  }
})

t.test('ids that are numbers are ids in decimal', async (t) => {
  const service = await build(t, { env: { AUTH_USER_CLAIM: 'uid' } })
  const one = await service.token({ uid: 42, company_id: 4711 })
  t.match((await service.mint({ token: one })).json, { clientId: '4711', externalRef: '42' })
  const many = await service.token({ uid: 42, company_id: [4711, 4712] })
  matchProblem(t, await service.mint({ token: many }), 'company-required', { companyIds: ['4711', '4712'] })
  const headers = { 'x-company-id': '4712' }
  t.equal((await service.mint({ token: many, headers })).json.clientId, '4712')
})

t.test('ids of any text, where the templates hash them', async (t) => {
  const service = await build(t, {
    env: {
      KYB_CLIENT_ID: '{companyHash}',
      KYB_EXTERNAL_REF: '{userHash}',
      KYB_IDENTITY_KEY: 'k'.repeat(32),
    },
  })
  const ids = ['oidc:abc', 'us-east-1:5c3f', 'GB:12345678', 'user name', 'Łódź', 'AAAA'.repeat(11)]
  const token = await service.token({ company_id: ids })
  const references = new Set<string>()
  for (const id of ids) {
    const sent = { token, headers: { 'x-company-id': encodeURIComponent(id) } }
    const { json } = await service.mint(sent)
    references.add(json.clientId)
    t.equal((await service.mint({ token: await service.token({ company_id: id, sub: id }) })).status, 201, id)
    t.equal(service.log('success').at(-1)?.company, id)
  }
  t.equal(references.size, ids.length)
  const asBytes = { 'x-company-id': Buffer.from('Łódź').toString('latin1') }
  t.ok(references.has((await service.mint({ token, headers: asBytes })).json.clientId))
})

t.test('an id that the templates cannot express is for the operator to see', async (t) => {
  const service = await build(t)
  const rows: [object, string][] = [
    [{ sub: 'AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ' }, 'externalRef-too-long'],
    [{ sub: 'oidc:abc' }, 'user-id'],
    [{ company_id: 'Łódź' }, 'company-id'],
  ]
  for (const [claims, reason] of rows) {
    matchProblem(t, await service.mint({ token: await service.token(claims) }), 'identity-not-mappable')
    t.match(service.log('identity-not-mappable').at(-1), { level: 'error', reason })
  }
})

t.test('a refused token of the right provider shows what was expected and what came', async (t) => {
  const service = await build(t)
  const other = await createTokenSigner('RS256', String(signer.publicJwk.kid))
  const iat = Math.floor(Date.now() / 1000)
  const rows: [claims: object, header: object, expected: string, received: string][] = [
    [{ iss: 'https://idp.example/' }, {}, 'https://idp.example', 'https://idp.example/'],
    [{ aud: 'account' }, {}, 'onboarding', 'account'],
    [{ aud: ['account', 'x'.repeat(300)] }, {}, 'onboarding', `account, ${'x'.repeat(191)}`],
    [{}, { typ: 'dpop+jwt' }, 'at+jwt, JWT', 'dpop+jwt'],
    [{}, { typ: 5 }, 'at+jwt, JWT', '5'],
    [{ iss: null }, {}, 'https://idp.example', 'object'],
    [{ iat, exp: iat + 200_000 }, {}, 'at most 86400 seconds', '200000'],
  ]
  for (const [claims, header, expected, received] of rows) {
    const response = await service.mint({ token: await service.token(claims, { ...header }) })
    matchProblem(t, response, 'invalid-token')
    t.notMatch(response.text, 'account', 'the caller does not see it')
    t.match(service.log('invalid-token').at(-1), { level: 'warn', expected, received })
    await service.mint({ token: await service.token(claims, { ...header }, other) })
    const forged = service.log('invalid-token').at(-1)
    t.match(
      forged,
      { level: 'info', reason: 'signature', received: undefined },
      'a forged token adds nothing to the log',
    )
  }
})

t.test('a token for another audience is checked every time, and never remembered', async (t) => {
  const service = await build(t)
  const token = await service.token({ aud: 'other' })
  for (let index = 0; index < 3; index++) {
    matchProblem(t, await service.mint({ token }), 'invalid-token')
    t.equal(service.log('invalid-token').at(-1)?.reason, 'claim-aud')
  }
})

t.test('times are checked at every use of a token', async (t) => {
  let nowMs = 1_800_000_000_000
  const service = await build(t, { now: () => nowMs })
  const token = await service.token()
  t.equal((await service.mint({ token })).status, 201)
  nowMs -= 3_600_000
  matchProblem(t, await service.mint({ token }), 'invalid-token')
  t.equal(service.log('invalid-token').at(-1)?.reason, 'issued-in-future')
  nowMs += 3_600_000
  const notBefore = await service.token({ iat: undefined, nbf: nowMs / 1000 })
  t.equal((await service.mint({ token: notBefore })).status, 201)
  nowMs -= 3_600_000
  matchProblem(t, await service.mint({ token: notBefore }), 'invalid-token')
  nowMs += 3_600_000
  const short = await service.token({ exp: nowMs / 1000 + 60 })
  t.equal((await service.mint({ token: short })).status, 201)
  nowMs += 65_000
  matchProblem(t, await service.mint({ token: short }), 'invalid-token')
  t.equal(service.log('invalid-token').at(-1)?.reason, 'expired')
})

t.test('the log names the keys of a set that are not used, and no more of them', async (t) => {
  const ed448 = { kty: 'OKP', crv: 'Ed448', kid: 'k\n\ud800', x: 'canary-key-material' }
  const provider = await startKeyServer(t, signer.publicJwk, null, ed448)
  const service = await build(t, { env: { AUTH_JWKS_URL: provider.url } })
  service.secrets.add('canary-key-material')
  t.equal((await service.mint()).status, 201)
  t.match(
    service.log().filter(({ ignoredCount }) => ignoredCount !== undefined),
    [{ level: 'info', ignoredCount: 2, ignoredKeys: [{ reason: 'not-an-object' }, { reason: 'algorithm' }] }],
  )
})

t.test('a set without a usable key makes no instance ready', async (t) => {
  const { publicJwk } = await createTokenSigner('ES384', 'not-accepted')
  const provider = await startKeyServer(t, publicJwk)
  const service = await build(t, { env: { AUTH_JWKS_URL: provider.url } })
  t.equal((await send(`${service.managementUrl}/readyz`)).status, 503)
  t.match(
    service.log().filter(({ ignoredCount }) => ignoredCount !== undefined),
    [{ level: 'warn', err: { code: 'jwks-no-usable-key' }, ignoredKeys: [{ kid: 'not-accepted' }] }],
  )
  t.match(await service.metrics(), 'signing_key_fetch_failures_total{reason="jwks-no-usable-key"} 1')
})

t.test('every request to the provider names the service', async (t) => {
  const provider = await startKeyServer(t, signer.publicJwk)
  const service = await build(t, { env: { AUTH_JWKS_URL: provider.url } })
  await service.mint()
  t.match(provider.fetches[0]?.['user-agent'], /^onboarding-bff\/\d+\.\d+\.\d+$/)
})

t.test('a service that closes during a fetch does not wait for it, and reports no failure', async (t) => {
  const provider = await startKeyServer(t)
  provider.respond = () => {}
  const service = await build(t, { env: { AUTH_JWKS_URL: provider.url } })
  await until(() => provider.fetches.length === 1, 'the service to fetch the signing keys')
  const startedAt = performance.now()
  await service.app.close()
  t.ok(performance.now() - startedAt < 1000)
  t.strictSame(
    service.log().filter(({ level }) => ['warn', 'error', 'fatal'].includes(String(level))),
    [],
  )
})

t.test('a route outside of a guarded scope has no caller', async (t) => {
  const service = await build(t, {
    prepare: (app) => {
      app.post('/open', async (request) =>
        app.tokenIssuer.issue({
          caller: request.getDecorator('caller'),
          requestedSession: {},
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
