import t from 'tap'
import {
  checkHeader,
  checkIsAccessToken,
  type InvalidTokenReason,
  invalidToken,
  mediaType,
  shown,
  unexpected,
} from '../../../src/services/auth/access-token.js'

const algorithms = ['RS256', 'ES256']
const encode = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
const jwt = (header: unknown = { alg: 'ES256', kid: 'a' }, claims: unknown = {}) =>
  `${encode(header)}.${encode(claims)}.AAAA`
const refusal = (reason: InvalidTokenReason) => ({
  name: 'Problem',
  code: 'invalid-token',
  options: { diagnosis: { reason } },
})

t.test('of a header that is accepted, algorithm and key id are used', async (t) => {
  t.strictSame(checkHeader(jwt({ alg: 'ES256', kid: 'a', typ: 'JWT', x: 1 }), algorithms), {
    alg: 'ES256',
    kid: 'a',
  })
  t.strictSame(checkHeader(jwt({ alg: 'RS256' }), algorithms), { alg: 'RS256' })
  t.strictSame(checkHeader(jwt({ alg: 'RS256', kid: '' }), algorithms), { alg: 'RS256', kid: '' })
  const kid = 'k'.repeat(512)
  t.strictSame(checkHeader(jwt({ alg: 'RS256', kid }), algorithms), { alg: 'RS256', kid })
})

t.test('a token has at most 15,000 characters', async (t) => {
  const ofLength = (length: number) => {
    const head = jwt({ alg: 'ES256', kid: 'ab' }).slice(0, -4)
    return `${head}${'A'.repeat(length - head.length)}`
  }
  t.doesNotThrow(() => checkHeader(ofLength(15_000), algorithms), 'as many as can be')
  t.throws(() => checkHeader(ofLength(15_001), algorithms), refusal('too-long'))
})

t.test('a token has three parts of characters without padding', async (t) => {
  const [header = '', claims = ''] = jwt().split('.')
  for (const text of [
    '',
    '.',
    '..',
    'a.b',
    `${header}.${claims}`,
    `${header}.${claims}.`,
    `.${claims}.AAAA`,
    `${header}..AAAA`,
  ]) {
    t.throws(() => checkHeader(text, algorithms), refusal('not-compact'), text)
  }
  for (const text of [`${jwt()}.AAAA`, ` ${jwt()}`, `${jwt()}\n`, `${jwt()}=`, `x ${jwt()}`]) {
    t.throws(() => checkHeader(text, algorithms), refusal('not-compact'), JSON.stringify(text))
  }
  for (const index of [0, 1, 2]) {
    const parts = jwt().split('.')
    parts[index] = `${parts[index]}+`
    t.throws(() => checkHeader(parts.join('.'), algorithms), refusal('not-compact'))
  }
})

t.test('each part has one spelling', async (t) => {
  t.throws(() => checkHeader(`${jwt()}A`, algorithms), refusal('encoding'), 'one character over')
  t.throws(() => checkHeader(`${jwt().slice(0, -4)}AB`, algorithms), refusal('encoding'), 'unused bits set')
  t.doesNotThrow(() => checkHeader(`${jwt().slice(0, -4)}AA`, algorithms))
  const [header = '', claims = ''] = jwt({ alg: 'ES256' }, '{ }').split('.')
  t.throws(() => checkHeader(`${header}.${claims}A.AAAA`, algorithms), refusal('encoding'))
})

t.test('claims with a byte order mark are refused', async (t) => {
  t.throws(() => checkHeader(jwt(undefined, '\ufeff{}'), algorithms), refusal('claims'))
  t.doesNotThrow(() => checkHeader(jwt(undefined, '{"a":"\ufeff"}'), algorithms))
})

t.test('a header that is no object in UTF-8 is refused', async (t) => {
  for (const header of ['{', '[]', 'null', '5', '"ES256"', '\ufeff{"alg":"ES256"}']) {
    t.throws(() => checkHeader(jwt(header), algorithms), refusal('header'), JSON.stringify(header))
  }
  const latin1 = Buffer.from('{"alg":"ES256","x":"\xe9"}', 'latin1').toString('base64url')
  t.throws(() => checkHeader(`${latin1}.e30.AAAA`, algorithms), refusal('header'))
})

t.test('an algorithm that is not accepted is refused', async (t) => {
  for (const alg of ['none', 'HS256', 'es256', 'PS256', '', undefined, null, 5, ['ES256']]) {
    t.throws(() => checkHeader(jwt({ alg }), algorithms), refusal('algorithm'), String(alg))
  }
})

t.test('a key id that is no text, or long, is refused', async (t) => {
  for (const kid of [null, 5, {}, ['a'], 'k'.repeat(513)]) {
    t.throws(() => checkHeader(jwt({ alg: 'ES256', kid }), algorithms), refusal('key-id'), String(kid))
  }
})

t.test('a header that brings a key or needs more than a check is refused', async (t) => {
  for (const name of ['jku', 'jwk', 'x5u', 'x5c', 'crit', 'b64', 'zip', 'cty', 'enc']) {
    t.throws(
      () => checkHeader(jwt({ alg: 'ES256', [name]: null }), algorithms),
      refusal('header-parameter'),
      name,
    )
  }
})

t.test('tokens of other kinds are refused', async (t) => {
  for (const name of ['at_hash', 'c_hash', 's_hash', 'events', 'cnf', 'act']) {
    t.throws(() => checkIsAccessToken({ [name]: null }), refusal('not-an-access-token'), name)
  }
  for (const claims of [
    { token_use: 'id' },
    { token_use: '' },
    { typ: 'ID' },
    { typ: 'bearer' },
    { typ: '' },
  ]) {
    t.throws(() => checkIsAccessToken(claims), refusal('not-an-access-token'), JSON.stringify(claims))
  }
  for (const claims of [{}, { token_use: 'access' }, { typ: 'Bearer' }, { sub: 'u-1', nonce: 'x' }]) {
    t.doesNotThrow(() => checkIsAccessToken(claims), JSON.stringify(claims))
  }
})

t.test('a claim is shown as a short text', async (t) => {
  for (const [claim, text] of [
    ['a', 'a'],
    [5, '5'],
    [['a', 5, 'b'], 'a, 5, b'],
    [true, 'boolean'],
    [null, 'object'],
    [undefined, 'none'],
    [{ a: 1 }, 'object'],
    [['a', ['b']], 'a, object'],
    [[], ''],
    ['x'.repeat(201), 'x'.repeat(200)],
  ] as const) {
    t.equal(shown(claim), text)
  }
})

t.test('a refusal says what was expected and what was received', async (t) => {
  const cause = new Error('lost')
  const problem = unexpected('claim-aud', 'onboarding', ['a', 'b'], cause)
  t.match(problem, { code: 'invalid-token', cause })
  t.strictSame(problem.options.diagnosis, { reason: 'claim-aud', expected: 'onboarding', received: 'a, b' })
  t.strictSame(invalidToken('expired').options.diagnosis, { reason: 'expired' })
  t.match(invalidToken('expired', cause), { cause })
})

t.test('a type may be written in full, in any case', async (t) => {
  for (const typ of ['at+jwt', 'AT+JWT', 'application/at+jwt', 'Application/AT+jwt'])
    t.equal(mediaType(typ), 'at+jwt')
  t.equal(mediaType('text/application/at+jwt'), 'text/application/at+jwt')
})
