import t from 'tap'
import { checkNamesCompany, checkTemplate, createClientIdentity } from '../../src/services/client-identity.js'

const caller = { companyId: 'acme', userId: 'u-1' }
const requestId = '9b94f962-e2ad-4f5f-8d85-724a1e0717bf'
const key = 'k'.repeat(32)

const identify = (clientId: string, externalRef = '{userId}', identityKey = key) =>
  createClientIdentity({ clientId, externalRef }, identityKey)(caller, requestId)

t.test('templates', async (t) => {
  t.strictSame(identify('{companyId}'), { clientId: 'acme', externalRef: 'u-1' })
  t.equal(identify('prod:{companyId}').clientId, 'prod:acme')
  t.equal(identify('{companyId}/{userId}:x').clientId, 'acme/u-1:x')
  t.equal(identify('{companyId} - {userId}').clientId, 'acme - u-1')
  t.equal(identify('a-{companyId}-b').clientId, 'a-acme-b')
  t.equal(identify('{companyId}', '{requestId}').externalRef, requestId)
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

t.test('what does not fit is refused', async (t) => {
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
    ['{companyId}{userId}', /separator/],
    ['{companyId}-{userId}', /separator/],
    ['x:{companyId}|{userId}', /separator/],
    ['{companyId}:{userId}{requestId}', /separator/],
  ]
  for (const [template, message] of rows) t.throws(() => checkTemplate(template, true), { message }, template)
  t.throws(() => checkTemplate('{userHash}', false), { message: /KYB_IDENTITY_KEY/ })
  t.doesNotThrow(() => checkTemplate('{userHash}:{companyHash}', true))
})

t.test('the company has to be in one of them', async (t) => {
  t.doesNotThrow(() => checkNamesCompany({ clientId: '{companyHash}', externalRef: 'x' }))
  t.doesNotThrow(() => checkNamesCompany({ clientId: '{userId}', externalRef: '{companyId}' }))
  t.throws(() => checkNamesCompany({ clientId: '{userId}', externalRef: '{requestId}' }))
})
