import { Redis } from 'ioredis'
import t from 'tap'
import type { Flight } from '../../src/services/flights.js'
import { createRedisFlights } from '../../src/services/redis-flights.js'
import { createSharedRedis } from '../../src/services/shared-redis.js'
import { createStateCipher } from '../../src/services/state-cipher.js'
import { until } from '../helper.js'
import { needsRedis, startRedis } from '../redis-server.js'

t.test('a fault of ours in one replica is one for those that wait for it', needsRedis, async (t) => {
  const { env } = await startRedis(t)
  const cipher = createStateCipher([env.STATE_ENCRYPTION_KEY])
  const monotonicNow = () => performance.now()
  const [first, second] = await Promise.all(
    [1, 2].map(async () => {
      const redis = new Redis(env.REDIS_URL, { lazyConnect: true })
      const shared = createSharedRedis({ redis, commandTimeoutMs: 1_000, onChange: () => {} })
      await shared.connect()
      t.teardown(() => shared.close())
      return { redis, flights: createRedisFlights<object>({ shared, cipher: () => cipher, monotonicNow }) }
    }),
  )
  if (!first || !second) throw new Error('two of them')
  const flight: Flight<object> = {
    kind: 'join',
    lifetimeMs: () => 0,
    accepts: () => true,
    deadline: monotonicNow() + 10_000,
    isAbandoned: () => false,
    mayRunAlone: true,
    unknown: () => ({}),
  }
  let fail = (_error: Error) => {}
  const failing = new Promise<object>((_resolve, reject) => {
    fail = reject
  })
  const own = t.rejects(
    first.flights.run('key', () => failing, flight),
    { name: 'TypeError' },
  )
  await until(async () => (await first.redis.exists('key')) === 1)
  const joined = t.rejects(
    second.flights.run('key', async () => ({}), flight),
    { name: 'Problem', code: 'internal-error', options: { diagnosis: { reason: 'shared-result' } } },
  )
  const looks = async () =>
    Number(/cmdstat_get:calls=(\d+)/.exec(await first.redis.info('commandstats'))?.[1] ?? 0)
  const before = await looks()
  await until(async () => (await looks()) > before + 1)
  fail(new TypeError('canary'))
  await Promise.all([own, joined])
})
