import type { JWTPayload } from 'jose'
import t from 'tap'
import { createCallerResolver } from '../../../src/services/auth/caller.js'

const defaults = { userClaim: 'sub', companyClaim: 'company_id' }
const claims = { sub: 'u-1', company_id: 'acme' }

t.test('the company of the token', async (t) => {
  const resolve = createCallerResolver(defaults)
  const rows: [string, unknown, string | undefined, string][] = [
    ['the only one', 'acme', undefined, 'acme'],
    ['the only one, named too', 'acme', 'acme', 'acme'],
    ['a list of one', ['acme'], undefined, 'acme'],
    ['the same twice', ['acme', 'acme'], undefined, 'acme'],
    ['one of several', ['acme', 'globex'], 'globex', 'globex'],
    ['a number', 5, undefined, '5'],
    ['a number, named too', -5, '-5', '-5'],
    ['a number out of several', [5, '6', 7], '7', '7'],
    ['the same as a number and as text', [5, '5'], undefined, '5'],
    ['percent-encoded', ['acme', 'GB:1/2 ž'], 'GB%3A1%2F2%20%C5%BE', 'GB:1/2 ž'],
    ['as UTF-8, as Node reads it', ['acme', 'Łódź'], Buffer.from('Łódź').toString('latin1'), 'Łódź'],
    ['as Latin-1', ['acme', 'é'], 'é', 'é'],
    ['that is neither UTF-8 nor encoded', ['acme', 'é%'], 'é%', 'é%'],
    ['with a percent sign of its own', ['acme', '100%'], '100%', '100%'],
    ['that looks encoded', ['acme', 'a%2Fb'], 'a%252Fb', 'a%2Fb'],
  ]
  for (const [name, company_id, requested, companyId] of rows) {
    t.strictSame(resolve({ ...claims, company_id }, requested), { userId: 'u-1', companyId }, name)
  }
})

t.test('no company that the token does not name', async (t) => {
  const resolve = createCallerResolver(defaults)
  const rows: [string, unknown, string | undefined, string][] = [
    ['absent', undefined, undefined, 'no-company'],
    ['null', null, undefined, 'no-company'],
    ['empty', '', undefined, 'no-company'],
    ['blank', ' \t', undefined, 'no-company'],
    ['a number that is no id', 5.5, undefined, 'no-company'],
    ['a number that is not exact', 2 ** 53, undefined, 'no-company'],
    ['an object', { id: 'acme' }, undefined, 'no-company'],
    ['an empty list', [], undefined, 'no-company'],
    ['a nested list', [['acme']], undefined, 'no-company'],
    ['a list with a bad member', ['acme', null], 'acme', 'no-company'],
    ['absent, though asked for', undefined, 'acme', 'no-company'],
    ['a blank in a list', ['acme', ' '], 'acme', 'no-company'],
    ['a list in a list', ['acme', ['globex']], 'globex', 'no-company'],
    ['true', true, undefined, 'no-company'],
    ['none by name', 'acme', '', 'company-not-listed'],
    ['another one', 'acme', 'globex', 'company-not-listed'],
    ['another one of several', ['acme', 'globex'], 'initech', 'company-not-listed'],
    ['in another case', 'acme', 'ACME', 'company-not-listed'],
    ['two by one spelling', ['a/b', 'a%2Fb'], 'a%2Fb', 'company-not-listed'],
    ['another number', 5, '5.0', 'company-not-listed'],
    ['bytes that are not UTF-8', ['acme', '\ufffd'], '\u00e9', 'company-not-listed'],
    ['a byte order mark before it', 'acme', '\u00ef\u00bb\u00bfacme', 'company-not-listed'],
  ]
  for (const [name, company_id, requested, reason] of rows) {
    const expected = { code: 'company-not-allowed', options: { diagnosis: { reason } } }
    t.throws(() => resolve({ ...claims, company_id }, requested), expected, name)
  }
})

t.test('a refusal names the claim that was read, or the scopes', async (t) => {
  const resolve = createCallerResolver({ userClaim: 'uid', companyClaim: '/tenant/id', requiredScope: 'kyb' })
  const diagnosisOf = (claims: JWTPayload) => {
    try {
      resolve(claims)
    } catch (error) {
      return (error as { options?: { diagnosis?: unknown } }).options?.diagnosis
    }
    return undefined
  }
  t.strictSame(diagnosisOf({ scope: 'kyb' }), { reason: 'user-claim', claim: 'uid' })
  t.strictSame(diagnosisOf({ scope: 'kyb', uid: 'u-1' }), { reason: 'no-company', claim: '/tenant/id' })
  t.strictSame(diagnosisOf({ scope: 'a b' }), { expected: 'kyb', received: 'a, b' })
  t.strictSame(diagnosisOf({}), { expected: 'kyb', received: '' })
})

t.test('a caller of several companies who picks none gets the list', async (t) => {
  const resolve = createCallerResolver(defaults)
  t.throws(() => resolve({ ...claims, company_id: ['acme', 7, 'acme'] }), {
    code: 'company-required',
    options: { companyIds: ['acme', '7'] },
  })
})

t.test('ids are texts, never cut or normalised', async (t) => {
  const resolve = createCallerResolver(defaults)
  const good = [
    'aZ09._~@|+=-',
    'oidc:abc',
    'us-east-1:5c3f',
    'GB:12345678',
    'user name',
    'Łódź',
    'e\u0301',
    '１',
    ' a',
    '😀',
  ]
  for (const id of [...good, 'a'.repeat(200)]) {
    t.strictSame(resolve({ sub: id, company_id: id }), { userId: id, companyId: id })
  }
  const bad = ['a\u0000', 'a\n', '\u007fa', 'a\u009f', '\ud800', 'a\udc00', 'a'.repeat(201)]
  for (const id of bad) {
    const code = 'identity-not-mappable'
    t.throws(() => resolve({ ...claims, sub: id }), { code, options: { diagnosis: { reason: 'user-id' } } })
    t.throws(() => resolve({ ...claims, company_id: id }), {
      code,
      options: { diagnosis: { reason: 'company-id' } },
    })
  }
})

t.test('a token without a user is at fault', async (t) => {
  const resolve = createCallerResolver(defaults)
  for (const sub of [undefined, '', ' ', 5.5, 2 ** 53, null, ['u-1']]) {
    t.throws(() => resolve({ ...claims, sub } as JWTPayload), { code: 'invalid-token' }, String(sub))
  }
})

t.test('a token of a service has no user, whatever its subject', async (t) => {
  const resolve = createCallerResolver(defaults)
  for (const mark of [
    { client_id: 'u-1' },
    { azp: 'u-1' },
    { gty: 'client-credentials' },
    { idtyp: 'app' },
  ]) {
    t.throws(
      () => resolve({ ...claims, ...mark }),
      { code: 'identity-not-mappable', options: { diagnosis: { reason: 'no-user' } } },
      JSON.stringify(mark),
    )
  }
  t.equal(resolve({ ...claims, client_id: 'app', azp: 'app', gty: 'password', idtyp: 'user' }).userId, 'u-1')
  t.throws(
    () => resolve({ company_id: 'acme' }),
    { code: 'invalid-token' },
    'a token without a user is not of a service',
  )
})

t.test('the user by another claim', async (t) => {
  const read = (userClaim: string, more: object) =>
    createCallerResolver({ ...defaults, userClaim })({ ...claims, ...more }).userId

  t.equal(read('uid', { uid: 'x' }), 'x')
  t.equal(read('uid', { uid: 4711 }), '4711')
  t.equal(read('https://acme.example/user', { 'https://acme.example/user': 'x' }), 'x')
  t.equal(read('/profile/a~1b~0c', { profile: { 'a/b~c': 'x' } }), 'x')
  for (const name of ['uid', 'constructor', '__proto__', '/constructor/name', '/profile/id']) {
    const expected = { code: 'invalid-token', options: { diagnosis: { reason: 'user-claim' } } }
    t.throws(() => read(name, {}), expected, name)
    t.throws(() => read(name, { profile: null }), expected, name)
  }
})

t.test('claims by name or by pointer', async (t) => {
  const read = (companyClaim: string, more: object) =>
    createCallerResolver({ ...defaults, companyClaim })({ ...claims, ...more }).companyId

  t.equal(read('https://acme.example/company', { 'https://acme.example/company': 'x' }), 'x')
  t.equal(read('custom:tenant', { 'custom:tenant': 'x' }), 'x')
  t.equal(read('a.b', { 'a.b': 'x', a: { b: 'y' } }), 'x', 'a dot is no path')
  t.equal(read('/tenant/id', { tenant: { id: 'x' } }), 'x')
  t.equal(read('/tenants/1/id', { tenants: [{ id: 'x' }, { id: 'y' }] }), 'y')
  t.equal(read('/a~1b/c~0d/~01', { 'a/b': { 'c~d': { '~1': 'x' } } }), 'x')
  for (const name of [
    'constructor',
    'toString',
    '__proto__',
    '/constructor/name',
    '/sub/length',
    '/none/of/these',
  ]) {
    t.throws(() => read(name, {}), { code: 'company-not-allowed' }, name)
  }
})

t.test('a required scope', async (t) => {
  const resolve = createCallerResolver({ ...defaults, requiredScope: 'kyb:create' })
  const granted = [{ scope: 'kyb:create' }, { scope: 'a kyb:create b' }, { scope: ['kyb:create'] }]
  for (const scopes of [
    ...granted,
    { scp: 'a kyb:create' },
    { scp: ['a', 'kyb:create'] },
    { scope: 'a', scp: 'kyb:create' },
  ]) {
    t.equal(resolve({ ...claims, ...scopes }).companyId, 'acme', JSON.stringify(scopes))
  }
  for (const scopes of [
    {},
    { scope: '' },
    { scope: 'kyb:create:all' },
    { scope: 'xkyb:create' },
    { scope: 'kyb' },
    { scope: 'KYB:CREATE' },
    { scp: 'kyb:created' },
    { scp: ['kyb:create:all'] },
    { scp: { 'kyb:create': true } },
    { roles: ['kyb:create'] },
    { scope: ['a kyb:create'] },
    { scope: 5 },
  ]) {
    t.throws(
      () => resolve({ ...claims, ...scopes }),
      {
        code: 'insufficient-scope',
        headers: {
          'www-authenticate': 'Bearer realm="onboarding", error="insufficient_scope", scope="kyb:create"',
        },
      },
      JSON.stringify(scopes),
    )
  }
  for (const scopes of [{ scope: 5 }, { scope: 'a', scp: 'b' }]) {
    t.equal(createCallerResolver(defaults)({ ...claims, ...scopes }).companyId, 'acme', 'none is required')
  }
})
