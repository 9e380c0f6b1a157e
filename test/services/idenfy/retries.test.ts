import t from 'tap'
import { Abandoned } from '../../../src/problems/abandoned.js'
import { Problem } from '../../../src/problems/problem.js'
import { createIdenfyClient } from '../../../src/services/idenfy/client.js'
import {
  type Call,
  classifyFailure,
  createResilientClient,
} from '../../../src/services/idenfy/resilient-client.js'
import { createBulkhead } from '../../../src/services/resilience/bulkhead.js'
import { createCircuitBreaker } from '../../../src/services/resilience/circuit-breaker.js'
import { createRetryBudget } from '../../../src/services/resilience/retry-budget.js'
import { type DispatchedRequest, ScriptedDispatcher } from '../../scripted-dispatcher.js'
import { createVirtualClock } from '../../virtual-clock.js'

const goodToken = { tokenString: 'T0ken', expiration: '2099-01-01T00:00:00Z' }
const created = (request: DispatchedRequest) => request.respond(201, goodToken)
const slowDown = (seconds: string) => (request: DispatchedRequest) =>
  request.respond(429, '', { 'retry-after': seconds })
const unreachable = (request: DispatchedRequest) =>
  request.fail(Object.assign(new Error('lost'), { code: 'ECONNREFUSED' }))

/** A client with eight seconds for each request. Each request meets the next one of the scripts, the last one stays. */
function setUp(...scripts: ((request: DispatchedRequest) => void)[]) {
  const virtual = createVirtualClock()
  const { clock } = virtual
  const dispatcher = new ScriptedDispatcher((request) => {
    const script = scripts.length > 1 ? scripts.shift() : scripts[0]
    script?.(request)
  })
  const breaker = createCircuitBreaker({ classify: classifyFailure, clock })
  const bulkhead = createBulkhead({ maxInFlight: 1, clock })
  const attempts: unknown[] = []
  const retries: unknown[] = []
  const lines: unknown[] = []
  let drift = () => {}
  const client = createResilientClient({
    client: createIdenfyClient({
      dispatcher,
      origin: 'https://idenfy.example',
      authorization: { value: () => 'Basic eDp5', checkNow: async () => {} },
      userAgent: 'test/1',
      clock,
      onIdleLimit: () => {},
      onDrift: () => drift(),
    }),
    breaker,
    bulkhead,
    budget: createRetryBudget(),
    timeoutMs: 8_000,
    clock,
    random: () => 0.5,
    onAttempt: (...attempt) => attempts.push(attempt),
    onRetry: (...retry) => retries.push(retry),
  })
  const create = (call: Partial<Call> = {}) =>
    client.createKybToken(
      { tokenType: 'FORM', clientId: 'acme' },
      {
        deadlineMs: clock.monotonicNow() + 8_000,
        wasSuspended: () => false,
        isAbandoned: () => false,
        admit: async () => {},
        log: { warn: (...line: unknown[]) => lines.push(line) } as never,
        ...call,
      },
    )
  return {
    ...virtual,
    create,
    dispatcher,
    breaker,
    bulkhead,
    attempts,
    retries,
    lines,
    script: (...next: ((request: DispatchedRequest) => void)[]) => scripts.splice(0, scripts.length, ...next),
    failAfterSending: (error: Error) => {
      drift = () => {
        throw error
      }
    },
    /** What a call ends with, after this time. */
    after: async <T>(milliseconds: number, result: Promise<T>): Promise<T> => {
      result.catch(() => {})
      await virtual.pass(milliseconds)
      return result
    },
  }
}

t.test('a failed call says whether iDenfy is down, up, or nothing about it', async (t) => {
  for (const code of ['provider-unavailable', 'provider-timeout', 'provider-outcome-unknown'] as const) {
    t.equal(classifyFailure(new Problem(code)), 'down', code)
  }
  for (const code of ['provider-rejected', 'provider-rate-limited', 'provider-bad-response'] as const) {
    t.equal(classifyFailure(new Problem(code)), 'up', code)
  }
  for (const error of [new Abandoned(), new TypeError('a fault'), { code: 'provider-timeout' }, undefined]) {
    t.equal(classifyFailure(error), 'nothing')
  }
})

t.test('a call that succeeds is made once, and its duration is told', async (t) => {
  const { create, dispatcher, attempts, retries, lines, pass } = setUp((request) => request.begin())
  const result = create()
  await pass(120)
  dispatcher.requests[0]?.respond(201, goodToken)
  t.strictSame(await result, goodToken)
  t.strictSame(attempts, [['success', 120]])
  t.strictSame([retries, lines], [[], []])
})

t.test('a failed call is told with its code, its duration and its class', async (t) => {
  const { create, dispatcher, attempts, pass } = setUp((request) => request.begin())
  const result = create().catch((error) => error)
  await pass(120)
  dispatcher.requests[0]?.respond(402)
  t.match(await result, { code: 'provider-rejected' })
  t.strictSame(attempts, [['provider-rejected', 120, 'funds']])
  const other = setUp((request) => request.respond(500))
  await t.rejects(other.create(), { code: 'provider-outcome-unknown' })
  t.strictSame(other.attempts, [['provider-outcome-unknown', 0, undefined]])
})

t.test('a request that was not sent is retried once, soon', async (t) => {
  const { create, dispatcher, attempts, retries, lines, pass } = setUp(unreachable, created)
  const result = create()
  await pass(49)
  t.equal(dispatcher.requests.length, 1)
  await pass(1)
  t.strictSame(await result, goodToken)
  t.equal(dispatcher.requests.length, 2)
  t.strictSame(retries, [['not-sent', true]])
  t.match(attempts, [
    ['provider-unavailable', 0, 'connection'],
    ['success', 0],
  ])
  t.match(lines, [
    [
      {
        event: 'idenfy-retry',
        retryReason: 'not-sent',
        phase: 'before-sending',
        class: 'connection',
        err: { code: 'provider-unavailable' },
      },
      'retry',
    ],
  ])
})

t.test('a second failure is final', async (t) => {
  const { after, create, dispatcher } = setUp(unreachable)
  await t.rejects(after(200, create()), { code: 'provider-unavailable' })
  t.equal(dispatcher.requests.length, 2)
})

t.test('a failure whose outcome is not known is not retried', async (t) => {
  const { after, create, dispatcher, retries } = setUp((request) => request.respond(500))
  await t.rejects(after(200, create()), { code: 'provider-outcome-unknown' })
  t.equal(dispatcher.requests.length, 1)
  t.strictSame(retries, [])
})

t.test('iDenfy can ask for a wait of a quarter of the time', async (t) => {
  const patient = setUp(slowDown('2'), created)
  const result = patient.create()
  await patient.pass(2_049)
  t.equal(patient.dispatcher.requests.length, 1)
  await patient.pass(1)
  t.strictSame(await result, goodToken)
  t.strictSame(patient.retries, [['rate-limited', true]])

  const impatient = setUp(slowDown('3'), created)
  await t.rejects(impatient.after(4_000, impatient.create()), { code: 'provider-rate-limited' })
  t.equal(impatient.dispatcher.requests.length, 1)
})

t.test('a retry needs as much time as the first attempt took', async (t) => {
  for (const [firstMs, isRetried] of [
    [2_950, true],
    [2_951, false],
  ] as const) {
    const { create, dispatcher, pass, after } = setUp((request) => request.begin(), created)
    const result = create()
    result.catch(() => {})
    await pass(firstMs)
    slowDown('2')(dispatcher.requests[0] as DispatchedRequest)
    if (isRetried) t.strictSame(await after(2_100, result), goodToken)
    else await t.rejects(after(2_100, result), { code: 'provider-rate-limited' })
  }
})

t.test('a retry needs a quarter of the time', async (t) => {
  for (const [deadlineMs, isRetried] of [
    [4_100, true],
    [4_099, false],
  ] as const) {
    const { create, after, clock } = setUp(slowDown('2'), created)
    const result = create({ deadlineMs: clock.monotonicNow() + deadlineMs })
    if (isRetried) t.strictSame(await after(2_100, result), goodToken)
    else await t.rejects(after(2_100, result), { code: 'provider-rate-limited' })
  }
})

t.test('a retry that the budget refuses is not made', async (t) => {
  const { create, after, dispatcher, retries, lines, script } = setUp(slowDown('1'))
  for (let call = 0; call < 11; call++) await after(1_100, create()).catch(() => {})
  t.equal(dispatcher.requests.length, 21)
  t.strictSame(retries, [...Array(10).fill(['rate-limited', true]), ['rate-limited', false]])
  t.equal(lines.length, 10)
  script(created)
  for (let call = 0; call < 10; call++) await create()
  script(slowDown('1'), created)
  t.strictSame(await after(1_100, create()), goodToken, 'ten successes earn one')
})

t.test('a request is admitted once, before it is sent', async (t) => {
  const { create, after, dispatcher } = setUp(unreachable, created)
  const seen: number[] = []
  const admit = async () => void seen.push(dispatcher.requests.length)
  t.strictSame(await after(100, create({ admit })), goodToken)
  t.strictSame(seen, [0])
})

t.test('a request that is not admitted is not sent, and says nothing about iDenfy', async (t) => {
  const { create, dispatcher, attempts, breaker } = setUp(created)
  const admit = () => Promise.reject(new Problem('rate-limited', { detail: 'user-limit' }))
  for (let call = 0; call < 5; call++) await t.rejects(create({ admit }), { code: 'rate-limited' })
  t.equal(dispatcher.requests.length, 0)
  t.strictSame(attempts, [])
  t.equal(breaker.isOpen(), false)
})

t.test('a request is sent only while a quarter of the time is left', async (t) => {
  const noTimeLeft = {
    code: 'provider-unavailable',
    options: { diagnosis: { phase: 'before-sending', reason: 'no-time-left' } },
  }
  const { create, dispatcher, clock, skip, attempts } = setUp(created)
  const now = clock.monotonicNow()
  let admitted = 0
  const admit = async () => {
    admitted += 1
  }
  await t.rejects(create({ deadlineMs: now + 2_000, admit }), noTimeLeft)
  t.equal(admitted, 0)
  t.strictSame(await create({ deadlineMs: now + 2_001, admit }), goodToken)
  // A limit that is counted in a slow Redis.
  await t.rejects(create({ deadlineMs: now + 2_001, admit: async () => skip(1) }), noTimeLeft)
  t.equal(dispatcher.requests.length, 1)
  t.strictSame(attempts, [['success', 0]])
})

t.test('a request whose clients have gone is not sent, and not counted', async (t) => {
  const { create, dispatcher, attempts, breaker } = setUp(created)
  let admitted = 0
  const admit = async () => {
    admitted += 1
  }
  await t.rejects(create({ isAbandoned: () => true, admit }), { name: 'Abandoned' })
  t.equal(admitted, 0, 'it must not count against a limit')
  let hasLeft = false
  const isAbandoned = () => hasLeft
  const leave = async () => {
    hasLeft = true
  }
  await t.rejects(create({ isAbandoned, admit: leave }), { name: 'Abandoned' })
  t.strictSame(attempts, [])
  t.equal(breaker.isOpen(), false)
  t.equal(dispatcher.requests.filter((request) => !request.stoppedBy()).length, 0)
})

t.test('an open circuit refuses before anything is counted or sent', async (t) => {
  const { create, dispatcher, breaker, attempts, script, pass } = setUp((request) => request.respond(500))
  for (let call = 0; call < 5; call++) await t.rejects(create(), { code: 'provider-outcome-unknown' })
  t.equal(breaker.isOpen(), true)
  let admitted = 0
  const admit = async () => {
    admitted += 1
  }
  const refused = { code: 'provider-unavailable', options: { diagnosis: { reason: 'circuit-open' } } }
  await t.rejects(create({ admit }), refused)
  t.equal(admitted, 0)
  t.equal(attempts.length, 5)
  await pass(5_000)
  script(created)
  t.strictSame(await create({ admit }), goodToken)
  t.equal(dispatcher.requests.length, 6)
})

t.test('a circuit that opens while a request waits or is being counted refuses it', async (t) => {
  const { create, dispatcher, breaker, pass } = setUp((request) => request.begin())
  const openCircuit = async () => {
    for (let call = 0; call < 5; call++)
      await breaker.run(() => Promise.reject(new Problem('provider-timeout'))).catch(() => {})
  }
  const refused = { code: 'provider-unavailable', options: { diagnosis: { reason: 'circuit-open' } } }
  const running = create()
  let admitted = 0
  const waiting = create({
    admit: async () => {
      admitted += 1
    },
  })
  const rejected = t.rejects(waiting, refused)
  await openCircuit()
  dispatcher.requests[0]?.respond(201, goodToken)
  await running
  await rejected
  t.equal(admitted, 0)

  await pass(5_000)
  await t.rejects(create({ admit: openCircuit }), refused)
  t.equal(dispatcher.requests.length, 1)
})

t.test('a request waits half a second for a free place, and not longer than it may be sent', async (t) => {
  const { create, clock, pass, dispatcher } = setUp((request) => request.begin(), created)
  const running = create()
  let ended: unknown
  const waiting = create().catch((error) => {
    ended = error
  })
  await pass(499)
  t.equal(ended, undefined)
  await pass(1)
  t.match(ended, { code: 'overloaded' })
  await waiting

  ended = undefined
  const short = create({ deadlineMs: clock.monotonicNow() + 2_100 }).catch((error) => {
    ended = error
  })
  await pass(99)
  t.equal(ended, undefined)
  await pass(1)
  t.match(ended, { code: 'overloaded' })
  await short
  dispatcher.requests[0]?.respond(201, goodToken)
  await running
})

t.test('a fault of this service is told as one, is not retried, and passes unchanged', async (t) => {
  const { create, after, attempts, retries, dispatcher, breaker, failAfterSending } = setUp((request) =>
    request.respond(200, goodToken),
  )
  const fault = new TypeError('a fault')
  failAfterSending(fault)
  const caught = await after(200, create()).catch((error) => error)
  t.equal(caught, fault)
  t.strictSame(attempts, [['internal-error', 0]])
  t.strictSame(retries, [])
  t.equal(dispatcher.requests.length, 1)
  t.equal(breaker.isOpen(), false)
})

t.test('retries are spread over a tenth of a second', async (t) => {
  const { clock, pass } = createVirtualClock()
  const begins = new Set<number>()
  for (let call = 0; call < 50; call++) {
    const dispatcher = new ScriptedDispatcher((request) => {
      if (dispatcher.requests.length === 1) unreachable(request)
      else {
        begins.add(clock.monotonicNow() - begin)
        created(request)
      }
    })
    const begin = clock.monotonicNow()
    const client = createResilientClient({
      client: createIdenfyClient({
        dispatcher,
        origin: 'https://idenfy.example',
        authorization: { value: () => 'Basic eDp5', checkNow: async () => {} },
        userAgent: 'test/1',
        clock,
        onIdleLimit: () => {},
        onDrift: () => {},
      }),
      breaker: createCircuitBreaker({ classify: classifyFailure, clock }),
      bulkhead: createBulkhead({ maxInFlight: 1, clock }),
      budget: createRetryBudget(),
      timeoutMs: 8_000,
      clock,
      onAttempt: () => {},
      onRetry: () => {},
    })
    const result = client.createKybToken(
      { tokenType: 'FORM', clientId: 'acme' },
      {
        deadlineMs: begin + 8_000,
        wasSuspended: () => false,
        isAbandoned: () => false,
        admit: async () => {},
        log: { warn: () => {} },
      },
    )
    await pass(100)
    await result
  }
  t.ok(begins.size > 10)
  for (const milliseconds of begins) t.ok(milliseconds >= 0 && milliseconds < 100, `${milliseconds} ms`)
})
