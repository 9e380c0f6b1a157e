import { createHash } from 'node:crypto'
import t from 'tap'
import { createRedisConnection } from '../../../src/services/single-flight/redis-connection.js'
import type { RedisFailure } from '../../../src/services/single-flight/redis-failure.js'
import { ScriptedRedis } from '../../scripted-redis.js'
import { createVirtualClock } from '../../virtual-clock.js'

const reply = (message: string, name = 'get') =>
  Object.assign(new Error(message), { name: 'ReplyError', command: { name, args: [] } })
const broken = (code: string) => Object.assign(new Error('lost'), { code })
const never = new Promise<never>(() => {})

function setUp({ credentials = [] as string[], database = 0 } = {}) {
  const virtual = createVirtualClock()
  const redis = new ScriptedRedis()
  /** What was reported, in its order: `up`, or the cause why not. */
  const changes: string[] = []
  const failures: string[] = []
  const immediates: (() => void)[] = []
  const describe = ({ cause, code }: RedisFailure) => `${cause} ${code}`
  const connection = createRedisConnection({
    redis: redis.client,
    credentials,
    database,
    commandTimeoutMs: 500,
    onChange: (isUp, failure) => changes.push(isUp ? 'up' : failure ? describe(failure) : 'down'),
    onFailure: (failure) => failures.push(describe(failure)),
    clock: { ...virtual.clock, setImmediate: (callback) => immediates.push(callback) },
  })
  const { pass } = virtual
  const checks = () => redis.commands.filter((command) => command === 'incr onboarding-bff:probe').length
  return {
    ...virtual,
    redis,
    connection,
    changes,
    failures,
    checks,
    /** Runs what waits for the next turn of the event loop. */
    turn: async () => {
      for (const callback of immediates.splice(0)) callback()
      await pass(0)
    },
    /** Connects to a Redis that is well. */
    connect: async () => {
      const connected = connection.connect()
      redis.open()
      await connected
    },
    /** Makes one command fail. */
    failCommand: async (error: Error = broken('ECONNRESET')) => {
      await connection.run(() => Promise.reject(error)).catch(() => {})
    },
  }
}

t.test('Redis is up when every command in use has succeeded', async (t) => {
  const { redis, connection, connect, changes, failures } = setUp()
  t.equal(connection.isUp(), false)
  await connect()
  t.equal(connection.isUp(), true)
  t.strictSame([changes, failures], [['up'], []])
  const script = `return redis.call('GET', KEYS[1])`
  const digest = createHash('sha1').update(script).digest('hex')
  const commandsOn = (key: string) => [
    `incr ${key}`,
    `set ${key} 1 PX 1000`,
    `get ${key}`,
    `pttl ${key}`,
    `eval ${script} 1 ${key}`,
    `evalsha ${digest} 1 ${key}`,
    `pexpire ${key} 1`,
  ]
  t.strictSame(redis.commands, [
    ...commandsOn('onboarding-bff:probe'),
    ...commandsOn('onboarding-bff:rate:probe'),
    ...Array.from({ length: 8 }, (_, index) => `pttl onboarding-bff:probe-${index}`),
  ])
})

t.test('password and database come first, once for each connection', async (t) => {
  const { redis, connect, pass, failCommand, connection } = setUp({
    credentials: ['user', 'password'],
    database: 3,
  })
  await connect()
  t.strictSame(redis.commands.slice(0, 3), ['AUTH user password', 'SELECT 3', 'incr onboarding-bff:probe'])
  redis.commands.length = 0
  await pass(2_000)
  t.equal(redis.commands[0], 'incr onboarding-bff:probe', 'not for a check while it is up')
  redis.commands.length = 0
  await failCommand()
  await pass(100)
  t.strictSame(redis.commands.slice(0, 2), ['AUTH user password', 'SELECT 3'])
  t.equal(connection.isUp(), true)
})

t.test('nothing is sent after a password or a database that Redis refuses', async (t) => {
  for (const [refused, cause, sent] of [
    ['AUTH', 'authentication', 1],
    ['SELECT', 'database', 2],
  ] as const) {
    const { redis, connection, connect, changes, failures } = setUp({
      credentials: ['password'],
      database: 3,
    })
    redis.respond = (command) => {
      if (command === refused) throw reply('ERR refused', command)
    }
    await connect()
    t.equal(connection.isUp(), false)
    t.equal(redis.commands.length, sent)
    t.strictSame([changes, failures], [[`${cause} ERR`], [`${cause} ERR`]])
  }
})

t.test('after a refusal a new connection is made, and checked after a while', async (t) => {
  const { redis, connection, connect, changes, failures, pass, checks } = setUp()
  redis.respond = (command) => {
    if (command === 'pexpire') throw reply('NOPERM no', 'pexpire')
  }
  await connect()
  t.strictSame(redis.disconnects, [true])
  t.strictSame(failures, ['permission NOPERM'])
  redis.lose()
  t.strictSame(failures, ['permission NOPERM'], 'this service has closed it')
  redis.open()
  redis.respond = () => 'OK'
  await pass(99)
  t.equal(checks(), 1)
  t.equal(connection.isUp(), false)
  await pass(1)
  t.equal(checks(), 2)
  t.equal(connection.isUp(), true)
  t.strictSame(changes, ['permission NOPERM', 'up'])
  redis.lose()
  t.equal(failures.length, 2, 'but this time Redis has')
})

t.test('a check that fails because of the connection leaves it alone', async (t) => {
  const { redis, connect, failures } = setUp()
  redis.respond = () => Promise.reject(broken('EPIPE'))
  await connect()
  t.strictSame(failures, ['closed EPIPE'])
  t.strictSame(redis.disconnects, [])
})

t.test('a first attempt that fails does not keep the service from starting', async (t) => {
  const { redis, connection, changes, failures, pass, checks } = setUp()
  const connected = connection.connect()
  redis.lose(broken('ECONNREFUSED'))
  await connected
  t.equal(connection.isUp(), false)
  redis.lose(broken('ECONNREFUSED'))
  redis.lose(broken('ETIMEDOUT'))
  redis.lose(broken('ECONNREFUSED'))
  t.strictSame(failures, [
    'refused ECONNREFUSED',
    'refused ECONNREFUSED',
    'timeout ETIMEDOUT',
    'refused ECONNREFUSED',
  ])
  t.strictSame(changes, ['refused ECONNREFUSED', 'timeout ETIMEDOUT'], 'each cause once')
  await pass(10_000)
  t.equal(checks(), 0, 'without a connection there is nothing to check')
  redis.open()
  await pass(0)
  t.equal(connection.isUp(), true)
  t.strictSame(changes.slice(2), ['up'])
  redis.lose(broken('ECONNREFUSED'))
  t.strictSame(changes.slice(3), ['refused ECONNREFUSED'], 'once more after it was up')
})

t.test('a connection that stands after failed attempts is checked at once', async (t) => {
  const { redis, connection, pass } = setUp()
  const connected = connection.connect()
  redis.lose(broken('ECONNREFUSED'))
  await connected
  redis.open()
  await pass(0)
  t.equal(connection.isUp(), true)
})

t.test('a connection that ends without an error has the cause "closed"', async (t) => {
  const { redis, connect, failures, pass } = setUp()
  await connect()
  redis.lose()
  redis.lose(broken('ECONNREFUSED'))
  redis.open()
  await pass(100)
  redis.lose()
  t.strictSame(failures, ['closed REDIS_CLOSED', 'refused ECONNREFUSED', 'closed REDIS_CLOSED'])
})

t.test('a command runs while Redis is up', async (t) => {
  const { connection, connect } = setUp()
  let calls = 0
  const command = async () => {
    calls += 1
    return 'reply'
  }
  await t.rejects(connection.run(command), { name: 'RedisUnavailable', message: 'Redis is down' })
  t.equal(calls, 0)
  await connect()
  t.equal(await connection.run(command), 'reply')
  t.equal(calls, 1)
})

t.test('after a command that failed Redis is down until a check succeeds', async (t) => {
  const { connection, connect, pass, changes, failures, checks, redis } = setUp()
  await connect()
  const error = reply('READONLY no', 'set')
  await t.rejects(
    connection.run(() => Promise.reject(error)),
    error,
  )
  t.equal(connection.isUp(), false)
  t.strictSame([changes, failures], [['up', 'read-only READONLY'], ['read-only READONLY']])
  t.strictSame(redis.disconnects, [], 'the connection is kept')
  await pass(99)
  t.equal(checks(), 1)
  await pass(1)
  t.equal(checks(), 2)
  t.equal(connection.isUp(), true)
  t.strictSame(changes, ['up', 'read-only READONLY', 'up'])
})

t.test('commands that fail together count as one failure', async (t) => {
  const { connection, connect, failures, pass, checks } = setUp()
  await connect()
  const commands = ['EPIPE', 'ECONNRESET'].map((code) => connection.run(() => Promise.reject(broken(code))))
  for (const command of commands) await t.rejects(command)
  t.strictSame(failures, ['closed EPIPE'])
  await pass(100)
  t.equal(checks(), 2, 'and the next check is not later for that')
})

t.test('a command that is late fails, unless its reply has arrived and was only not read', async (t) => {
  const { connection, connect, failures, pass, turn, pendingTimers } = setUp()
  await connect()
  const before = pendingTimers()
  const late = connection.run(() => never)
  const rejected = t.rejects(late, { message: 'Redis is late', code: 'REDIS_TIMEOUT' })
  await pass(499)
  await turn()
  t.equal(connection.isUp(), true)
  await pass(1)
  t.equal(connection.isUp(), true)
  await turn()
  await rejected
  t.equal(connection.isUp(), false)
  t.strictSame(failures, ['timeout REDIS_TIMEOUT'])

  await pass(100)
  let arrive = (_reply: string) => {}
  const unread = connection.run(
    () =>
      new Promise((resolve) => {
        arrive = resolve
      }),
  )
  await pass(500)
  arrive('reply')
  await pass(0)
  await turn()
  t.equal(await unread, 'reply')
  t.equal(connection.isUp(), true)
  t.equal(pendingTimers(), before, 'no timer is left behind')
})

t.test('a check that is late fails', async (t) => {
  const { redis, connection, failures, pass, turn } = setUp()
  redis.respond = (command) => (command === 'evalsha' ? never : 'OK')
  const connected = connection.connect()
  redis.open()
  await pass(500)
  await turn()
  await connected
  t.equal(connection.isUp(), false)
  t.strictSame(failures, ['timeout REDIS_TIMEOUT'])
})

t.test('Redis is checked every two seconds, unless a command has succeeded since', async (t) => {
  const { connection, connect, pass, checks, redis } = setUp()
  await connect()
  await pass(1_999)
  t.equal(checks(), 1)
  await pass(1)
  t.equal(checks(), 2)
  await connection.run(async () => 'reply')
  await pass(2_000)
  t.equal(checks(), 2)
  await pass(2_000)
  t.equal(checks(), 3)
  redis.respond = () => Promise.reject(broken('EPIPE'))
  await pass(2_000)
  t.equal(connection.isUp(), false)
})

t.test('checks that fail come less and less often, at least every three seconds', async (t) => {
  const { redis, connect, pass, checks, failures } = setUp()
  redis.respond = () => Promise.reject(broken('EPIPE'))
  await connect()
  for (const waitMs of [100, 200, 400, 800, 1_600, 3_000, 3_000]) {
    const before = checks()
    await pass(waitMs - 1)
    t.equal(checks(), before)
    await pass(1)
    t.equal(checks(), before + 1, `after ${waitMs} ms`)
  }
  t.equal(failures.length, 8)
  redis.respond = () => 'OK'
  await pass(3_000)
  redis.respond = () => Promise.reject(broken('EPIPE'))
  const before = checks()
  await pass(2_000)
  t.equal(checks(), before + 1)
  await pass(2_999)
  t.equal(checks(), before + 1, 'not stable yet: it goes on where it was')
  await pass(1)
  t.equal(checks(), before + 2)
})

t.test('after two seconds without a failure the waits begin again', async (t) => {
  const { connect, pass, checks, failCommand, connection } = setUp()
  await connect()
  await failCommand()
  await pass(100)
  await failCommand()
  await pass(199)
  t.equal(connection.isUp(), false)
  await pass(1)
  t.equal(connection.isUp(), true)
  await pass(2_000)
  const before = checks()
  await failCommand()
  await pass(100)
  t.equal(checks(), before + 1)
  t.equal(connection.isUp(), true)
})

t.test('a Redis that fails again and again is reported as up only when it is stable', async (t) => {
  const { connect, pass, failCommand, connection, changes } = setUp()
  await connect()
  await failCommand()
  await pass(100)
  t.strictSame(changes, ['up', 'closed ECONNRESET', 'up'])
  await failCommand()
  t.strictSame(changes.slice(3), ['closed ECONNRESET'])
  await pass(200)
  t.equal(connection.isUp(), true, 'it is used')
  await failCommand()
  t.equal(changes.length, 4, 'but not reported, up or down')
  await pass(400)
  await pass(1_999)
  t.equal(changes.length, 4)
  await pass(1)
  t.strictSame(changes.slice(4), ['up'])
  await failCommand()
  await pass(100)
  t.strictSame(changes.slice(5), ['closed ECONNRESET', 'up'], 'after that it starts afresh')
  await pass(2_000)
  t.equal(changes.length, 7, 'up is not reported twice')
})

t.test('a Redis that fails after it was stable has not failed quickly', async (t) => {
  const { connect, pass, failCommand, changes } = setUp()
  await connect()
  for (let round = 0; round < 4; round++) {
    await pass(2_000)
    await failCommand()
    await pass(100)
  }
  t.equal(changes.filter((change) => change === 'up').length, 5)
})

t.test(
  'when the connection is lost while Redis is up, it is checked after a while, even if it is back',
  async (t) => {
    const { redis, connect, pass, checks, connection } = setUp()
    await connect()
    redis.lose()
    t.equal(connection.isUp(), false)
    redis.open()
    await pass(99)
    t.equal(checks(), 1)
    await pass(1)
    t.equal(checks(), 2)

    redis.lose()
    await pass(5_000)
    t.equal(checks(), 2, 'not without a connection')
    redis.open()
    await pass(0)
    t.equal(checks(), 3, 'and then at once')
  },
)

t.test('the connection is made again after longer and longer waits, until a check succeeds', async (t) => {
  const { redis, connect, pass } = setUp()
  const waits = (count: number) =>
    Array.from({ length: count }, (_, index) => redis.options.retryStrategy?.(index + 1))
  await connect()
  t.strictSame(waits(7), [100, 200, 400, 800, 1_000, 1_000, 1_000])
  redis.lose()
  t.strictSame(waits(1), [1_000], 'whatever ioredis counts')
  redis.open()
  await pass(100)
  t.strictSame(waits(2), [100, 200])
})

t.test('there is one check at a time', async (t) => {
  const { redis, connection, pass, checks } = setUp()
  let respond = (_reply: string) => {}
  const slow = new Promise<string>((resolve) => {
    respond = resolve
  })
  redis.respond = () => slow
  const connected = connection.connect()
  redis.open()
  redis.emit('ready')
  await pass(0)
  t.equal(checks(), 1)
  respond('OK')
  await connected
  t.equal(connection.isUp(), true)
})

t.test('a check whose connection is lost says nothing more', async (t) => {
  const { redis, connection, failures, pass } = setUp()
  let fail = (_error: Error) => {}
  const slow = new Promise<string>((_resolve, reject) => {
    fail = reject
  })
  redis.respond = () => slow
  void connection.connect()
  redis.open()
  redis.lose(broken('ECONNRESET'))
  fail(new Error('Connection is closed.'))
  await pass(0)
  t.strictSame(failures, ['closed ECONNRESET'])
})

t.test('a connection that this service closes is no failure', async (t) => {
  const { redis, connection, connect, failures, changes, pass, pendingTimers, checks } = setUp()
  await connect()
  connection.close()
  t.strictSame(redis.disconnects, [undefined])
  redis.lose()
  t.strictSame([changes, failures], [['up'], []])
  t.equal(pendingTimers(), 0)
  await pass(10_000)
  t.equal(checks(), 1)
})
