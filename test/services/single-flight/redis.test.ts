import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { systemClock } from '../../../src/clock.js'
import { Abandoned } from '../../../src/problems/abandoned.js'
import { createStateCipher } from '../../../src/services/single-flight/encryption.js'
import { createRedisSingleFlight } from '../../../src/services/single-flight/redis.js'
import { createRedisConnection } from '../../../src/services/single-flight/redis-connection.js'
import type { RunOptions } from '../../../src/services/single-flight/single-flight.js'
import { connectRedis, needsRedis, startRedis, stateKey } from '../../redis-server.js'
import { until } from '../../waiting.js'

interface Result {
  readonly text: string
}

const { monotonicNow } = systemClock

/** What a request wants, but for what is overridden. */
const optionsOf = (overrides: Partial<RunOptions<Result>> = {}): RunOptions<Result> => ({
  mode: 'share',
  lifetimeMs: () => 0,
  accepts: () => true,
  deadlineMs: monotonicNow() + 10_000,
  isAbandoned: () => false,
  mayRunAlone: true,
  unknownResult: (reason) => ({ text: reason }),
  ...overrides,
})

/** Two replicas with one Redis, and a client to look into it. */
async function setUp(t: Test) {
  const server = await startRedis(t)
  const replica = async (key = stateKey, commandTimeoutMs = 1_000) => {
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
      clock: systemClock,
    })
    await redis.connect()
    t.teardown(() => redis.close())
    return createRedisSingleFlight<Result>({ redis, cipher: () => cipher, clock: systemClock })
  }
  const client = connectRedis(t, server.env.REDIS_URL)
  const looks = async () =>
    Number(/cmdstat_get:calls=(\d+)/.exec(await client.info('commandstats'))?.[1] ?? 0)
  return {
    server,
    first: await replica(),
    second: await replica(),
    replica,
    client,
    /** Resolves when a waiting replica has looked at the key again, twice. */
    looked: async () => {
      const before = await looks()
      await until(async () => (await looks()) > before + 1, 'the waiting replica to read the key twice')
    },
  }
}

/** Work that the test ends. */
function controlledWork() {
  let end = (_result: Result) => {}
  let fail = (_error: unknown) => {}
  const result = new Promise<Result>((resolve, reject) => {
    end = resolve
    fail = reject
  })
  return { work: () => result, end: (text: string) => end({ text }), fail: (error: unknown) => fail(error) }
}

t.test('a fault of ours in one replica is one for those that wait for it', needsRedis, async (t) => {
  const { first, second, client, looked } = await setUp(t)
  const { work, fail } = controlledWork()
  const own = t.rejects(first.run('key', work, optionsOf()), { name: 'TypeError' })
  await until(async () => (await client.exists('key')) === 1, 'the first replica to take the lease')
  const shared = t.rejects(
    second.run('key', async () => ({ text: 'second' }), optionsOf()),
    { name: 'Problem', code: 'internal-error', options: { diagnosis: { reason: 'shared-result' } } },
  )
  await looked()
  fail(new TypeError('canary'))
  await Promise.all([own, shared])
})

t.test('work that is given up goes to a replica that still waits for it', needsRedis, async (t) => {
  const { first, second, client, looked } = await setUp(t)
  const { work, fail } = controlledWork()
  const own = t.rejects(first.run('key', work, optionsOf()), { name: 'Abandoned' })
  await until(async () => (await client.exists('key')) === 1, 'the first replica to take the lease')
  const shared = second.run('key', async () => ({ text: 'second' }), optionsOf())
  await looked()
  fail(new Abandoned())
  await own
  t.strictSame(await shared, { origin: 'own', value: { text: 'second' } })
})

t.test('a replica stops waiting when its own clients have gone', needsRedis, async (t) => {
  const { first, second, client, looked } = await setUp(t)
  const { work, end } = controlledWork()
  const own = first.run('key', work, optionsOf())
  await until(async () => (await client.exists('key')) === 1, 'the first replica to take the lease')
  let hasLeft = false
  const shared = t.rejects(
    second.run('key', async () => ({ text: 'second' }), optionsOf({ isAbandoned: () => hasLeft })),
    { name: 'Abandoned' },
  )
  await looked()
  hasLeft = true
  await shared
  end('first')
  t.match(await own, { value: { text: 'first' } })
})

t.test('a replica that waits follows a lease that changes hands between two looks', needsRedis, async (t) => {
  const { second, client, looked } = await setUp(t)
  await client.set('key', 'Lfirst', 'PX', 60_000)
  const shared = second.run(
    'key',
    async () => ({ text: 'second' }),
    optionsOf({ deadlineMs: monotonicNow() + 500 }),
  )
  await looked()
  await client.set('key', 'Lthird', 'PX', 60_000)
  t.strictSame(await shared, { origin: 'shared', value: { text: 'late' } })
})

t.test('a lease that vanishes with its Redis leaves the result unknown', needsRedis, async (t) => {
  const { second, client, looked } = await setUp(t)
  await client.set('key', 'Lfirst', 'PX', 60_000)
  const shared = second.run('key', async () => ({ text: 'second' }), optionsOf())
  await looked()
  await client.del('key')
  t.strictSame(await shared, { origin: 'shared', value: { text: 'owner-lost' } })
})

t.test(
  'an unreadable value under a key that allows one call counts as a done call',
  needsRedis,
  async (t) => {
    const { first, replica } = await setUp(t)
    const keep = optionsOf({ mode: 'once', lifetimeMs: () => 60_000 })
    await first.run('key', async () => ({ text: 'first' }), keep)
    const other = await replica(Buffer.alloc(32, 'o').toString('base64'))
    t.match(await other.run('key', async () => ({ text: 'other' }), keep), {
      origin: 'stored',
      value: { text: 'owner-lost' },
    })
    t.match(
      await other.run('key', async () => ({ text: 'other' }), optionsOf()),
      { origin: 'own' },
      'else it is replaced',
    )
  },
)

t.test('a result that Redis could not take is written when it is back', needsRedis, async (t) => {
  const { first, second, client } = await setUp(t)
  const keep = optionsOf({ lifetimeMs: () => 60_000 })
  const { work, end } = controlledWork()
  const own = first.run('key', work, keep)
  await until(async () => (await client.exists('key')) === 1, 'the first replica to take the lease')
  await client.config('SET', 'maxmemory', '1')
  end('first')
  t.match(await own, { origin: 'own' }, 'no one waits for that')
  await client.config('SET', 'maxmemory', '0')
  await until(async () => (await client.get('key'))?.startsWith('S') === true, 'the result in Redis')
  t.match(await second.run('key', async () => ({ text: 'second' }), keep), {
    origin: 'stored',
    value: { text: 'first' },
  })
})

t.test('a replica that closes does not wait for a Redis that is gone', needsRedis, async (t) => {
  const { first, server } = await setUp(t)
  const { work, end } = controlledWork()
  const own = first.run('key', work, optionsOf())
  await server.stop()
  end('first')
  await own
  await first.settled()
})

t.test('a lease that was written too late is given back', needsRedis, async (t) => {
  const { replica, server, client } = await setUp(t)
  const impatient = await replica(stateKey, 50)
  const once = optionsOf({ mode: 'once', mayRunAlone: false, lifetimeMs: () => 60_000 })
  server.freeze()
  await t.rejects(
    impatient.run('key', async () => ({ text: 'sent' }), once),
    { code: 'state-unavailable' },
  )
  server.thaw()
  await until(
    async () => (await client.get('key'))?.startsWith('E') === true,
    'the lease to be replaced by a free key',
  )
  let result: unknown
  await until(async () => {
    result = await impatient.run('key', async () => ({ text: 'sent' }), once).catch(() => undefined)
    return result !== undefined
  }, 'the replica to use Redis again')
  t.match(result, { origin: 'own' }, 'the key is free: nothing was sent under it')
})
