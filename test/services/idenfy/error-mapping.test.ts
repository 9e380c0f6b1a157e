import t from 'tap'
import { outcomeOf, type ProblemCode } from '../../../src/problems/catalog.js'
import { mapErrorResponse } from '../../../src/services/idenfy/error-mapping.js'

/** status, identifier, message → code, class, outcome */
type Row = [number, string | undefined, unknown, ProblemCode, string | undefined, string | undefined]

const rejected = (kind: string) => ['provider-rejected', kind, 'not-created'] as const
const limited = ['provider-rate-limited', undefined, 'not-created'] as const
const failed = ['provider-outcome-unknown', undefined, 'unknown'] as const

const rows: Row[] = [
  [400, 'BAD_VALUE', '', ...rejected('request')],
  [400, 'MISSING_VALUE', '', ...rejected('request')],
  [400, 'VALIDATION_ERROR', {}, ...rejected('request')],
  [400, 'JSON_ERROR', '', ...rejected('request')],
  [400, 'ENCODING_ERROR', '', ...rejected('request')],
  [404, 'NOT_FOUND', '', ...rejected('request')],
  [404, undefined, '', ...rejected('endpoint')],
  [405, undefined, '', ...rejected('endpoint')],
  [405, 'METHOD_NOT_ALLOWED', '', ...rejected('request')],
  [413, undefined, '', ...rejected('request')],
  [415, undefined, '', ...rejected('request')],
  [422, undefined, '', ...rejected('request')],
  [400, 'SOMETHING_NEW', '', ...rejected('request')],
  [400, 'UNAUTHORIZED', '', ...rejected('credentials')],
  [401, 'UNAUTHORIZED', '', ...rejected('credentials')],
  [401, 'AUTHENTICATION_FAILED', '', ...rejected('credentials')],
  [401, undefined, undefined, ...rejected('credentials')],
  [401, 'BAD_VALUE', '', ...rejected('request')],
  [402, undefined, '', ...rejected('funds')],
  [400, 'PERMISSIONS_ERROR', 'Partner reached token limit', ...rejected('funds')],
  [400, 'PERMISSIONS_ERROR', 'Not for you', ...rejected('contract')],
  [400, 'PERMISSIONS_ERROR', { detail: 1 }, ...rejected('contract')],
  [403, undefined, '', ...rejected('contract')],
  [500, 'PARTNER_CONTRACT_ERROR', '', ...rejected('contract')],
  [409, undefined, '', 'kyb-session-conflict', undefined, undefined],
  [429, undefined, '', ...limited],
  [400, 'TOO_MANY_REQUESTS', '', ...limited],
  [500, 'TOO_MANY_REQUESTS', '', ...limited],
  [500, undefined, '', ...failed],
  [502, undefined, '', ...failed],
  [504, undefined, '', ...failed],
  [500, 'BAD_VALUE', '', ...failed],
  [400, 'INTERNAL_ERROR', '', ...failed],
]

for (const [status, identifier, message, code, rejectionClass, outcome] of rows) {
  t.test(`${status} ${identifier ?? ''} ${JSON.stringify(message)}`, async (t) => {
    const problem = mapErrorResponse(status, { identifier, message })
    t.equal(problem.code, code)
    t.equal(outcomeOf(problem.code), outcome)
    t.equal(problem.options.diagnosis?.class, rejectionClass)
    t.equal(problem.options.diagnosis?.upstreamStatus, status)
  })
}

t.test('every body is mapped to a problem', async (t) => {
  for (const body of [undefined, null, 'text', 1, [], { identifier: 5 }, { identifier: 'canary' }]) {
    const problem = mapErrorResponse(400, body)
    t.equal(problem.code, 'provider-rejected')
    t.equal(problem.options.diagnosis?.identifier, undefined, 'only known identifiers are repeated')
  }
})

t.test('every identifier that iDenfy documents is repeated', async (t) => {
  for (const identifier of [
    'AUTHENTICATION_FAILED',
    'BAD_VALUE',
    'ENCODING_ERROR',
    'INTERNAL_ERROR',
    'JSON_ERROR',
    'METHOD_NOT_ALLOWED',
    'MISSING_VALUE',
    'NOT_FOUND',
    'PARTNER_CONTRACT_ERROR',
    'PERMISSIONS_ERROR',
    'TOO_MANY_REQUESTS',
    'UNAUTHORIZED',
    'VALIDATION_ERROR',
  ]) {
    t.equal(mapErrorResponse(400, { identifier }).options.diagnosis?.identifier, identifier)
  }
})

t.test('a response says whether a verification may have been opened', async (t) => {
  const phaseOf = (status: number) => mapErrorResponse(status, {}).options.diagnosis?.phase
  t.equal(phaseOf(500), 'after-sending')
  for (const status of [400, 402, 409, 429]) t.equal(phaseOf(status), 'refused', String(status))
})

t.test('a number of seconds in Retry-After is kept, within limits', async (t) => {
  for (const [retryAfter, seconds] of [
    ['0', 1],
    ['1', 1],
    ['7', 7],
    ['300', 300],
    ['301', 300],
    ['999999', 300],
  ] as const) {
    const { options } = mapErrorResponse(429, {}, retryAfter)
    t.equal(options.retryAfterSeconds, seconds, retryAfter)
    t.strictSame(options.safeToRetry, { reason: 'rate-limited', afterMs: seconds * 1000 })
  }
  for (const retryAfter of [
    '',
    '-1',
    '1.5',
    ' 7',
    '7s',
    'x7',
    '1000000',
    'Mon, 23 Nov 2026 12:10:00 GMT',
    undefined,
  ]) {
    const { options } = mapErrorResponse(429, {}, retryAfter)
    t.strictSame(Object.keys(options), ['diagnosis'], String(retryAfter))
  }
  for (const status of [400, 402, 500, 503]) {
    t.strictSame(Object.keys(mapErrorResponse(status, {}, '7').options), ['diagnosis'], String(status))
  }
})
