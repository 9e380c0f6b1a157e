import { Redis } from 'ioredis'
import t from 'tap'
import { createIdenfyClient } from '../../../src/services/idenfy/client.js'
import { classifyFailure, createResilientClient } from '../../../src/services/idenfy/resilient-client.js'
import { createClientIdentity } from '../../../src/services/kyb/client-identity.js'
import { createSessionPolicy, type SessionPolicyDocument } from '../../../src/services/kyb/session-policy.js'
import {
  createTokenIssuer,
  type IssueRequest,
  type Result,
  type TokenIssuerOptions,
} from '../../../src/services/kyb/token-issuer.js'
import { createBulkhead } from '../../../src/services/resilience/bulkhead.js'
import { createCircuitBreaker } from '../../../src/services/resilience/circuit-breaker.js'
import { createRetryBudget } from '../../../src/services/resilience/retry-budget.js'
import { createStateCipher } from '../../../src/services/single-flight/encryption.js'
import { createMemorySingleFlight } from '../../../src/services/single-flight/memory.js'
import { createRedisSingleFlight } from '../../../src/services/single-flight/redis.js'
import { createRedisConnection } from '../../../src/services/single-flight/redis-connection.js'
import type { SingleFlight } from '../../../src/services/single-flight/single-flight.js'
import { type DispatchedRequest, ScriptedDispatcher } from '../../scripted-dispatcher.js'
import { createVirtualClock } from '../../virtual-clock.js'

const second = 1_000
const minute = 60 * second
const hour = 60 * minute
const unknown = { code: 'provider-outcome-unknown' }
const shared = { ...unknown, options: { diagnosis: { reason: 'shared-result' } } }

interface SetUpOptions
  extends Partial<Pick<TokenIssuerOptions, 'uiUrl' | 'replayMs' | 'sharedStateRequiredFor'>> {
  readonly policy?: SessionPolicyDocument
  readonly tokenLifeMs?: number
  /** The members of a token beside those that it needs. */
  readonly members?: object
  readonly onDrift?: () => void
  readonly hasRedis?: boolean
  readonly replicaWide?: SingleFlight<Result>
}

/** An issuer with all services behind it. Only undici is replaced: it mints a new token for each request. */
function setUp(options: SetUpOptions = {}) {
  const virtual = createVirtualClock()
  const { clock } = virtual
  const { tokenLifeMs = hour, members, policy, hasRedis, replicaWide, onDrift = () => {}, ...more } = options
  const mint = (request: DispatchedRequest, status = 201) => {
    const expiration = new Date(clock.now() + tokenLifeMs).toISOString()
    const tokenString = `T0ken+${dispatcher.requests.length}`
    request.respond(status, { tokenString, expiration, ...members })
  }
  const dispatcher = new ScriptedDispatcher((request) => mint(request))
  const client = createIdenfyClient({
    dispatcher,
    origin: 'https://idenfy.example',
    authorization: { value: () => 'Basic eDp5', checkNow: async () => {} },
    userAgent: 'test/1',
    clock,
    onIdleLimit: () => {},
    onDrift,
  })
  const idenfy = createResilientClient({
    client,
    breaker: createCircuitBreaker({ classify: classifyFailure, clock }),
    bulkhead: createBulkhead({ maxInFlight: 10, clock }),
    budget: createRetryBudget(),
    timeoutMs: 8 * second,
    clock,
    onAttempt: () => {},
    onRetry: () => {},
  })
  // It is never connected: as if Redis were down from the start.
  const redis = createRedisConnection({
    redis: new Redis({ lazyConnect: true, enableOfflineQueue: false }),
    credentials: [],
    database: 0,
    commandTimeoutMs: second,
    onChange: () => {},
    onFailure: () => {},
    clock,
  })
  const cipher = createStateCipher([Buffer.alloc(32, 'k').toString('base64')])
  const singleFlight = createMemorySingleFlight<Result>({
    maxStored: 100,
    clock,
    replicaWide: hasRedis ? createRedisSingleFlight({ redis, cipher: () => cipher, clock }) : replicaWide,
  })
  const origins: string[] = []
  const audit: unknown[] = []
  const issuerOf = (scope: string) =>
    createTokenIssuer({
      policy: () => createSessionPolicy(policy),
      identify: createClientIdentity({ clientId: '{companyId}', externalRef: '{userId}' }),
      idenfy,
      singleFlight,
      scope: ['https://idenfy.example', scope],
      replayMs: 30 * second,
      sharedStateRequiredFor: 'none',
      timeoutMs: 8 * second,
      uiUrl: 'https://ui.example/welcome',
      clock,
      onIssued: (origin) => origins.push(origin),
      ...more,
    })
  const issuers = { one: issuerOf('one'), other: issuerOf('other') }
  const issue = (request: Partial<IssueRequest> = {}, by: keyof typeof issuers = 'one') =>
    issuers[by].issue({
      caller: { companyId: 'acme', userId: 'u-1' },
      requestedSession: {},
      requestId: 'r-1',
      log: { info: (...line: unknown[]) => audit.push(line), warn: () => {} } as never,
      waitedMs: 0,
      isAbandoned: () => false,
      admit: async () => {},
      ...request,
    })
  return {
    ...virtual,
    dispatcher,
    mint,
    issue,
    origins,
    audit,
    /** The number of the token, in the order of minting, and where it came from. */
    issued: async (request?: Partial<IssueRequest>, by?: keyof typeof issuers) => {
      const { token, origin } = await issue(request, by)
      return `${origin} ${token.tokenString.slice('T0ken+'.length)}`
    },
  }
}

t.test('a token comes with what a front-end needs, and with nothing else', async (t) => {
  const { issue, dispatcher, audit, origins } = setUp({
    members: { companyId: 'c-1', locale: 'lt', theme: null },
  })
  const result = await issue({ requestedSession: { locale: 'lt' } })
  t.strictSame(result, {
    origin: 'minted',
    token: {
      tokenType: 'FORM',
      tokenString: 'T0ken+1',
      expiration: '2026-11-23T13:00:00.000Z',
      expiresIn: 3600,
      isValid: true,
      companyId: 'c-1',
      clientId: 'acme',
      externalRef: 'u-1',
      redirectUrl: 'https://ui.example/welcome?authToken=T0ken%2B1',
      locale: 'lt',
    },
  })
  t.strictSame(
    dispatcher.requests.map(({ body }) => body),
    [{ tokenType: 'FORM', clientId: 'acme', externalRef: 'u-1', lifetime: 3600, locale: 'lt' }],
  )
  t.strictSame(audit, [
    [
      {
        event: 'kyb-token-issued',
        origin: 'minted',
        company: 'acme',
        user: 'u-1',
        clientId: 'acme',
        externalRef: 'u-1',
        idenfyCompanyId: 'c-1',
        expiration: '2026-11-23T13:00:00.000Z',
        // printf T0ken+1 | openssl dgst -sha256 -r | head -c 16
        tokenFingerprint: '72d72eeba72911c5',
      },
      'audit',
    ],
  ])
  t.strictSame(origins, ['minted'])
})

t.test('a token without a company has null in its place', async (t) => {
  const { issue } = setUp()
  t.equal((await issue()).token.companyId, null)
})

t.test('the token is the only one in the URL of the form, whatever its other parameters are', async (t) => {
  const { issue } = setUp({ uiUrl: 'https://ui.example/welcome?authToken=old&lang=en' })
  t.equal((await issue()).token.redirectUrl, 'https://ui.example/welcome?lang=en&authToken=T0ken%2B1')
})

t.test('identical requests get the same token until the time for replays ends', async (t) => {
  const { issued, issue, origins, pass } = setUp()
  t.equal(await issued(), 'minted 1')
  await pass(30 * second - 1)
  t.equal(await issued(), 'replayed 1')
  t.equal((await issue()).token.expiresIn, 3570, 'rounded down')
  await pass(1)
  t.equal(await issued(), 'minted 2')
  t.strictSame(origins, ['minted', 'replayed', 'replayed', 'minted'])
})

t.test('a wall clock that jumps forward ends replays too', async (t) => {
  const { issued, setWallClock, clock } = setUp()
  await issued()
  setWallClock(clock.now() + 30 * second)
  t.equal(await issued(), 'minted 2')
})

t.test('a wall clock that jumps back lets no token live longer', async (t) => {
  const { issue, issued, setWallClock, clock, pass } = setUp({ tokenLifeMs: 24 * hour })
  await issue()
  setWallClock(clock.now() - hour)
  t.equal((await issue()).token.expiresIn, 24 * 3600)
  t.equal(await issued({ idempotencyKey: 'k' }), 'replayed 1')
  await pass(hour + 1)
  t.equal(await issued({ idempotencyKey: 'k' }), 'minted 2', 'an hour later, as without the jump')
})

t.test('a token is not replayed in its last half minute', async (t) => {
  const { issued, pass } = setUp({ tokenLifeMs: 40 * second })
  t.equal(await issued(), 'minted 1')
  await pass(10 * second - 1)
  t.equal(await issued(), 'replayed 1')
  await pass(1)
  t.equal(await issued(), 'minted 2')
})

t.test('replays can be switched off', async (t) => {
  const { issued } = setUp({ replayMs: 0 })
  t.equal(await issued(), 'minted 1')
  t.equal(await issued(), 'minted 2')
})

t.test('the order of members makes no other request', async (t) => {
  const { issued } = setUp({ policy: { callerMaySet: { locale: true, tags: true, theme: true } } })
  const [theme, locale, tags] = [{ theme: null }, { locale: 'lt' }, { tags: ['a'] }]
  t.equal(await issued({ requestedSession: { ...locale, ...tags, ...theme } }), 'minted 1')
  t.equal(await issued({ requestedSession: { ...theme, ...tags, ...locale } }), 'replayed 1')
  t.equal(
    await issued({ requestedSession: { ...tags, ...theme, ...locale }, idempotencyKey: 'k' }),
    'replayed 1',
  )
  t.equal(
    await issued({ requestedSession: { ...locale, ...theme, ...tags }, idempotencyKey: 'k' }),
    'idempotent 1',
  )
})

t.test('requests that differ in anything share no token', async (t) => {
  const { issued } = setUp()
  const rows: [request: Partial<IssueRequest>, by?: 'other'][] = [
    [{}],
    [{ caller: { companyId: 'globex', userId: 'u-1' } }],
    [{ caller: { companyId: 'acme', userId: 'u-2' } }],
    [{ requestedSession: { locale: 'lt' } }],
    [{ requestedSession: { locale: 'lv' } }],
    [{}, 'other'],
  ]
  for (const idempotencyKey of [undefined, 'k']) {
    for (const [index, [request, by]] of rows.slice(0, idempotencyKey ? 3 : rows.length).entries()) {
      const origin = idempotencyKey ? 'replayed' : 'minted'
      t.equal(await issued({ ...request, idempotencyKey }, by), `${origin} ${index + 1}`)
    }
  }
  t.equal(await issued({ idempotencyKey: 'k' }, 'other'), 'replayed 6', 'of another deployment')
  t.equal(await issued({ idempotencyKey: 'k' }), 'idempotent 1')
})

t.test('under an idempotency key the same token comes for an hour', async (t) => {
  const { issued, pass } = setUp({ tokenLifeMs: 2 * hour })
  const request = { idempotencyKey: 'k', requestedSession: { locale: 'lt' } as const }
  t.equal(await issued(request), 'minted 1')
  await pass(hour - 1)
  t.equal(await issued(request), 'idempotent 1')
  t.equal(await issued({ ...request, idempotencyKey: 'other' }), 'minted 2')
  await pass(1)
  t.equal(await issued(request), 'replayed 2')
})

t.test('under an idempotency key the same token comes until it expires', async (t) => {
  const { issue, issued, pass } = setUp({ tokenLifeMs: 10 * minute })
  await issue({ idempotencyKey: 'k' })
  await pass(10 * minute - 1)
  t.match(await issue({ idempotencyKey: 'k' }), { origin: 'idempotent', token: { expiresIn: 0 } })
  await pass(1)
  t.equal(await issued({ idempotencyKey: 'k' }), 'minted 2')
})

t.test('an idempotency key is for one request', async (t) => {
  const { issue, dispatcher } = setUp()
  await issue({ idempotencyKey: 'k' })
  await t.rejects(issue({ idempotencyKey: 'k', requestedSession: { locale: 'lt' } }), {
    code: 'idempotency-mismatch',
  })
  t.equal(dispatcher.requests.length, 1)
})

t.test(
  'identical requests in flight share one POST, but under an idempotency key a second one is refused',
  async (t) => {
    const { issue, issued, dispatcher, mint, pass, origins } = setUp()
    dispatcher.script = () => {}
    const first = issued({ idempotencyKey: 'k' })
    const second = issued()
    const third = issued({ idempotencyKey: 'other' })
    await t.rejects(issue({ idempotencyKey: 'k' }), { code: 'idempotency-conflict' })
    await pass(0)
    const [request] = dispatcher.requests as [DispatchedRequest]
    mint(request)
    t.strictSame(await Promise.all([first, second, third]), ['minted 1', 'shared 1', 'shared 1'])
    t.same(origins.sort(), ['minted', 'shared', 'shared'])
    t.equal(dispatcher.requests.length, 1)
  },
)

t.test(
  'a request that joins another one is told at its own deadline that the outcome is not known',
  async (t) => {
    const { issue, dispatcher, mint, pass } = setUp()
    dispatcher.script = () => {}
    const first = issue()
    const late = t.rejects(issue({ waitedMs: 3 * second }), {
      code: 'provider-timeout',
      options: { diagnosis: { reason: 'shared-result' } },
    })
    await pass(5 * second)
    await late
    mint(dispatcher.requests[0] as DispatchedRequest)
    t.equal((await first).origin, 'minted')
  },
)

t.test('the time before counts against the deadline', async (t) => {
  const { issue, issued, dispatcher } = setUp()
  await t.rejects(issue({ waitedMs: 6 * second }), {
    code: 'provider-unavailable',
    options: { diagnosis: { reason: 'no-time-left' } },
  })
  t.equal(dispatcher.requests.length, 0)
  t.equal(await issued({ waitedMs: 6 * second - 1 }), 'minted 1')
})

t.test('an outcome that is not known is shared for five seconds', async (t) => {
  const { issue, issued, dispatcher, mint, pass } = setUp()
  dispatcher.script = (request) => request.respond(500)
  await t.rejects(
    issue(),
    { ...unknown, options: { diagnosis: { upstreamStatus: 500 } } },
    'the first one has all details',
  )
  dispatcher.script = (request) => mint(request)
  await pass(5 * second)
  const error = await t.rejects(issue(), shared)
  t.strictSame((error as unknown as { options: unknown }).options, { diagnosis: { reason: 'shared-result' } })
  t.equal(dispatcher.requests.length, 1)
  await pass(1)
  t.equal(await issued(), 'minted 2')
})

t.test('a new idempotency key is a new decision after an outcome that is not known', async (t) => {
  const { issue, issued, dispatcher, mint } = setUp()
  dispatcher.script = (request) => request.respond(500)
  await t.rejects(issue(), unknown)
  await t.rejects(issue({ idempotencyKey: 'a' }), {
    ...unknown,
    options: { diagnosis: { upstreamStatus: 500 } },
  })
  dispatcher.script = (request) => mint(request)
  t.equal(await issued({ idempotencyKey: 'b' }), 'minted 3')
})

t.test('under an idempotency key an outcome that is not known stays for an hour', async (t) => {
  const { issue, issued, dispatcher, mint, pass } = setUp()
  dispatcher.script = (request) => request.respond(500)
  await t.rejects(issue({ idempotencyKey: 'k' }), unknown)
  dispatcher.script = (request) => mint(request)
  await pass(hour)
  await t.rejects(issue({ idempotencyKey: 'k' }), { ...shared, headers: { 'idempotency-replayed': 'true' } })
  await t.rejects(issue({ idempotencyKey: 'k', requestedSession: { locale: 'lt' } }), {
    code: 'idempotency-mismatch',
  })
  await pass(1)
  t.equal(await issued({ idempotencyKey: 'k' }), 'minted 2')
})

t.test('a failure that opened no verification is not kept', async (t) => {
  for (const idempotencyKey of [undefined, 'k']) {
    const { issue, issued, dispatcher, mint } = setUp()
    dispatcher.script = (request) => request.respond(402)
    await t.rejects(issue({ idempotencyKey }), {
      code: 'provider-rejected',
      options: { diagnosis: { upstreamStatus: 402 } },
    })
    await t.rejects(issue({ idempotencyKey, requestedSession: { tags: ['a'] } }), {
      code: 'field-not-permitted',
    })
    dispatcher.script = (request) => mint(request)
    t.equal(await issued({ idempotencyKey }), 'minted 2')
  }
})

t.test('a request whose client has gone is not sent, and leaves nothing behind', async (t) => {
  for (const idempotencyKey of [undefined, 'k']) {
    const { issue, issued, dispatcher } = setUp()
    await t.rejects(issue({ idempotencyKey, isAbandoned: () => true }), { name: 'Abandoned' })
    t.equal(dispatcher.requests.length, 0)
    t.equal(await issued({ idempotencyKey }), 'minted 1')
  }
})

t.test('a request that is not admitted is not sent', async (t) => {
  const { issue, dispatcher } = setUp()
  const admit = () => Promise.reject(new TypeError('not now'))
  await t.rejects(issue({ admit }), { name: 'TypeError', message: 'not now' })
  t.equal(dispatcher.requests.length, 0)
})

t.test('after a fault of this service it is not known whether a verification was opened', async (t) => {
  const { issue, dispatcher } = setUp({
    onDrift: () => {
      throw new TypeError('a fault')
    },
  })
  dispatcher.script = (request) => {
    request.respond(200, { tokenString: 'T0ken', expiration: '2026-11-24T00:00:00Z' })
  }
  await t.rejects(issue({ idempotencyKey: 'k' }), { name: 'TypeError', message: 'a fault' })
  for (const idempotencyKey of [undefined, 'k']) {
    await t.rejects(issue({ idempotencyKey }), {
      code: 'internal-error',
      options: { diagnosis: { reason: 'shared-result' } },
    })
  }
  t.equal(dispatcher.requests.length, 1)
})

t.test('a token that has expired on its way is not handed out', async (t) => {
  const { issue, dispatcher, mint, setWallClock, clock, origins, audit } = setUp({
    onDrift: () => setWallClock(clock.now() + hour),
  })
  dispatcher.script = (request) => mint(request, 200)
  await t.rejects(issue(), {
    code: 'provider-bad-response',
    options: { diagnosis: { phase: 'after-sending', reason: 'expired' } },
  })
  t.strictSame([origins, audit], [[], []])
})

t.test('without Redis requests go on, or are refused, as the operator has chosen', async (t) => {
  const refused = { code: 'state-unavailable' }
  for (const [sharedStateRequiredFor, plain, withKey] of [
    ['none', 'minted 1', 'replayed 1'],
    ['keys', 'minted 1', refused],
    ['all', refused, refused],
  ] as const) {
    const { issue, issued } = setUp({ hasRedis: true, sharedStateRequiredFor })
    if (typeof plain === 'string') t.equal(await issued(), plain)
    else await t.rejects(issue(), plain)
    if (typeof withKey === 'string') t.equal(await issued({ idempotencyKey: 'k' }), withKey)
    else await t.rejects(issue({ idempotencyKey: 'k' }), withKey)
  }
})

t.test('what a lost replica has sent is not known, and replicas see no more than hashes', async (t) => {
  const keys: string[] = []
  const { issue, dispatcher } = setUp({
    replicaWide: {
      run: async (key, _work, { unknownResult }) => {
        keys.push(key)
        return { origin: 'stored', value: unknownResult('owner-lost'), ttlMs: second }
      },
      settled: async () => {},
    },
  })
  await t.rejects(issue(), shared)
  await t.rejects(issue({ idempotencyKey: 'k' }), { ...shared, headers: { 'idempotency-replayed': 'true' } })
  t.equal(dispatcher.requests.length, 0)
  for (const key of keys) t.match(key, /^onboarding-bff:[A-Za-z0-9_-]{43}$/)
  t.equal(new Set(keys).size, 2)
})

t.test('a machine that is suspended for more than two seconds sends nothing that came before', async (t) => {
  for (const [suspendedMs, isSent] of [
    [2 * second, true],
    [2 * second + 1, false],
    [-hour, true],
  ] as const) {
    for (const moment of ['while it is counted', 'while it connects']) {
      const { issue, dispatcher, mint, clock, setWallClock } = setUp()
      const suspend = () => setWallClock(clock.now() + suspendedMs)
      dispatcher.script = (request) => {
        if (moment === 'while it connects') suspend()
        request.begin()
        if (!request.stoppedBy()) mint(request)
      }
      const issued = issue({
        admit: async () => {
          if (moment === 'while it is counted') suspend()
        },
      })
      if (isSent) t.match(await issued, { origin: 'minted' }, moment)
      else await t.rejects(issued, { code: 'provider-unavailable' }, moment)
    }
  }
})
