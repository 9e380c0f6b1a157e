import t from 'tap'
import { Abandoned } from '../../../src/problems/abandoned.js'
import { createMemorySingleFlight } from '../../../src/services/single-flight/memory.js'
import type { RunOptions, SingleFlight } from '../../../src/services/single-flight/single-flight.js'
import { createVirtualClock } from '../../virtual-clock.js'
import { controlledWork, notCalled, type Result, work } from './work.js'

function setUp({
  maxStored = 10,
  replicaWide,
}: {
  maxStored?: number
  replicaWide?: SingleFlight<Result>
} = {}) {
  const virtual = createVirtualClock()
  const { clock } = virtual
  return {
    ...virtual,
    singleFlight: createMemorySingleFlight<Result>({ maxStored, clock, replicaWide }),
    /** What a request wants, but for what is overridden. */
    optionsOf: (overrides: Partial<RunOptions<Result>> = {}): RunOptions<Result> => ({
      mode: 'share',
      lifetimeMs: () => 0,
      accepts: () => true,
      deadlineMs: clock.monotonicNow() + 10_000,
      isAbandoned: () => false,
      mayRunAlone: true,
      unknownResult: (reason) => ({ text: reason }),
      ...overrides,
    }),
  }
}

t.test('requests with one key share one piece of work, also its error', async (t) => {
  const { singleFlight, optionsOf } = setUp()
  const good = controlledWork()
  const first = singleFlight.run('key', good.work, optionsOf())
  const second = singleFlight.run('key', notCalled, optionsOf())
  t.match(await singleFlight.run('other key', work('other'), optionsOf()), {
    origin: 'own',
    value: { text: 'other' },
  })
  good.end('done')
  t.strictSame(await first, { origin: 'own', value: { text: 'done' } })
  t.strictSame(await second, { origin: 'shared', value: { text: 'done' } })
  t.equal(good.begun, 1)

  const bad = controlledWork()
  const failures = [
    singleFlight.run('key', bad.work, optionsOf()),
    singleFlight.run('key', notCalled, optionsOf()),
  ]
  bad.fail(new TypeError('lost'))
  for (const failure of failures) await t.rejects(failure, { name: 'TypeError', message: 'lost' })
  t.match(
    await singleFlight.run('key', work('again'), optionsOf()),
    { origin: 'own' },
    'an error is not kept',
  )
})

t.test('a result is kept for its lifetime', async (t) => {
  const { singleFlight, optionsOf, pass } = setUp()
  const keep = optionsOf({ lifetimeMs: () => 1_000.9 })
  await singleFlight.run('key', work('first'), keep)
  await pass(1_000)
  t.strictSame(await singleFlight.run('key', notCalled, keep), { origin: 'stored', value: { text: 'first' } })
  await pass(1)
  t.match(await singleFlight.run('key', work('second'), keep), { origin: 'own', value: { text: 'second' } })
})

t.test('a result that may not be handed out any more is replaced', async (t) => {
  const { singleFlight, optionsOf } = setUp()
  const lifetimeMs = () => 60_000
  await singleFlight.run('key', work('first'), optionsOf({ lifetimeMs }))
  const tooOld = optionsOf({ lifetimeMs: ({ text }) => (text === 'first' ? 0 : 60_000) })
  t.match(await singleFlight.run('key', work('second'), tooOld), { origin: 'own' })
  const notAccepted = optionsOf({ lifetimeMs, accepts: ({ text }) => text !== 'second' })
  t.match(await singleFlight.run('key', work('third'), notAccepted), { origin: 'own' })
  t.match(await singleFlight.run('key', notCalled, notAccepted), {
    origin: 'stored',
    value: { text: 'third' },
  })
})

t.test('a result without a lifetime is not kept', async (t) => {
  for (const lifetimeMs of [0, -1, 0.5]) {
    const { singleFlight, optionsOf } = setUp()
    await singleFlight.run('key', work('first'), optionsOf({ lifetimeMs: () => lifetimeMs }))
    t.match(await singleFlight.run('key', work('second'), optionsOf({ lifetimeMs: () => 60_000 })), {
      origin: 'own',
    })
  }
})

t.test('of too many results the least recently used one is dropped', async (t) => {
  const { singleFlight, optionsOf } = setUp({ maxStored: 2 })
  const keep = optionsOf({ lifetimeMs: () => 60_000 })
  const originOf = async (key: string) => (await singleFlight.run(key, work(key), keep)).origin
  for (const key of ['a', 'b', 'a', 'c']) await originOf(key)
  t.equal(await originOf('a'), 'stored')
  t.equal(await originOf('b'), 'own')
})

t.test('a request that may be made once is refused while it is in flight', async (t) => {
  const { singleFlight, optionsOf } = setUp()
  const { work, end } = controlledWork()
  const once = optionsOf({ mode: 'once', lifetimeMs: () => 60_000 })
  const first = singleFlight.run('key', work, once)
  await t.rejects(singleFlight.run('key', notCalled, once), { name: 'Problem', code: 'idempotency-conflict' })
  end('done')
  t.match(await first, { origin: 'own' })
  t.match(await singleFlight.run('key', notCalled, once), { origin: 'stored', value: { text: 'done' } })
})

t.test('a request that joins another one keeps its own deadline', async (t) => {
  const { singleFlight, optionsOf, clock, pass, pendingTimers } = setUp()
  const { work, end } = controlledWork()
  const deadlineMs = clock.monotonicNow() + 10_000
  const first = singleFlight.run('key', work, optionsOf({ deadlineMs }))
  const shared = singleFlight.run('key', notCalled, optionsOf({ deadlineMs: deadlineMs - 5_000 }))
  const same = singleFlight.run('key', notCalled, optionsOf({ deadlineMs }))
  t.equal(pendingTimers(), 1, 'no timer for one that ends with the work')
  const short = singleFlight.run('key', notCalled, optionsOf({ deadlineMs: deadlineMs - 9_950 }))
  let isLate = false
  void short.then(() => {
    isLate = true
  })
  await pass(49)
  t.equal(isLate, false)
  await pass(1)
  t.strictSame(await short, { origin: 'shared', value: { text: 'late' } })
  end('done')
  t.match(await first, { origin: 'own', value: { text: 'done' } })
  for (const joined of [shared, same])
    t.strictSame(await joined, { origin: 'shared', value: { text: 'done' } })
  t.equal(pendingTimers(), 0)
})

t.test('work is abandoned when every client that waits for it has gone', async (t) => {
  const { singleFlight, optionsOf } = setUp()
  const controlled = controlledWork()
  const gone = new Set<string>()
  const requestOf = (name: string) =>
    singleFlight.run('key', controlled.work, optionsOf({ isAbandoned: () => gone.has(name) }))
  const requests = [requestOf('a')]
  t.equal(controlled.isAbandoned(), false)
  requests.push(requestOf('b'))
  for (const name of ['a', 'b']) {
    gone.add(name)
    t.equal(controlled.isAbandoned(), false, 'one client is enough')
    gone.delete(name)
  }
  for (const name of ['a', 'b']) gone.add(name)
  t.equal(controlled.isAbandoned(), true)
  controlled.fail(new Abandoned())
  for (const request of requests) await t.rejects(request, { name: 'Abandoned' })
})

t.test('a request that joins work just given up does it itself', async (t) => {
  const { singleFlight, optionsOf } = setUp()
  const controlled = controlledWork()
  const first = singleFlight.run('key', controlled.work, optionsOf({ isAbandoned: () => true }))
  const second = singleFlight.run('key', work('second'), optionsOf())
  const third = singleFlight.run('key', work('third'), optionsOf())
  controlled.fail(new Abandoned())
  await t.rejects(first, { name: 'Abandoned' })
  t.strictSame(await second, { origin: 'own', value: { text: 'second' } })
  t.strictSame(await third, { origin: 'shared', value: { text: 'second' } }, 'once for all of them')
})

t.test('requests that have ended do not stay in memory with the work', async (t) => {
  const { singleFlight, optionsOf } = setUp()
  const controlled = controlledWork()
  const request = singleFlight.run('key', controlled.work, optionsOf({ isAbandoned: () => false }))
  controlled.end('done')
  await request
  t.equal(controlled.isAbandoned(), true, 'no request is asked')
})

t.test('settled waits for all work in flight, however it ends', async (t) => {
  const { singleFlight, optionsOf, pass } = setUp()
  await singleFlight.settled()
  const [good, bad] = [controlledWork(), controlledWork()]
  const running = [
    singleFlight.run('a', good.work, optionsOf()),
    singleFlight.run('b', bad.work, optionsOf()).catch(() => undefined),
  ]
  let isSettled = false
  const settled = singleFlight.settled().then(() => {
    isSettled = true
  })
  good.end('done')
  await pass(0)
  t.equal(isSettled, false)
  bad.fail(new Error('lost'))
  await settled
  await Promise.all(running)
})

t.test('a process asks its replicas if it has nothing itself', async (t) => {
  const settled = controlledWork()
  const asked: string[] = []
  const { singleFlight, optionsOf, pass } = setUp({
    replicaWide: {
      run: async (key, work, { isAbandoned }) => {
        asked.push(key)
        if (key === 'own') return { origin: 'own', value: await work(isAbandoned) }
        return { origin: 'stored', value: { text: 'of another replica' }, ttlMs: 1_000 }
      },
      settled: async () => void (await settled.work(() => false)),
    },
  })
  const keep = optionsOf({ lifetimeMs: () => 60_000 })
  t.match(await singleFlight.run('own', work('mine'), keep), { origin: 'own', value: { text: 'mine' } })
  t.match(await singleFlight.run('key', notCalled, keep), {
    origin: 'stored',
    value: { text: 'of another replica' },
  })
  await pass(1_000)
  t.match(await singleFlight.run('key', notCalled, keep), { origin: 'stored' })
  t.strictSame(asked, ['own', 'key'], 'not again while it knows')
  await pass(1)
  await singleFlight.run('key', notCalled, keep)
  t.strictSame(asked, ['own', 'key', 'key'], 'no longer than the replicas keep it')
  await singleFlight.run('own', notCalled, keep)
  t.equal(asked.length, 3)

  let isSettled = false
  const end = singleFlight.settled().then(() => {
    isSettled = true
  })
  await pass(0)
  t.equal(isSettled, false, 'it waits for the replicas, too')
  settled.end('')
  await end
})
