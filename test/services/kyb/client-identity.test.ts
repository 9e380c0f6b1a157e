import t from 'tap'
import {
  checkNamesCompany,
  checkTemplate,
  createClientIdentity,
} from '../../../src/services/kyb/client-identity.js'

const caller = { companyId: 'acme', userId: 'u-1' }
const requestId = '9b94f962-e2ad-4f5f-8d85-724a1e0717bf'
const key = 'k'.repeat(32)
// The first 16 bytes of: printf company:acme | openssl dgst -sha256 -hmac kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk -binary
const acmeHash = 'FnegSb7ykkiSUnp90p2cBg'
const userHash = '7_dRxlm5earBG7TCCI9KcA'

const identify = (clientId: string, externalRef = '{userId}', identityKey = key) =>
  createClientIdentity({ clientId, externalRef }, identityKey)(caller, requestId)

t.test('templates', async (t) => {
  t.strictSame(identify('{companyId}'), { clientId: 'acme', externalRef: 'u-1' })
  t.equal(identify('prod:{companyId}').clientId, 'prod:acme')
  t.equal(identify('{companyId}/{userId}:x').clientId, 'acme/u-1:x')
  t.equal(identify('{companyId} - {userId}').clientId, 'acme - u-1')
  t.equal(identify('a-{companyId}-b').clientId, 'a-acme-b')
  t.equal(identify('{companyId}', '{requestId}').externalRef, requestId)
  t.equal(
    identify('{companyId}:{userId}:{companyHash}:{userHash}:{requestId}').clientId,
    `acme:u-1:${acmeHash}:${userHash}:${requestId}`,
  )
})

t.test('hashes are keyed, and apart for users and companies', async (t) => {
  const same = { companyId: 'x', userId: 'x' }
  const templates = { clientId: '{companyHash}', externalRef: '{userHash}' }
  const { clientId, externalRef } = createClientIdentity(templates, key)(same, requestId)
  t.match(clientId, /^[A-Za-z0-9_-]{22}$/)
  t.match(externalRef, /^[A-Za-z0-9_-]{22}$/)
  t.not(clientId, externalRef)
  t.equal(createClientIdentity(templates, key)(same, 'other').clientId, clientId, 'the same at every time')
  t.not(createClientIdentity(templates, 'l'.repeat(32))(same, requestId).clientId, clientId)
})

const awkward = ['a:b', 'a/b', 'a b', 'a{b', 'é', 'e\u0301', ' a', '\u202ea', '１', 'oidc:abc', 'GB:12345678']

t.test('a hashed id may be any text', async (t) => {
  const mapper = createClientIdentity({ clientId: '{companyHash}', externalRef: '{userHash}' }, key)
  const identities = awkward.map((id) => mapper({ companyId: id, userId: id }, requestId))
  for (const { clientId, externalRef } of identities) t.match(clientId + externalRef, /^[A-Za-z0-9_-]{44}$/)
  t.equal(new Set(identities.map(({ clientId }) => clientId)).size, awkward.length)
})

t.test('an id used as it is has only allowed characters, an unused id may have any', async (t) => {
  const byUser = createClientIdentity({ clientId: '{companyHash}', externalRef: '{userId}' }, key)
  const byCompany = createClientIdentity({ clientId: '{companyId}', externalRef: '{requestId}' })
  const refusal = (reason: string) => ({ code: 'identity-not-mappable', options: { diagnosis: { reason } } })
  for (const id of awkward) {
    t.throws(() => byUser({ companyId: 'acme', userId: id }, requestId), refusal('user-id'))
    t.throws(() => byCompany({ companyId: id, userId: 'u-1' }, requestId), refusal('company-id'))
    t.equal(byUser({ companyId: id, userId: 'u-1' }, requestId).externalRef, 'u-1')
    t.equal(byCompany({ companyId: 'acme', userId: id }, requestId).clientId, 'acme')
  }
})

t.test('an identity that is too long is refused', async (t) => {
  const mapper = createClientIdentity({ clientId: 'c:{companyId}', externalRef: 'r:{userId}' })
  t.equal(mapper({ companyId: 'a'.repeat(98), userId: 'u'.repeat(38) }, requestId).clientId.length, 100)
  const code = 'identity-not-mappable'
  t.throws(() => mapper({ companyId: 'a'.repeat(99), userId: 'u' }, requestId), {
    code,
    options: { diagnosis: { reason: 'clientId-too-long' } },
  })
  t.throws(() => mapper({ companyId: 'a', userId: 'u'.repeat(39) }, requestId), {
    code,
    options: { diagnosis: { reason: 'externalRef-too-long' } },
  })
  t.throws(() => identify('x'.repeat(101), '{companyId}'), { code }, 'literal text counts too')
  t.equal(identify(`${'x'.repeat(78)}{companyHash}`).clientId.length, 100)
  t.throws(() => identify(`${'x'.repeat(79)}{companyHash}`), { code })
})

t.test('templates that cannot be used', async (t) => {
  const rows: [string, RegExp][] = [
    ['', /printable ASCII/],
    ['é{companyId}', /printable ASCII/],
    ['a\n{companyId}', /printable ASCII/],
    ['{company}', /unknown placeholder/],
    ['{companyId', /unknown placeholder/],
    ['companyId}', /unknown placeholder/],
    ['{}', /unknown placeholder/],
    ['{{companyId}}', /unknown placeholder/],
    ['{constructor}', /unknown placeholder/],
    ['{companyid}', /unknown placeholder/],
    ['{ companyId }', /unknown placeholder/],
    ['{companyId}}:{userId}', /unknown placeholder/],
    ['{companyId}{userId}', /separator/],
    ['{companyId}{companyId}', /separator/],
    ['{companyHash}{userHash}', /separator/],
    ...[...'aZ09._~@|+=-'].map((sign): [string, RegExp] => [`{companyId}${sign}{userId}`, /separator/]),
    ['x:{companyId}|{userId}', /separator/],
    ['{companyId}:{userId}{requestId}', /separator/],
  ]
  for (const [template, message] of rows) t.throws(() => checkTemplate(template, true), { message }, template)
  for (const [template, message] of rows) {
    t.throws(() => createClientIdentity({ clientId: '{companyId}', externalRef: template }), { message })
  }
  for (const sign of ':/ !"#$%&\'()*,;<>?[\\]^`') {
    t.doesNotThrow(() => checkTemplate(`{companyId}${sign}{userId}`, false), sign)
  }
  t.throws(() => checkTemplate('{company}', true), {
    message:
      'has an unknown placeholder; known are {companyId}, {userId}, {companyHash}, {userHash}, {requestId}',
  })
  t.throws(() => checkTemplate('{userHash}', false), { message: /KYB_IDENTITY_KEY/ })
  t.throws(() => checkTemplate('{companyId}:{companyHash}', false), { message: /KYB_IDENTITY_KEY/ })
  t.doesNotThrow(() => checkTemplate('{userHash}:{companyHash}', true))
})

t.test('the company has to be in one of them', async (t) => {
  t.doesNotThrow(() => checkNamesCompany({ clientId: '{companyHash}', externalRef: 'x' }))
  t.doesNotThrow(() => checkNamesCompany({ clientId: '{userId}', externalRef: '{companyId}' }))
  t.throws(() => checkNamesCompany({ clientId: '{userId}', externalRef: '{requestId}' }), {
    message: /must name the company/,
  })
})
