import t from 'tap'
import { Abandoned } from '../../../src/problems/abandoned.js'
import { exchange } from '../../../src/services/idenfy/exchange.js'
import { type DispatchedRequest, ScriptedDispatcher } from '../../scripted-dispatcher.js'
import { createVirtualClock } from '../../virtual-clock.js'

/** An exchange that must be sent within one second and be complete within three. */
function begin(
  options: { isAbandoned?: () => boolean; wasSuspended?: () => boolean; standsStill?: boolean } = {},
) {
  const virtual = createVirtualClock()
  const dispatcher = new ScriptedDispatcher()
  const beginMs = virtual.clock.monotonicNow()
  const monotonicNow = options.standsStill ? () => beginMs : virtual.clock.monotonicNow
  const result = exchange(
    dispatcher,
    { origin: 'https://idenfy.example', method: 'POST', path: '/', body: '{}' },
    {
      deadlineMs: beginMs + 3_000,
      sendBeforeMs: beginMs + 1_000,
      wasSuspended: options.wasSuspended ?? (() => false),
      clock: { ...virtual.clock, monotonicNow },
      isAbandoned: options.isAbandoned ?? (() => false),
      onFailure: (cause, isSent) => Object.assign(cause, { isSent }),
    },
  )
  let outcome: unknown
  result.then(
    (response) => {
      outcome = response
    },
    (error) => {
      outcome = error
    },
  )
  const [request] = dispatcher.requests as [DispatchedRequest]
  return { ...virtual, request, result, outcome: () => outcome }
}

const late = (isSent: boolean) => ({ name: 'TimeoutError', isSent })

t.test('a response comes whole, also one in pieces', async (t) => {
  const { request, result, pendingTimers } = begin()
  request.respond(201, { text: 'Łódź 😀' }, { 'x-a': 'b' })
  t.strictSame(await result, { status: 201, headers: { 'x-a': 'b' }, text: '{"text":"Łódź 😀"}' })
  t.equal(pendingTimers(), 0)
})

t.test('the last head counts, and not an interim one', async (t) => {
  const { request, result } = begin()
  request.begin()
  request.head(103, { link: '</a>' })
  request.respond(200, '', { 'x-a': 'b' })
  t.strictSame(await result, { status: 200, headers: { 'x-a': 'b' }, text: '' })
})

t.test('a request that cannot be sent in time is not sent', async (t) => {
  const { request, outcome, pass, pendingTimers } = begin()
  await pass(999)
  t.equal(outcome(), undefined)
  await pass(1)
  t.match(outcome(), late(false))
  t.equal(pendingTimers(), 0)
  request.begin()
  t.match(request.stoppedBy(), { name: 'TimeoutError' }, 'not even when the connection stands at last')
})

t.test('what has failed is not sent later, also by a clock that stood still', async (t) => {
  const { request, outcome, pass } = begin({ standsStill: true })
  await pass(1_000)
  t.match(outcome(), late(false))
  request.begin()
  t.match(request.stoppedBy(), { name: 'TimeoutError' })
})

t.test('a process that was stopped meanwhile sends nothing too late', async (t) => {
  for (const [stoppedMs, isSent] of [
    [999, true],
    [1_000, false],
  ] as const) {
    const { request, result, skip } = begin()
    skip(stoppedMs)
    request.begin()
    if (isSent) {
      request.respond(201)
      t.match(await result, { status: 201 })
    } else {
      await t.rejects(result, late(false))
    }
  }
})

t.test('a machine that was suspended since the request came does not send it', async (t) => {
  const { request, result } = begin({ wasSuspended: () => true })
  request.begin()
  await t.rejects(result, late(false))
})

t.test('a request whose clients have gone is not sent', async (t) => {
  const { request, result, pendingTimers } = begin({ isAbandoned: () => true })
  request.begin()
  await t.rejects(result, { name: 'Abandoned', isSent: false })
  t.ok(request.stoppedBy() instanceof Abandoned)
  t.equal(pendingTimers(), 0)
})

t.test('a request that was sent goes on without its clients', async (t) => {
  let hasLeft = false
  const { request, result, pass } = begin({ isAbandoned: () => hasLeft })
  request.begin()
  hasLeft = true
  await pass(2_500)
  request.respond(201)
  t.match(await result, { status: 201 })
})

t.test('a response that is not complete at the deadline is late', async (t) => {
  const { request, outcome, pass, pendingTimers } = begin()
  await pass(400)
  request.begin()
  request.head(200)
  await pass(2_599)
  t.equal(outcome(), undefined)
  await pass(1)
  t.match(outcome(), late(true))
  t.match(request.stoppedBy(), { name: 'TimeoutError' })
  t.equal(pendingTimers(), 0)
})

t.test('a process that was stopped has no more time for it', async (t) => {
  const { request, outcome, pass, skip } = begin()
  request.begin()
  skip(2_900)
  await pass(0)
  await pass(99)
  t.equal(outcome(), undefined)
  await pass(1)
  t.match(outcome(), late(true))
})

t.test('nor does a clock that stood still add time', async (t) => {
  const { request, outcome, pass } = begin({ standsStill: true })
  request.begin()
  await pass(2_999)
  t.equal(outcome(), undefined)
  await pass(1)
  t.match(outcome(), late(true))
})

t.test('a failure says whether the request was sent', async (t) => {
  for (const isSent of [false, true]) {
    const { request, result, pendingTimers } = begin()
    if (isSent) request.begin()
    request.fail(new Error('lost'))
    await t.rejects(result, { message: 'lost', isSent })
    t.equal(pendingTimers(), 0)
  }
})
