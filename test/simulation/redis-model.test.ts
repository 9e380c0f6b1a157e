import fc from 'fast-check'
import type { Redis } from 'ioredis'
import t from 'tap'
import { claimScript, publishScript } from '../../src/services/single-flight/redis.js'
import { probeDigest, probeScript } from '../../src/services/single-flight/redis-connection.js'
import { until } from '../helper.js'
import { connectRedis, needsRedis, startRedis } from '../redis-server.js'
import { createRedisModel, type RedisModel } from './redis-model.js'

const numRuns = Number(process.env.FUZZ_RUNS ?? 100)
/** Time limits of the real Redis go on while the test runs. */
const maxElapsedMs = 60_000

const key = fc.constantFrom('onboarding-bff:a', 'onboarding-bff:b')
const owner = fc.constantFrom('one', 'two')
const value = fc.constantFrom('Lone', 'Ltwo', 'Estate', 'Sstate', '7', '')
const lifetimeMs = fc.constantFrom('100000', '200000', '0', '-1', 'x', '01', '1.5', '')

const command = fc.oneof(
  fc.record({ name: fc.constantFrom('get', 'pttl', 'incr'), args: fc.tuple(key) }),
  fc.record({ name: fc.constant('set'), args: fc.tuple(key, value) }),
  fc.record({ name: fc.constant('set'), args: fc.tuple(key, value, fc.constant('PX'), lifetimeMs) }),
  fc.record({ name: fc.constant('pexpire'), args: fc.tuple(key, lifetimeMs) }),
  fc.record({
    name: fc.constant('eval'),
    args: fc.tuple(fc.constant(claimScript), fc.constant('1'), key, owner, lifetimeMs, value),
  }),
  fc.record({
    name: fc.constant('eval'),
    args: fc.tuple(fc.constant(publishScript), fc.constant('1'), key, owner, value, lifetimeMs),
  }),
  fc.record({ name: fc.constant('eval'), args: fc.tuple(fc.constant(probeScript), fc.constant('1'), key) }),
  fc.record({
    name: fc.constant('evalsha'),
    args: fc.tuple(fc.constant(probeDigest), fc.constant('1'), key),
  }),
)
/** What happens to the server. */
const event = fc.record({
  name: fc.constantFrom('expire', 'fill', 'make-read-only', 'recover'),
  args: fc.tuple(key),
})

/** A reply as both must give it: errors by their code and command, remaining times without what has passed. */
async function replyOf(run: () => unknown): Promise<unknown> {
  try {
    return rounded(await run())
  } catch (error) {
    const { message, command } = error as Error & { command?: { name: string } }
    return { error: message.split(' ')[0], command: command?.name }
  }
}

function rounded(reply: unknown): unknown {
  if (Array.isArray(reply)) return reply.map(rounded)
  if (typeof reply !== 'number' || reply < maxElapsedMs) return reply
  return Math.ceil(reply / 100_000) * 100_000
}

async function happen(redis: Redis, model: RedisModel, name: string, target: string): Promise<void> {
  switch (name) {
    case 'fill':
      await redis.config('SET', 'maxmemory', '1')
      model.setFull(true)
      break
    case 'make-read-only':
      await redis.replicaof('127.0.0.1', 1)
      model.setReadOnly(true)
      break
    case 'recover':
      await recover(redis, model)
      break
    default:
      await recover(redis, model)
      await redis.pexpire(target, 1)
      model.execute('pexpire', [target, 1])
      await until(async () => (await redis.exists(target)) === 0, 'a key to expire')
  }
}

async function recover(redis: Redis, model: RedisModel): Promise<void> {
  await redis.config('SET', 'maxmemory', '0')
  await redis.replicaof('NO', 'ONE')
  model.setFull(false)
  model.setReadOnly(false)
}

t.test('the model of Redis replies as a real one', needsRedis, async (t) => {
  const server = await startRedis(t)
  const redis = connectRedis(t, server.env.REDIS_URL)
  const steps = fc.array(fc.oneof({ weight: 6, arbitrary: command }, { weight: 1, arbitrary: event }), {
    minLength: 10,
    maxLength: 30,
    size: 'max',
  })
  let commands = 0
  await fc.assert(
    fc.asyncProperty(steps, async (all) => {
      await redis.replicaof('NO', 'ONE')
      await redis.config('SET', 'maxmemory', '0')
      await redis.flushall()
      await redis.script('FLUSH')
      let nowMs = 0
      const model = createRedisModel({ now: () => nowMs })
      for (const { name, args } of all) {
        // Longer than the shortest lifetime, so that a key expires in the model too.
        nowMs += 2
        if (['expire', 'fill', 'make-read-only', 'recover'].includes(name)) {
          await happen(redis, model, name, args[0])
          continue
        }
        commands += 1
        const real = await replyOf(() => redis.call(name, ...args))
        const modelled = await replyOf(() => model.execute(name, args))
        t.strictSame(modelled, real, `${name} ${args.join(' ').slice(-60)}`)
        if (!t.passing()) throw new Error('the replies differ')
      }
    }),
    { numRuns },
  )
  t.ok(commands > numRuns, `${commands} commands`)
})
