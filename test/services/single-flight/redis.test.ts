import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { Abandoned } from '../../../src/problems/abandoned.js'
import { Problem } from '../../../src/problems/problem.js'
import { createStateCipher } from '../../../src/services/single-flight/encryption.js'
import { createRedisSingleFlight } from '../../../src/services/single-flight/redis.js'
import { createRedisConnection } from '../../../src/services/single-flight/redis-connection.js'
import type { RunOptions } from '../../../src/services/single-flight/single-flight.js'
import { connectRedis, needsRedis, startRedis, stateKey } from '../../redis-server.js'
import { createVirtualClock } from '../../virtual-clock.js'
import { inTime, until } from '../../waiting.js'
import { controlledWork, notCalled, type Result, work } from './work.js'

const hour = 3_600_000
const otherKey = Buffer.alloc(32, 'o').toString('base64')

let shared: ReturnType<typeof startRedis> | undefined
/** The Redis of this file. A test that stops or stalls Redis starts its own. */
const sharedRedis = () => {
  shared ??= startRedis(t)
  return shared
}

/** Two replicas with one Redis, and a client to look into it. The time of the replicas stands still, that of Redis does not. */
async function setUp(t: Test, start: () => ReturnType<typeof startRedis> = sharedRedis) {
  const server = await start()
  const client = connectRedis(t, server.env.REDIS_URL)
  await client.flushall()
  const virtual = createVirtualClock()
  const { clock, pass, nextTimerMs } = virtual
  /** Out of the way, but for the tests that are about it. */
  const replica = async ({ key = stateKey, commandTimeoutMs = hour } = {}) => {
    const cipher = createStateCipher([key])
    const redis = createRedisConnection({
      redis: new Redis(server.env.REDIS_URL, {
        lazyConnect: true,
        enableOfflineQueue: false,
        maxRetriesPerRequest: 0,
      }),
      credentials: [],
      database: 0,
      commandTimeoutMs,
      onChange: () => {},
      onFailure: () => {},
      clock,
    })
    await redis.connect()
    t.teardown(() => redis.close())
    const singleFlight = createRedisSingleFlight<Result>({ redis, cipher: () => cipher, clock })
    return { ...singleFlight, redis, cipher }
  }
  return {
    ...virtual,
    server,
    client,
    replica,
    first: await replica(),
    second: await replica(),
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
    /** Resolves when the first replica has the lease. */
    leased: () => until(async () => (await client.exists('key')) === 1, 'a replica to take the lease'),
    /** Lets a replica that waits look at the key, so often. */
    look: async (times = 1) => {
      for (let done = 0; done < times; done++) {
        await until(() => nextTimerMs() <= 50, 'a replica to wait')
        await pass(nextTimerMs())
      }
    },
    /** Lets it look until it has a result. */
    resultOf: async <T>(waiting: Promise<T>): Promise<T> => {
      let isSettled = false
      const settle = () => {
        isSettled = true
      }
      waiting.then(settle, settle)
      await until(async () => {
        if (!isSettled && nextTimerMs() <= 50) await pass(nextTimerMs())
        return isSettled
      }, 'the result of a replica')
      return waiting
    },
    /** Passes time until this is true. */
    passUntil: (condition: () => Promise<boolean>, what: string) =>
      until(async () => {
        await pass(50)
        return condition()
      }, what),
  }
}

t.test(
  'a lease lasts until the deadline and a little longer, and is seen for a while after that',
  needsRedis,
  async (t) => {
    for (const [mode, seenMs] of [
      ['share', 5_000],
      ['once', hour],
    ] as const) {
      const { first, client, optionsOf, leased, clock } = await setUp(t)
      const { work, end } = controlledWork()
      const own = first.run('key', work, optionsOf({ mode, deadlineMs: clock.monotonicNow() + 9_999.5 }))
      await leased()
      t.match(await client.get('key'), /^L[0-9a-f-]{36}$/)
      const ttl = await client.pttl('key')
      t.ok(ttl > 10_000 + 1_000 + seenMs && ttl <= 10_000 + 2_000 + seenMs, `${ttl} ms`)
      end('first')
      t.strictSame(await own, { origin: 'own', value: { text: 'first' } })
    }
  },
)

t.test('a result is kept for its lifetime, for all replicas', needsRedis, async (t) => {
  for (const mode of ['share', 'once'] as const) {
    const { first, second, client, optionsOf } = await setUp(t)
    const keep = optionsOf({ mode, lifetimeMs: () => 59_999.5 })
    t.strictSame(await first.run('key', work('first'), keep), { origin: 'own', value: { text: 'first' } })
    t.match(await client.get('key'), /^S/)
    const { ttlMs = 0, ...result } = await second.run('key', notCalled, keep)
    t.strictSame(result, { origin: 'stored', value: { text: 'first' } })
    t.ok(ttlMs > 50_000 && ttlMs <= 60_000, `${ttlMs} ms`)
  }
})

t.test('a kept result is replaced only if a request does not accept it', needsRedis, async (t) => {
  for (const mode of ['share', 'once'] as const) {
    const { first, second, optionsOf } = await setUp(t)
    const keep = optionsOf({ mode, lifetimeMs: () => 60_000 })
    await first.run('key', work('first'), keep)
    const byAWrongClock = optionsOf({ mode, lifetimeMs: () => 0 })
    t.match(await second.run('key', notCalled, byAWrongClock), { origin: 'stored', value: { text: 'first' } })
    const notAccepted = optionsOf({
      mode,
      lifetimeMs: () => 60_000,
      accepts: ({ text }) => text !== 'first',
    })
    t.match(await second.run('key', work('second'), notAccepted), {
      origin: 'own',
      value: { text: 'second' },
    })
    t.match(await first.run('key', notCalled, keep), { origin: 'stored', value: { text: 'second' } })
  }
})

t.test('what a lease replaced is there again when nothing was done under it', needsRedis, async (t) => {
  for (const error of [new Abandoned(), new Problem('provider-unavailable')]) {
    const { first, second, optionsOf, leased, look, resultOf } = await setUp(t)
    const keep = optionsOf({ lifetimeMs: () => 60_000 })
    await first.run('key', work('unknown'), keep)
    const newDecision = optionsOf({ lifetimeMs: () => 60_000, accepts: ({ text }) => text !== 'unknown' })
    const { work: slowWork, fail } = controlledWork()
    const own = t.rejects(first.run('key', slowWork, newDecision), error)
    await leased()
    const waiting = second.run('key', work('second'), newDecision)
    await look(2)
    fail(error)
    await own
    t.match(await first.run('key', notCalled, keep), { value: { text: 'unknown' } })
    t.match(
      await resultOf(waiting),
      { value: { text: 'second' } },
      'it does not share what it does not accept',
    )
  }
})

t.test(
  'a lost lease is there again when nothing was done under the one that replaced it',
  needsRedis,
  async (t) => {
    const { first, client, optionsOf } = await setUp(t)
    await client.set('key', 'Llost', 'PX', 4_000)
    const abandoned = async () => {
      throw new Abandoned()
    }
    const newDecision = optionsOf({ accepts: () => false })
    await t.rejects(first.run('key', abandoned, newDecision), { name: 'Abandoned' })
    t.equal(await client.get('key'), 'Llost')
    const leftMs = await client.pttl('key')
    t.ok(leftMs > 0 && leftMs <= 4_000, `${leftMs} ms`)
  },
)

t.test(
  'a result that is not kept is there for replicas that wait, and for no later request',
  needsRedis,
  async (t) => {
    const { first, second, client, optionsOf, leased, look, resultOf } = await setUp(t)
    const { work: slowWork, end } = controlledWork()
    const own = first.run('key', slowWork, optionsOf())
    await leased()
    const waiting = second.run('key', notCalled, optionsOf())
    await look(2)
    end('first')
    await own
    t.match(await client.get('key'), /^E/)
    const ttl = await client.pttl('key')
    t.ok(ttl > 1_000 && ttl <= 2_000, `${ttl} ms`)
    t.strictSame(await resultOf(waiting), { origin: 'shared', value: { text: 'first' } })
    t.match(await second.run('key', work('second'), optionsOf()), {
      origin: 'own',
      value: { text: 'second' },
    })
  },
)

t.test('a request that may be made once is refused while it is in flight', needsRedis, async (t) => {
  const { first, second, client, optionsOf, leased } = await setUp(t)
  const { work, end } = controlledWork()
  const once = optionsOf({ mode: 'once' })
  const own = first.run('key', work, once)
  await leased()
  const conflict = { code: 'idempotency-conflict', options: { retryAfterSeconds: 12 } }
  await t.rejects(second.run('key', notCalled, once), conflict, 'what is left of the lease, rounded up')
  await client.pexpire('key', hour + 300)
  await t.rejects(second.run('key', notCalled, once), { ...conflict, options: { retryAfterSeconds: 1 } })
  end('first')
  await own
})

t.test('a problem in one replica is one for those that wait for it', needsRedis, async (t) => {
  for (const retryAfterSeconds of [7, undefined]) {
    const { first, second, optionsOf, leased, look, resultOf } = await setUp(t)
    const { work, fail } = controlledWork()
    const problem = new Problem('provider-rate-limited', {
      diagnosis: { upstreamStatus: 429 },
      ...(retryAfterSeconds && { retryAfterSeconds }),
    })
    const own = t.rejects(first.run('key', work, optionsOf()), problem)
    await leased()
    const waiting = second.run('key', notCalled, optionsOf()).catch((error) => error)
    await look(2)
    fail(problem)
    await own
    const error = await resultOf(waiting)
    t.equal(error.code, 'provider-rate-limited')
    t.strictSame(error.options, {
      ...(retryAfterSeconds && { retryAfterSeconds }),
      diagnosis: { reason: 'shared-result' },
    })
  }
})

t.test('a fault of ours in one replica is one for those that wait for it', needsRedis, async (t) => {
  const { first, second, optionsOf, leased, look, resultOf } = await setUp(t)
  const { work, fail } = controlledWork()
  const own = t.rejects(first.run('key', work, optionsOf()), { name: 'TypeError' })
  await leased()
  const waiting = second.run('key', notCalled, optionsOf()).catch((error) => error)
  await look(2)
  fail(new TypeError('canary'))
  await own
  t.match(await resultOf(waiting), {
    name: 'Problem',
    code: 'internal-error',
    options: { diagnosis: { reason: 'shared-result' } },
  })
})

t.test('work that is given up goes to a replica that still waits for it', needsRedis, async (t) => {
  const { first, second, optionsOf, leased, look, resultOf } = await setUp(t)
  const { work: slowWork, fail } = controlledWork()
  const own = t.rejects(first.run('key', slowWork, optionsOf()), { name: 'Abandoned' })
  await leased()
  const waiting = second.run('key', work('second'), optionsOf())
  await look(2)
  fail(new Abandoned())
  await own
  t.strictSame(await resultOf(waiting), { origin: 'own', value: { text: 'second' } })
})

t.test('a replica stops waiting when its own clients have gone', needsRedis, async (t) => {
  const { first, second, optionsOf, leased, look, resultOf } = await setUp(t)
  const { work, end } = controlledWork()
  const own = first.run('key', work, optionsOf())
  await leased()
  let hasLeft = false
  const waiting = second.run('key', notCalled, optionsOf({ isAbandoned: () => hasLeft }))
  await look(2)
  hasLeft = true
  await t.rejects(resultOf(waiting), { name: 'Abandoned' })
  end('first')
  t.match(await own, { value: { text: 'first' } })
})

t.test('a replica waits until the deadline of its request, and not longer', needsRedis, async (t) => {
  const { second, client, optionsOf, look, resultOf, nextTimerMs, clock } = await setUp(t)
  await client.set('key', 'Lfirst', 'PX', 60_000)
  const begin = clock.monotonicNow()
  const waiting = second.run('key', notCalled, optionsOf({ deadlineMs: begin + 120 }))
  await look(2)
  await until(() => nextTimerMs() <= 50, 'the replica to wait for the last time')
  t.equal(nextTimerMs(), 20)
  t.strictSame(await resultOf(waiting), { origin: 'shared', value: { text: 'late' } })
  t.equal(clock.monotonicNow() - begin, 120)
  const late = second.run('key', notCalled, optionsOf({ deadlineMs: clock.monotonicNow() - 5 }))
  t.strictSame(await resultOf(late), { origin: 'shared', value: { text: 'late' } }, 'too late from the start')
  t.equal(clock.monotonicNow() - begin, 120, 'then it does not wait')
})

t.test('when a lease ends while a replica waits, its owner is lost', needsRedis, async (t) => {
  const { second, client, optionsOf, resultOf, clock } = await setUp(t)
  await client.set('key', 'Lfirst', 'PX', 5_000 + 1_000)
  const begin = clock.monotonicNow()
  const waiting = second.run('key', notCalled, optionsOf())
  t.strictSame(await resultOf(waiting), { origin: 'shared', value: { text: 'owner-lost' } })
  const waitedMs = clock.monotonicNow() - begin
  t.ok(waitedMs > 500 && waitedMs <= 1_050, `after ${waitedMs} ms`)
})

t.test('a replica that waits follows a lease that changes hands between two looks', needsRedis, async (t) => {
  const { second, client, optionsOf, look, resultOf, clock } = await setUp(t)
  await client.set('key', 'Lfirst', 'PX', 5_000 + 500)
  const begin = clock.monotonicNow()
  const waiting = second.run('key', notCalled, optionsOf({ deadlineMs: begin + 2_000 }))
  await look(2)
  await client.set('key', 'Lthird', 'PX', 60_000)
  t.strictSame(await resultOf(waiting), { origin: 'shared', value: { text: 'late' } })
  t.equal(clock.monotonicNow() - begin, 2_000, 'the end of the first lease is no longer the end')
})

t.test(
  'when Redis goes down after that, the end of the first lease says nothing either',
  needsRedis,
  async (t) => {
    const { second, client, optionsOf, look, resultOf, clock } = await setUp(t)
    await client.set('key', 'Lfirst', 'PX', 5_000 + 500)
    const begin = clock.monotonicNow()
    const waiting = second.run('key', notCalled, optionsOf({ deadlineMs: begin + 2_000 }))
    await look(2)
    await client.set('key', 'Lthird', 'PX', 60_000)
    await look(2)
    second.redis.close()
    t.strictSame(await resultOf(waiting), { origin: 'shared', value: { text: 'late' } })
    t.equal(clock.monotonicNow() - begin, 2_000)
  },
)

t.test('a lease that vanishes with its Redis leaves the result unknown', needsRedis, async (t) => {
  const { second, client, optionsOf, look, resultOf } = await setUp(t)
  await client.set('key', 'Lfirst', 'PX', 60_000)
  const waiting = second.run('key', notCalled, optionsOf())
  await look(2)
  await client.del('key')
  t.strictSame(await resultOf(waiting), { origin: 'shared', value: { text: 'owner-lost' } })
})

t.test('an outcome that a waiting replica cannot read leaves the result unknown', needsRedis, async (t) => {
  const { first, replica, optionsOf, leased, look, resultOf } = await setUp(t)
  const { work, end } = controlledWork()
  const own = first.run('key', work, optionsOf())
  await leased()
  const other = await replica({ key: otherKey })
  const waiting = other.run('key', notCalled, optionsOf())
  await look(2)
  end('first')
  await own
  t.strictSame(await resultOf(waiting), { origin: 'shared', value: { text: 'owner-lost' } })
})

t.test('while Redis is down a waiting replica waits on, until the lease ends', needsRedis, async (t) => {
  const { second, client, optionsOf, look, resultOf, clock } = await setUp(t)
  await client.set('key', 'Lfirst', 'PX', 5_000 + 1_000)
  const begin = clock.monotonicNow()
  const waiting = second.run('key', notCalled, optionsOf())
  await look(2)
  second.redis.close()
  t.strictSame(await resultOf(waiting), { origin: 'shared', value: { text: 'owner-lost' } })
  const waitedMs = clock.monotonicNow() - begin
  t.ok(waitedMs > 500 && waitedMs <= 1_050, `after ${waitedMs} ms`)
})

t.test('a lease whose owner was lost before is no reason to wait', needsRedis, async (t) => {
  const { first, second, client, optionsOf } = await setUp(t)
  const lost = { origin: 'stored', value: { text: 'owner-lost' } }
  await client.set('key', 'Lfirst', 'PX', 4_900)
  const { ttlMs = 0, ...result } = await second.run('key', notCalled, optionsOf())
  t.strictSame(result, lost)
  t.ok(ttlMs > 4_000 && ttlMs <= 4_900, `${ttlMs} ms`)
  const notAccepted = optionsOf({ accepts: () => false })
  t.match(
    await second.run('key', work('second'), notAccepted),
    { origin: 'own' },
    'a new decision of the user',
  )
  await client.set('key', 'Lfirst', 'PX', hour - 100)
  for (const accepts of [() => true, () => false]) {
    t.match(await first.run('key', notCalled, optionsOf({ mode: 'once', accepts })), lost)
  }
})

t.test(
  'an unreadable value under a key that allows one call counts as a done call',
  needsRedis,
  async (t) => {
    const { first, replica, optionsOf } = await setUp(t)
    const keep = optionsOf({ mode: 'once', lifetimeMs: () => 60_000 })
    await first.run('key', work('first'), keep)
    const other = await replica({ key: otherKey })
    for (const accepts of [() => true, () => false]) {
      t.match(await other.run('key', notCalled, { ...keep, accepts }), {
        origin: 'stored',
        value: { text: 'owner-lost' },
      })
    }
    t.match(await other.run('key', work('other'), optionsOf()), { origin: 'own' }, 'else it is replaced')
  },
)

t.test('a stored failure is not taken for a result', needsRedis, async (t) => {
  const { first, client, optionsOf } = await setUp(t)
  const sealed = first.cipher.encrypt(JSON.stringify({ failure: { code: 'overloaded' } }), 'key')
  await client.set('key', `S${sealed}`, 'PX', 60_000)
  t.match(await first.run('key', work('first'), optionsOf()), { origin: 'own' })
})

t.test('a replica never replaces the lease of another one', needsRedis, async (t) => {
  const { first, client, optionsOf, leased } = await setUp(t)
  const { work, end } = controlledWork()
  const own = first.run('key', work, optionsOf({ lifetimeMs: () => 60_000 }))
  await leased()
  await client.set('key', 'Lother', 'PX', 60_000)
  end('first')
  t.match(await own, { origin: 'own' })
  t.equal(await client.get('key'), 'Lother')
})

t.test('a result is kept although its lease has vanished', needsRedis, async (t) => {
  const { first, client, optionsOf, leased } = await setUp(t)
  const { work, end } = controlledWork()
  const own = first.run('key', work, optionsOf({ lifetimeMs: () => 60_000 }))
  await leased()
  await client.del('key')
  end('first')
  await own
  t.match(await client.get('key'), /^S/)
})

t.test('without Redis a replica works alone, unless that is forbidden', needsRedis, async (t) => {
  const { first, client, optionsOf } = await setUp(t)
  first.redis.close()
  const { work, end } = controlledWork()
  await t.rejects(first.redis.run(() => first.redis.client.ping()))
  t.equal(first.redis.isUp(), false)
  end('alone')
  t.strictSame(await first.run('key', work, optionsOf()), { origin: 'own', value: { text: 'alone' } })
  await t.rejects(first.run('key', notCalled, optionsOf({ mayRunAlone: false })), {
    code: 'state-unavailable',
    cause: { name: 'RedisUnavailable' },
  })
  t.equal(await client.exists('key'), 0)
})

t.test('a replica that could not ask Redis has nothing to give back', needsRedis, async (t) => {
  const { first, optionsOf } = await setUp(t)
  first.redis.close()
  await t.rejects(first.redis.run(() => first.redis.client.ping()))
  await t.rejects(first.run('key', notCalled, optionsOf({ mayRunAlone: false })), {
    code: 'state-unavailable',
  })
  await inTime(first.settled(), 'the replica to be done')
})

t.test('a result that Redis could not take is written when it is back', needsRedis, async (t) => {
  const { first, second, client, optionsOf, leased, passUntil } = await setUp(t, () => startRedis(t))
  const keep = optionsOf({ lifetimeMs: () => 60_000 })
  const { work, end } = controlledWork()
  const own = first.run('key', work, keep)
  await leased()
  await client.config('SET', 'maxmemory', '1')
  end('first')
  t.match(await own, { origin: 'own' }, 'no one waits for that')
  await client.config('SET', 'maxmemory', '0')
  await passUntil(async () => (await client.get('key'))?.startsWith('S') === true, 'the result in Redis')
  t.match(await second.run('key', notCalled, keep), { origin: 'stored', value: { text: 'first' } })
  await inTime(first.settled(), 'the replica to be done')
})

t.test('a result that Redis does not take until the lease ends is given up', needsRedis, async (t) => {
  // It tries again after 100, 200, 400, ... ms. After 3,200 ms the next wait would be longer than the lease.
  for (const [passedMs, isGivenUp] of [
    [6_299, false],
    [6_300, true],
  ] as const) {
    const { first, optionsOf, leased, pass, clock } = await setUp(t)
    const { work, end } = controlledWork()
    const deadlineMs = clock.monotonicNow() + 5_000
    const own = first.run('key', work, optionsOf({ deadlineMs, lifetimeMs: () => 60_000 }))
    await leased()
    first.redis.close()
    await t.rejects(first.redis.run(() => first.redis.client.ping()))
    end('first')
    t.match(await own, { origin: 'own' })
    await pass(passedMs)
    let isSettled = false
    const settled = first.settled().then(() => {
      isSettled = true
    })
    await pass(0)
    t.equal(isSettled, isGivenUp)
    await pass(1_000)
    await settled
  }
})

t.test(
  'a replica that closes waits a second for results that Redis could not take',
  needsRedis,
  async (t) => {
    const { first, optionsOf, leased, pass } = await setUp(t)
    const { work, end } = controlledWork()
    const own = first.run('key', work, optionsOf({ lifetimeMs: () => 60_000 }))
    await leased()
    first.redis.close()
    await t.rejects(first.redis.run(() => first.redis.client.ping()))
    end('first')
    await own
    // The next try is more than a second away.
    await pass(1_500)
    let isSettled = false
    const settled = first.settled().then(() => {
      isSettled = true
    })
    await pass(999)
    t.equal(isSettled, false)
    await pass(1)
    await settled
  },
)

t.test('a replica that closes does not try again and again', needsRedis, async (t) => {
  const { first, optionsOf, leased, pass, nextTimerMs } = await setUp(t)
  const { work, end } = controlledWork()
  const own = first.run('key', work, optionsOf({ lifetimeMs: () => 60_000 }))
  await leased()
  first.redis.close()
  await t.rejects(first.redis.run(() => first.redis.client.ping()))
  end('first')
  await own
  const settled = first.settled()
  t.equal(nextTimerMs(), 100)
  await pass(100)
  await inTime(settled, 'the replica to close')
})

t.test('a lease that was written too late is given back', needsRedis, async (t) => {
  const { replica, server, client, optionsOf, pass, passUntil } = await setUp(t, () => startRedis(t))
  const impatient = await replica({ commandTimeoutMs: 50 })
  const once = optionsOf({ mode: 'once', mayRunAlone: false, lifetimeMs: () => 60_000 })
  server.freeze()
  const refused = t.rejects(impatient.run('key', work('sent'), once), { code: 'state-unavailable' })
  await pass(50)
  await refused
  server.thaw()
  await passUntil(
    async () => (await client.get('key'))?.startsWith('E') === true,
    'the lease to be replaced by a free key',
  )
  t.match(
    await impatient.run('key', work('sent'), once),
    { origin: 'own' },
    'the key is free: nothing was sent under it',
  )
})

t.test('a replica that waits for such a lease takes it over', needsRedis, async (t) => {
  const { replica, second, server, optionsOf, leased, look, pass, passUntil, client } = await setUp(t, () =>
    startRedis(t),
  )
  const impatient = await replica({ commandTimeoutMs: 50 })
  server.freeze()
  const refused = t.rejects(impatient.run('key', notCalled, optionsOf({ mayRunAlone: false })), {
    code: 'state-unavailable',
  })
  await pass(50)
  await refused
  server.thaw()
  await leased()
  const waiting = second.run('key', work('second'), optionsOf({ lifetimeMs: () => 60_000 }))
  await look()
  await passUntil(
    async () => (await client.get('key'))?.startsWith('S') === true,
    'the result of the second one',
  )
  t.strictSame(await waiting, { origin: 'own', value: { text: 'second' } })
})
