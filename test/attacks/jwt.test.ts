import { constants, createHmac, createSign, sign as cryptoSign, generateKeyPairSync } from 'node:crypto'
import { createServer } from 'node:http'
import { exportSPKI, importJWK, type JWK } from 'jose'
import t, { type Test } from 'tap'
import { createTokenSigner, type TokenSigner } from '../../sandbox/token-signer.js'
import { audience, build, issuer, listen, matchProblem, send } from '../helper.js'

const nowMs = 1_800_000_000_000
const now = nowMs / 1000

/** A key of the provider that the tests can sign anything with, whatever a library would refuse. */
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const jwkOf = (key: typeof rsa.publicKey, kid: string, alg: string): JWK => ({
  ...(key.export({ format: 'jwk' }) as JWK),
  kid,
  alg,
  use: 'sig',
})
const asSigner = (publicJwk: JWK): TokenSigner => ({
  publicJwk,
  sign: () => Promise.reject(new Error('unused')),
})
const rsaJwk = jwkOf(rsa.publicKey, 'rsa', 'RS256')
const ecJwk = jwkOf(ec.publicKey, 'ec', 'ES256')
const claims = { iss: issuer, aud: audience, sub: 'u-1', company_id: 'acme', iat: now, exp: now + 600 }
const header = { alg: 'RS256', kid: 'rsa', typ: 'at+jwt' }

const encode = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
const rsaSign = (input: string) =>
  createSign('sha256').update(input).sign(rsa.privateKey).toString('base64url')
const ecSign = (input: string, dsaEncoding: 'ieee-p1363' | 'der' = 'ieee-p1363') =>
  cryptoSign('sha256', Buffer.from(input), { key: ec.privateKey, dsaEncoding })

/** Signs a header and claims, given as values or as raw text, correctly. */
function jwt(head: unknown = header, payload: unknown = claims): string {
  const input = `${encode(head)}.${encode(payload)}`
  return `${input}.${rsaSign(input)}`
}

async function start(t: Test, env: Record<string, string> = {}) {
  const service = await build(t, {
    now: () => nowMs,
    env,
    signers: [asSigner(rsaJwk), asSigner(ecJwk)],
  })
  const refuse = async (t: Test, name: string, token: string, reason: string) => {
    const response = await service.mint({ token })
    matchProblem(t, response, 'invalid-token')
    t.equal(response.headers['www-authenticate'], 'Bearer realm="onboarding", error="invalid_token"', name)
    t.equal(service.log('invalid-token').at(-1)?.reason, reason, `${name}: ${reason}`)
  }
  return { ...service, refuse }
}

t.test('tokens signed like those of these tests are accepted', async (t) => {
  const { mint } = await start(t)
  t.equal((await mint({ token: jwt() })).status, 201)
  const input = `${encode({ ...header, alg: 'ES256', kid: 'ec' })}.${encode(claims)}`
  t.equal((await mint({ token: `${input}.${ecSign(input).toString('base64url')}` })).status, 201)
})

t.test('claims may be nested as deep as a token is long', async (t) => {
  const { mint } = await start(t)
  const nested = `${'['.repeat(4900)}${']'.repeat(4900)}`
  const withClaim = (name: string) =>
    jwt(header, `{"${name}":${nested},${JSON.stringify({ ...claims, [name]: undefined }).slice(1)}`)
  t.equal((await mint({ token: withClaim('other') })).status, 201)
  matchProblem(t, await mint({ token: withClaim('company_id') }), 'company-not-allowed')
})

t.test('transport and format', async (t) => {
  const { mint, refuse, arrived } = await start(t)
  const token = jwt()
  const [head = '', payload = '', signature = ''] = token.split('.')

  await refuse(t, 'comma list', `${token}, Bearer ${token}`, 'not-compact')
  await refuse(t, '15,001 bytes', `${token}${'A'.repeat(15_001 - token.length)}`, 'too-long')
  for (const character of [' ', '\t', '?', '%', '+', '/', '=', '\u00a0']) {
    const name = `character ${JSON.stringify(character)}`
    const inside = (part: string) => `${part.slice(0, 9)}${character}${part.slice(9)}`
    await refuse(t, `${name} in the header`, `${inside(head)}.${payload}.${signature}`, 'not-compact')
    await refuse(t, `${name} in the claims`, `${head}.${inside(payload)}.${signature}`, 'not-compact')
    await refuse(t, `${name} in the signature`, `${head}.${payload}.${inside(signature)}`, 'not-compact')
  }
  for (const form of [
    `${token}.`,
    `.${token}`,
    `${head}.${payload}`,
    `${head}.${payload}.`,
    `${token}.${signature}`,
    '..',
  ]) {
    await refuse(t, 'wrong number of parts', form, 'not-compact')
  }
  await refuse(
    t,
    'JSON serialization',
    JSON.stringify({ payload, signatures: [{ protected: head, signature }] }),
    'not-compact',
  )
  await refuse(
    t,
    'unused bits set',
    `${head}.${payload}.${signature.slice(0, -1)}${signature.endsWith('Q') ? 'R' : 'B'}`,
    'encoding',
  )
  await refuse(t, 'one character over', `${head}.${payload}.${signature.slice(0, 341)}`, 'encoding')
  for (const head of ['{', '[]', 'null', '"RS256"', '\ufeff{"alg":"RS256"}']) {
    await refuse(t, `header ${head}`, jwt(head), 'header')
  }
  const latin1 = Buffer.from('{"alg":"RS256","x":"\xe9"}', 'latin1').toString('base64url')
  await refuse(t, 'header in Latin-1', `${latin1}.${payload}.${signature}`, 'header')
  await refuse(t, 'alg RS256, then none', jwt('{"alg":"RS256","kid":"rsa","alg":"none"}'), 'algorithm')
  t.equal((await mint({ headers: { authorization: '' } })).status, 401, 'an empty header')
  t.equal(
    (await mint({ headers: { authorization: `DPoP ${token}` } })).json.code,
    'unauthenticated',
    'another scheme',
  )
  t.equal(
    (await mint({ headers: { authorization: `bEARER ${token}` } })).status,
    201,
    'the case of the scheme does not matter',
  )
  for (const pair of [
    [`Bearer ${token}`, 'Bearer x'],
    ['Bearer x', `Bearer ${token}`],
  ]) {
    matchProblem(t, await mint({ headers: { authorization: pair } }), 'malformed-request')
  }
  t.equal((await arrived()).length, 1, 'only the good one')
})

t.test('algorithm and key confusion', async (t) => {
  const { refuse } = await start(t)
  for (const alg of [
    'none',
    'None',
    'NONE',
    'nOnE',
    'none ',
    'rs256',
    'RS256 ',
    'RS256\u0000',
    'HS256',
    'RS1',
    '',
    null,
    5,
    ['RS256'],
  ]) {
    await refuse(t, `alg ${JSON.stringify(alg)}`, jwt({ ...header, alg }), 'algorithm')
  }
  await refuse(t, 'none in escapes', jwt('{"alg":"no\\u006ee","kid":"rsa"}'), 'algorithm')
  const spki = await exportSPKI((await importJWK(rsaJwk, 'RS256')) as Parameters<typeof exportSPKI>[0])
  const pkcs1 = rsa.publicKey.export({ format: 'pem', type: 'pkcs1' }).toString()
  const secrets: (string | Buffer)[] = [
    spki,
    spki.trim(),
    pkcs1,
    rsa.publicKey.export({ format: 'der', type: 'spki' }),
    JSON.stringify(rsaJwk),
    Buffer.from(String(rsaJwk.n), 'base64url'),
    '',
    'secret',
    Buffer.alloc(32),
  ]
  for (const [index, secret] of secrets.entries()) {
    for (const alg of ['HS256', 'HS384', 'HS512']) {
      const input = `${encode({ ...header, alg })}.${encode(claims)}`
      const mac = createHmac(alg.replace('HS', 'sha'), secret).update(input).digest('base64url')
      await refuse(t, `${alg} with secret ${index}`, `${input}.${mac}`, 'algorithm')
    }
  }
  const pss = (saltLength: number) => (input: string) =>
    cryptoSign('sha256', Buffer.from(input), {
      key: rsa.privateKey,
      padding: constants.RSA_PKCS1_PSS_PADDING,
      saltLength,
    })
  for (const saltLength of [0, 20, 32, 64]) {
    const input = `${encode({ ...header, alg: 'PS256' })}.${encode(claims)}`
    await refuse(
      t,
      `PS256 by an RS256 key, salt ${saltLength}`,
      `${input}.${pss(saltLength)(input).toString('base64url')}`,
      'unknown-key',
    )
  }
  for (const alg of ['ES384', 'ES512', 'ES256K', 'PS512']) {
    await refuse(t, `alg ${alg} with a key of another curve`, jwt({ ...header, alg, kid: 'ec' }), 'algorithm')
  }
  await refuse(
    t,
    'PBES2',
    jwt({ alg: 'PBES2-HS256+A128KW', enc: 'A128GCM', p2c: 2 ** 31, kid: 'rsa' }),
    'algorithm',
  )
  await refuse(t, 'nested', jwt({ ...header, cty: 'JWT' }, encode(jwt())), 'header-parameter')

  const narrow = await start(t, { AUTH_ALGORITHMS: 'ES256' })
  await narrow.refuse(t, 'not accepted here', jwt(), 'algorithm')
})

t.test('signatures', async (t) => {
  const { refuse } = await start(t)
  const token = jwt()
  const [head, payload, signature = ''] = token.split('.')
  await refuse(
    t,
    'claims changed',
    `${head}.${encode({ ...claims, company_id: 'globex' })}.${signature}`,
    'signature',
  )
  await refuse(
    t,
    'header changed',
    `${encode({ ...header, typ: 'JWT' })}.${payload}.${signature}`,
    'signature',
  )
  await refuse(
    t,
    "another token's",
    `${head}.${payload}.${jwt(header, { ...claims, sub: 'u-2' }).split('.')[2]}`,
    'signature',
  )
  await refuse(t, 'of zeros', `${head}.${payload}.${Buffer.alloc(256).toString('base64url')}`, 'signature')
  await refuse(t, 'of one byte', `${head}.${payload}.AA`, 'signature')

  const input = `${encode({ ...header, alg: 'ES256', kid: 'ec' })}.${encode(claims)}`
  const good = ecSign(input)
  const order = Buffer.from('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551', 'hex')
  const number = (value: number) => Buffer.concat([Buffer.alloc(31), Buffer.from([value])])
  const forged: [string, Buffer][] = [
    ['DER', ecSign(input, 'der')],
    ['63 bytes', good.subarray(0, 63)],
    ['65 bytes', Buffer.concat([good, Buffer.from([0])])],
    ['r=0 s=0', Buffer.alloc(64)],
    ['r=0 s=1', Buffer.concat([number(0), number(1)])],
    ['r=1 s=0', Buffer.concat([number(1), number(0)])],
    ['r=n s=n', Buffer.concat([order, order])],
    ['all ones', Buffer.alloc(64, 255)],
  ]
  for (const [name, bytes] of forged)
    await refuse(t, name, `${input}.${bytes.toString('base64url')}`, 'signature')
})

t.test('key selection and key supply', async (t) => {
  let hits = 0
  const canary = createServer((_request, response) => {
    hits += 1
    response.end()
  })
  const url = `http://127.0.0.1:${await listen(t, canary)}/jwks`
  const { refuse } = await start(t)

  const parameters = {
    jku: url,
    jwk: rsaJwk,
    x5u: url,
    x5c: ['MIIB'],
    crit: ['exp'],
    b64: false,
    zip: 'DEF',
    cty: 'JWT',
    enc: 'A256GCM',
  }
  for (const [name, value] of Object.entries(parameters)) {
    await refuse(t, `header parameter ${name}`, jwt({ ...header, [name]: value }), 'header-parameter')
  }
  for (const crit of [[], 'x', null])
    await refuse(t, `crit ${JSON.stringify(crit)}`, jwt({ ...header, crit }), 'header-parameter')
  for (const kid of ['../../../../dev/null', '/dev/null', 'of-another-realm', 'RSA']) {
    const reason = 'unknown-key'
    await refuse(t, `kid ${kid}`, jwt({ ...header, kid }), reason)
  }
  for (const kid of ['', "x' UNION SELECT '1';--", `| curl ${url}`, 'a\n', '\u001b[31m', 'x'.repeat(512)]) {
    await refuse(t, `kid ${JSON.stringify(kid)}`, jwt({ ...header, kid }), 'unknown-key')
  }
  for (const kid of [5, null, [], {}, 'x'.repeat(513)]) {
    await refuse(t, `kid ${JSON.stringify(kid)}`, jwt({ ...header, kid }), 'key-id')
  }
  t.equal(hits, 0)
})

t.test('registered claims', async (t) => {
  const { mint, refuse, arrived } = await start(t)
  const but = (change: object) => jwt(header, { ...claims, ...change })

  for (const payload of ['', 'x', '[]', '"a"', '1', 'null', '{', '\ufeff{}']) {
    await refuse(t, `claims ${payload}`, jwt(header, payload || ' '), 'claims')
  }
  const latin1 = `${encode(header)}.${Buffer.from('{"sub":"\xe9"}', 'latin1').toString('base64url')}`
  await refuse(t, 'claims in invalid UTF-8', `${latin1}.${rsaSign(latin1)}`, 'claims')
  for (const exp of [undefined, null, 'x', true, [], String(now + 60)])
    await refuse(t, `exp ${JSON.stringify(exp)}`, but({ exp }), 'claim-exp')
  await refuse(t, 'an expired token', but({ iat: now - 60, exp: now - 5 }), 'expired')
  for (const exp of [1e308, Number.MAX_SAFE_INTEGER, now + 86_401])
    await refuse(t, `exp ${exp}`, but({ exp }), 'lifetime')
  await refuse(t, 'a token issued in the future', but({ iat: now + 6 }), 'issued-in-future')
  for (const iat of [null, String(now), {}])
    await refuse(t, `iat ${JSON.stringify(iat)}`, but({ iat }), 'claim-iat')
  await refuse(t, 'nbf', but({ nbf: now + 6 }), 'claim-nbf')
  await refuse(t, 'nbf as text', but({ nbf: 'x' }), 'claim-nbf')
  const audiences = [
    undefined,
    'other',
    audience.slice(0, -1),
    audience.toUpperCase(),
    [],
    [[audience]],
    { [audience]: 1 },
    5,
    null,
  ]
  for (const aud of audiences) await refuse(t, `audience ${JSON.stringify(aud)}`, but({ aud }), 'claim-aud')
  t.equal((await mint({ token: but({ aud: ['x', audience] }) })).status, 201, 'one of several audiences')
  for (const iss of [undefined, null, '', `${issuer}/`, issuer.toUpperCase(), [issuer]]) {
    await refuse(t, `issuer ${iss}`, but({ iss }), 'claim-iss')
  }
  for (const sub of [undefined, null, 5, {}, ['u-1']]) await refuse(t, 'sub', but({ sub }), 'claim-sub')
  const foreign = [
    { nonce: 'n', at_hash: 'x' },
    { c_hash: 'x' },
    { s_hash: 'x' },
    { token_use: 'id' },
    { typ: 'ID' },
    { typ: 'Refresh' },
    { events: {} },
  ]
  for (const more of foreign)
    await refuse(t, `claims ${JSON.stringify(more)}`, but(more), 'not-an-access-token')
  t.equal(
    (await mint({ token: but({ token_use: 'access', typ: 'Bearer' }) })).status,
    201,
    'their access tokens',
  )
  await refuse(t, 'a token bound to a key', but({ cnf: { jkt: 'x' } }), 'not-an-access-token')
  await refuse(t, 'a token of an actor', but({ act: { sub: 'x' } }), 'not-an-access-token')
  t.equal((await arrived()).length, 2)
})

t.test('good tokens are accepted after many bad ones', async (t) => {
  const { mint } = await start(t)
  const good = jwt()
  for (let i = 0; i < 50; i++) await mint({ token: `${good.slice(0, -4)}AAAA` })
  for (let i = 0; i < 10; i++) t.equal((await mint({ token: good })).status, 201)
})

t.test('company scope', async (t) => {
  const { mint, arrived } = await start(t)
  const but = (change: object) => ({ token: jwt(header, { ...claims, ...change }) })
  for (const company_id of [undefined, null, '', ' ', 5.5, 2 ** 53, {}, [true]]) {
    matchProblem(t, await mint(but({ company_id })), 'company-not-allowed')
  }
  matchProblem(t, await mint(but({ company_id: ['a', 'b'] })), 'company-required', { companyIds: ['a', 'b'] })
  for (const company_id of ['a'.repeat(101), 'a\u0000', '\ud800', 'é', 'e\u0301', '\u202ea', '１']) {
    matchProblem(t, await mint(but({ company_id })), 'identity-not-mappable')
  }
  const services = [
    { sub: 'c-1', client_id: 'c-1' },
    { sub: 'c-1', azp: 'c-1' },
    { gty: 'client-credentials' },
    { idtyp: 'app' },
  ]
  for (const service of services) matchProblem(t, await mint(but(service)), 'identity-not-mappable')
  t.strictSame(await arrived(), [])
})

t.test('all refused tokens get the same response, and the reasons are counted', async (t) => {
  const { mint, managementUrl } = await start(t)
  const other = await createTokenSigner('RS256', 'rsa')
  const tokens = [
    'x',
    jwt({ alg: 'none' }),
    jwt({ ...header, kid: 'x' }),
    await other.sign(claims),
    jwt(header, { ...claims, exp: now - 60 }),
  ]
  const bodies = await Promise.all(
    tokens.map(async (token) => (await mint({ token })).text.replace(/"requestId":"[^"]+"/, '')),
  )
  t.equal(new Set(bodies).size, 1)
  const { text } = await send(`${managementUrl}/metrics`)
  for (const reason of ['not-compact', 'algorithm', 'unknown-key', 'signature', 'expired']) {
    t.match(text, `authentication_failures_total{reason="${reason}"} 1`)
  }
})
