import t from 'tap'
import { checkPolicy, createSessionPolicy, parsePolicy } from '../../../src/services/kyb/session-policy.js'

const flow = '7b1d8a1e-6c1b-4d53-9d3a-0c5a3f2e9a10'
const otherFlow = '0f9f6f0e-1111-4222-8333-444455556666'
const notPermitted = { code: 'field-not-permitted' }
const token = { tokenString: 'x', expiration: '2026-11-23T13:00:00Z' }

t.test('without a document', async (t) => {
  const policy = createSessionPolicy()
  t.strictSame(policy.sessionFor('acme', {}), { lifetime: 3600 })
  t.strictSame(policy.sessionFor('acme', { locale: 'lt' }), { lifetime: 3600, locale: 'lt' })
  t.throws(() => policy.sessionFor('acme', { lifetime: 60, flow }), {
    code: 'field-not-permitted',
    options: {
      errors: [
        { pointer: '/lifetime', code: 'not-permitted' },
        { pointer: '/flow', code: 'not-permitted' },
      ],
    },
  })
})

t.test('a part that is left out takes its default', async (t) => {
  t.strictSame(createSessionPolicy({ session: { flow } }).sessionFor('acme', { locale: 'lt' }), {
    flow,
    locale: 'lt',
  })
  t.throws(() => createSessionPolicy({ callerMaySet: {} }).sessionFor('acme', { locale: 'lt' }), notPermitted)
  t.strictSame(createSessionPolicy({ callerMaySet: {} }).sessionFor('acme', {}), { lifetime: 3600 })
})

t.test('a company overrides property by property', async (t) => {
  const policy = createSessionPolicy({
    session: { lifetime: 600, tags: ['portal'] },
    callerMaySet: { locale: true, theme: true },
    companies: {
      acme: { session: { tags: ['vip'] }, callerMaySet: { locale: false, tags: true } },
      globex: {},
    },
  })
  t.strictSame(policy.sessionFor('acme', {}), { lifetime: 600, tags: ['vip'] })
  t.strictSame(policy.sessionFor('acme', { tags: [], theme: null }), { lifetime: 600, tags: [], theme: null })
  t.throws(() => policy.sessionFor('acme', { locale: 'lt' }), notPermitted)
  t.throws(() => policy.sessionFor('globex', { tags: [] }), notPermitted)
  for (const company of ['globex', 'initech', 'constructor', '__proto__']) {
    t.strictSame(
      policy.sessionFor(company, { locale: 'lt' }),
      { lifetime: 600, tags: ['portal'], locale: 'lt' },
      company,
    )
  }
})

t.test('lists and maximums', async (t) => {
  const policy = createSessionPolicy({
    callerMaySet: { flow: [flow, null], tags: ['a', 'b'], lifetime: { maximum: 7200 }, locale: ['en'] },
  })
  for (const request of [
    { flow },
    { flow: null },
    { tags: [] },
    { tags: ['b', 'a'] },
    { lifetime: 7200 },
    { locale: 'en' },
  ]) {
    t.match(policy.sessionFor('acme', request), request, JSON.stringify(request))
  }
  for (const request of [
    { flow: otherFlow },
    { tags: ['a', 'c'] },
    { lifetime: 7201 },
    { locale: 'lt' },
    { locale: null },
  ]) {
    const [property] = Object.keys(request)
    t.throws(() => policy.sessionFor('acme', request), {
      code: 'field-not-permitted',
      options: { errors: [{ pointer: `/${property}`, code: 'value-not-permitted' }] },
    })
  }
})

t.test('further lists', async (t) => {
  const policy = createSessionPolicy({
    callerMaySet: { lifetime: [60, 3600], scanRefs: ['s-1'], questionnaireRequired: [true], theme: [] },
  })
  for (const request of [{ lifetime: 60 }, { scanRefs: ['s-1'] }, { questionnaireRequired: true }]) {
    t.match(policy.sessionFor('acme', request), request, JSON.stringify(request))
  }
  for (const request of [
    { lifetime: 61 },
    { scanRefs: ['s-2'] },
    { scanRefs: null },
    { questionnaireRequired: false },
    { theme: null },
  ]) {
    t.throws(
      () => policy.sessionFor('acme', request),
      { code: 'field-not-permitted' },
      JSON.stringify(request),
    )
  }
})

t.test('every field that is not permitted is named, and whether another value could be', async (t) => {
  const policy = createSessionPolicy({
    callerMaySet: { locale: true, tags: ['a'], lifetime: { maximum: 60 }, theme: false },
  })
  t.throws(() => policy.sessionFor('acme', { locale: 'lt', tags: ['b'], lifetime: 61, theme: flow, flow }), {
    code: 'field-not-permitted',
    options: {
      errors: [
        { pointer: '/tags', code: 'value-not-permitted' },
        { pointer: '/lifetime', code: 'value-not-permitted' },
        { pointer: '/theme', code: 'not-permitted' },
        { pointer: '/flow', code: 'not-permitted' },
      ],
    },
  })
})

t.test('a flow and a questionnaire exclude each other, although each may be set', async (t) => {
  const policy = createSessionPolicy({ callerMaySet: { flow: true, questionnaire: true } })
  t.match(policy.sessionFor('acme', { flow, questionnaire: null }), { flow })
  t.match(policy.sessionFor('acme', { flow: null, questionnaire: 'q' }), { questionnaire: 'q' })
  t.throws(() => policy.sessionFor('acme', { flow, questionnaire: 'q' }), {
    code: 'validation-failed',
    options: { errors: [{ pointer: '/questionnaire', code: 'excluded-by-flow' }] },
  })
})

t.test('the permissions of a company are the common ones with its own', async (t) => {
  const policy = createSessionPolicy({
    callerMaySet: { locale: true, theme: true },
    companies: { acme: { callerMaySet: { theme: [flow] } } },
  })
  t.strictSame(policy.permissionsOf('acme'), { locale: true, theme: [flow] })
  t.strictSame(policy.permissionsOf('globex'), { locale: true, theme: true })
})

t.test('the rules of a company with any name are for that company alone', async (t) => {
  const policy = createSessionPolicy({ companies: { undefined: { session: { lifetime: 60 } } } })
  t.strictSame(policy.sessionFor('undefined', {}), { lifetime: 60 })
  t.strictSame(policy.sessionFor('acme', {}), { lifetime: 3600 })
})

t.test("a caller's value takes the place of the policy's", async (t) => {
  const policy = createSessionPolicy({
    session: { lifetime: 600, locale: 'en', tags: ['portal'], flow },
    callerMaySet: { lifetime: { maximum: 600 }, locale: true, tags: true, flow: true },
  })
  t.strictSame(policy.sessionFor('acme', { lifetime: 60, locale: null, tags: ['b'], flow: null }), {
    lifetime: 60,
    tags: ['b'],
    flow: null,
  })
  t.strictSame(policy.sessionFor('acme', {}), { lifetime: 600, locale: 'en', tags: ['portal'], flow })
})

t.test('a caller does not see values that it could not have set', async (t) => {
  const response = {
    ...token,
    locale: 'lt',
    flow,
    theme: null,
    tags: ['portal', 'high-risk'],
    scanRefs: ['s-1'],
  }
  t.strictSame(createSessionPolicy({ callerMaySet: {} }).readableBy('acme', response), {})
  t.strictSame(
    createSessionPolicy({
      callerMaySet: { locale: ['en'], flow: [flow], theme: true, tags: ['portal'], scanRefs: false },
    }).readableBy('acme', response),
    { flow, theme: null, tags: ['portal'] },
  )
  t.strictSame(
    createSessionPolicy({ callerMaySet: { locale: true, tags: true } }).readableBy('acme', token),
    {},
  )
  const nulls = { ...token, locale: null, flow: null, theme: null, tags: null, scanRefs: null }
  t.strictSame(
    createSessionPolicy({
      callerMaySet: { locale: true, flow: [null], theme: [flow], tags: true, scanRefs: ['s-1'] },
    }).readableBy('acme', nulls),
    { locale: null, flow: null, tags: null },
  )
  const ofCompany = createSessionPolicy({
    companies: { acme: { callerMaySet: { locale: false, tags: [] } } },
  })
  t.strictSame(ofCompany.readableBy('acme', response), { tags: [] })
  t.strictSame(ofCompany.readableBy('globex', response), { locale: 'lt' })
})

t.test('documents that are refused, every fault by its pointer and none by its value', async (t) => {
  const rows: [unknown, RegExp][] = [
    [[], /^is not valid: \/ /],
    [{ sessions: {} }, /\/sessions /],
    [{ session: { lifetime: 59 } }, /\/session\/lifetime /],
    [{ session: { clientId: 'canary' } }, /\/session\/clientId /],
    [{ callerMaySet: { locale: 'canary' } }, /\/callerMaySet\/locale /],
    [{ callerMaySet: { lifetime: { maximum: 1 } } }, /\/callerMaySet\/lifetime /],
    [{ callerMaySet: { lifetime: {} } }, /\/callerMaySet\/lifetime /],
    [{ callerMaySet: { lifetime: { maximum: 60, minimum: 60 } } }, /\/callerMaySet\/lifetime /],
    [{ callerMaySet: { other: true } }, /\/callerMaySet\/other /],
    [{ companies: { acme: { other: true } } }, /\/companies\/acme\/other /],
    [{ session: { lifetime: 2_592_001 } }, /\/session\/lifetime /],
    [{ session: { locale: 'canary' } }, /\/session\/locale /],
    [{ callerMaySet: { other: true, lifetime: [59] } }, /\/callerMaySet\/lifetime /],
    [{ callerMaySet: { tags: ['a,canary'] } }, /\/callerMaySet\/tags /],
    [{ companies: { 'a\u0000b': {} } }, /\/companies\/a.b /],
    [{ companies: { ['a'.repeat(201)]: {} } }, /\/companies\/a{201} /],
    [{ companies: { '': {} } }, /\/companies\/ /],
    [JSON.parse('{"companies":{"__proto__":{"session":{"lifetime":1}}}}'), /\/companies\/__proto__\/session/],
    [{ companies: { acme: { session: { flow: 'canary' } } } }, /\/companies\/acme\/session\/flow /],
    [
      { session: { tags: ['a,canary'] }, extra: 1 },
      /\/extra .*; .*\/session\/tags\/0 |\/session\/tags\/0 .*; .*\/extra /,
    ],
    [
      { session: { flow, questionnaire: 'q' } },
      /\/session has a flow and a questionnaire, but iDenfy ignores a questionnaire next to a flow$/,
    ],
    [
      { session: { questionnaire: 'q' }, companies: { acme: { session: { flow } } } },
      /\/companies\/acme\/session has a flow/,
    ],
    [
      { session: { flow }, companies: { acme: { session: { questionnaire: 'canary' } } } },
      /^is not valid: \/companies\/acme\/session has a flow/,
    ],
    [
      { session: { questionnaire: 'canary' }, callerMaySet: { flow: true } },
      /^is not valid: \/callerMaySet\/flow lets the caller set a flow, and session has a questionnaire/,
    ],
    [
      { session: { flow }, callerMaySet: { questionnaire: ['canary', null] } },
      /^is not valid: \/callerMaySet\/questionnaire lets the caller set a questionnaire, and session has a flow/,
    ],
    [
      { session: { questionnaire: 'q' }, companies: { acme: { callerMaySet: { flow: [flow] } } } },
      /^is not valid: \/companies\/acme\/callerMaySet\/flow /,
    ],
  ]
  for (const [document, message] of rows) {
    const error = t.throws(() => checkPolicy(document), { message }, JSON.stringify(document))
    t.notMatch((error as Error).message, 'canary')
  }
  t.doesNotThrow(() => checkPolicy({ session: { tags: ['\u{1F600}'] } }))
  t.doesNotThrow(() =>
    checkPolicy({
      session: { questionnaire: 'q' },
      companies: { acme: { session: { flow, questionnaire: null } } },
    }),
  )
  for (const callerMaySet of [
    { questionnaire: false },
    { questionnaire: [null] },
    { questionnaire: [] },
    {},
  ]) {
    t.doesNotThrow(() => checkPolicy({ session: { flow }, callerMaySet }), JSON.stringify(callerMaySet))
  }
})

t.test('a document with every kind of permission is accepted', async (t) => {
  const acceptable = [
    { lifetime: true, locale: true },
    { lifetime: [60, 3600], locale: ['lt', null] },
    { lifetime: { maximum: 7200 }, locale: false, tags: ['a'], questionnaireRequired: [true] },
  ]
  for (const callerMaySet of acceptable) {
    t.doesNotThrow(() => checkPolicy({ callerMaySet, companies: { acme: { callerMaySet } } }))
  }
})

t.test('a text is read as JSON and checked', async (t) => {
  t.strictSame(parsePolicy('{ "session": { "lifetime": 60 } }'), { session: { lifetime: 60 } })
  t.throws(() => parsePolicy('{ "session": {}, }'), {
    message: 'is not JSON, which has no comments and no trailing commas',
  })
  t.throws(() => parsePolicy('{ "sessions": {} }'), { message: /^is not valid: \/sessions / })
})

t.test('of many faults twenty are listed, and the others counted', async (t) => {
  const messageFor = (faults: number): string => {
    try {
      const companies = Array.from({ length: faults }, (_, index) => [
        `company-${index}`,
        { session: { flow, questionnaire: 'q' } },
      ])
      checkPolicy({ companies: Object.fromEntries(companies) })
    } catch (error) {
      return (error as Error).message
    }
    return ''
  }
  const listed = (message: string) => message.match(/\/companies\/company-\d+\/session /g)?.length
  t.equal(listed(messageFor(20)), 20)
  t.match(messageFor(20), /next to a flow$/)
  t.equal(listed(messageFor(23)), 20)
  t.match(messageFor(23), /; and 3 more$/)
})

t.test('a long pointer is cut', async (t) => {
  const faultAt = (name: string) => () => checkPolicy({ [name]: 1 })
  t.throws(faultAt('x'.repeat(299)), { message: /^is not valid: \/x{299} / })
  t.throws(faultAt('x'.repeat(300)), { message: /^is not valid: \/x{299}… / })
})

t.test('a company id in a pointer is escaped', async (t) => {
  const pointer = /\/companies\/a~0b~1c\/session/
  t.throws(() => checkPolicy({ companies: { 'a~b/c': { session: { lifetime: 1 } } } }), { message: pointer })
  t.throws(() => checkPolicy({ companies: { 'a~b/c': { session: { flow, questionnaire: 'q' } } } }), {
    message: pointer,
  })
})
