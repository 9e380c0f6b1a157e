import { createServer, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { systemClock } from '../../src/clock.js'
import { createRedisConnection } from '../../src/services/single-flight/redis-connection.js'
import { redisFailureCauses } from '../../src/services/single-flight/redis-failure.js'
import { certificate } from '../fault-server.js'
import { build, freePort, listen, until } from '../helper.js'
import { connectRedis, needsRedis, startRedis, stateKey } from '../redis-server.js'

type Service = Awaited<ReturnType<typeof build>>

const password = 'canary-redis-password'
const isUp = async (service: Service) => /^redis_up 1$/m.test(await service.metrics())
const linesOf = (service: Service) =>
  service.log().filter(({ msg }) => /^Redis (un)?available/.test(String(msg)))

/** A service with this Redis, which gives no password away and writes nothing to the console. */
async function start(t: Test, url: string, env: Record<string, string> = {}) {
  const printed = (['log', 'warn', 'error'] as const).map((method) => t.capture(console, method))
  t.teardown(() => {
    const args = printed.flatMap((results) => results().map((call) => call.args))
    if (args.length > 0) throw new Error(`on the console: ${JSON.stringify(args)}`)
  })
  const service = await build(t, { env: { REDIS_URL: url, STATE_ENCRYPTION_KEY: stateKey, ...env } })
  service.secrets.add(password)
  return service
}

/** That the log names this, once, and the metric has its cause. */
async function expectCause(
  t: Test,
  service: Service,
  expected: { cause: string; [field: string]: unknown },
): Promise<void> {
  const { cause } = expected
  const count = async () =>
    Number(
      new RegExp(`^redis_failures_total{cause="${cause}"} (\\d+)$`, 'm').exec(await service.metrics())?.[1],
    )
  await until(async () => (await count()) > 1, `two Redis failures of cause ${cause}`)
  const lines = linesOf(service).filter((line) => line.cause === cause)
  t.match(lines, [expected])
  t.equal(lines.length, 1, 'however often it fails')
  t.type(lines[0]?.hint, 'string')
  t.equal(await isUp(service), false)
  t.equal((await service.mint()).status, 201, 'and it goes on without Redis')
}

/** Checks what is common to these causes: each is counted and named once, with a hint, and Redis is not used. */
async function expectOneOf(t: Test, service: Service, causes: string[], hint: RegExp): Promise<void> {
  const counted = async () =>
    [...(await service.metrics()).matchAll(/^redis_failures_total{cause="([^"]+)"} [1-9]/gm)].map(
      ([, cause = '']) => cause,
    )
  await until(async () => (await counted()).length > 0, 'a failure of Redis')
  t.equal((await service.mint()).status, 201, 'and it goes on without Redis')
  t.equal(await isUp(service), false)
  const lines = linesOf(service)
  const named = lines.map(({ cause }) => String(cause))
  t.not(named.length, 0)
  t.equal(new Set(named).size, named.length, 'each cause has one line')
  t.strictSame(
    [...named, ...(await counted())].filter((cause) => !causes.includes(cause)),
    [],
  )
  for (const line of lines) t.match(line, { hint })
}

async function expectRecovery(t: Test, service: Service): Promise<void> {
  await until(() => isUp(service), 'the service to use Redis again')
  t.equal(linesOf(service).at(-1)?.msg, 'Redis available, state is shared')
}

/** A server that replies to each command with the same bytes. */
async function startReplies(t: Test, reply: string | ((socket: Socket) => void)) {
  const current = { reply }
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}).setEncoding('latin1'))
    if (typeof current.reply !== 'string') return current.reply(socket)
    socket.on('data', (text) => {
      const commands = String(text).match(/^\*\d+\r\n/gm) ?? []
      for (const _ of commands) socket.write(current.reply as string)
    })
  })
  const port = await listen(t, server)
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
  })
  return Object.assign(current, { url: `redis://127.0.0.1:${port}` })
}

t.test('the log and the metric name why Redis cannot be used', async (t) => {
  t.test('every cause is counted from the start', async (t) => {
    const service = await start(t, 'redis://127.0.0.1:1')
    const counted = [...(await service.metrics()).matchAll(/^redis_failures_total{cause="([^"]+)"}/gm)]
    t.strictSame(counted.map(([, cause]) => cause).sort(), [...redisFailureCauses].sort())
  })

  t.test('no such host', async (t) => {
    const service = await start(t, `redis://:${password}@redis.invalid`, { ALLOW_INSECURE_URLS: 'true' })
    // EAI_AGAIN where no DNS server can be reached.
    await expectCause(t, service, { cause: 'unknown-host', code: /^(ENOTFOUND|EAI_AGAIN)$/ })
  })

  t.test('no one listens, and later Redis does', needsRedis, async (t) => {
    const redis = await startRedis(t)
    await redis.stop()
    const service = await start(t, redis.env.REDIS_URL)
    await expectCause(t, service, { cause: 'refused', code: 'ECONNREFUSED' })
    await redis.restart()
    await expectRecovery(t, service)
  })

  t.test('a server that accepts no TLS connection in time', async (t) => {
    const { url } = await startReplies(t, () => {})
    const service = await start(t, url.replace('redis:', 'rediss:'))
    await expectCause(t, service, { cause: 'timeout', code: 'ETIMEDOUT' })
  })

  t.test('a server that closes every connection', async (t) => {
    let connections = 0
    const begin = performance.now()
    const { url } = await startReplies(t, (socket) => {
      connections += 1
      socket.destroy()
    })
    const service = await start(t, url)
    await expectCause(t, service, { cause: 'closed' })
    await until(() => connections >= 5, 'the fifth connection attempt')
    t.ok(performance.now() - begin > 1_000, 'is tried less and less often')
  })

  t.test('a server that is no Redis', async (t) => {
    const { url } = await startReplies(t, (socket) => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'))
    const service = await start(t, url)
    await expectCause(t, service, { cause: 'protocol' })
  })

  const replies: [string, { cause: string; code?: string; denied?: string }][] = [
    ['MOVED 3999 127.0.0.1:6381', { cause: 'cluster', code: 'MOVED' }],
    ['CROSSSLOT Keys in request do not hash to the same slot', { cause: 'cluster', code: 'CROSSSLOT' }],
    ['LOADING Redis is loading the dataset in memory', { cause: 'loading', code: 'LOADING' }],
    ['MASTERDOWN Link with MASTER is down', { cause: 'loading', code: 'MASTERDOWN' }],
    ['MISCONF Redis is configured to save RDB snapshots', { cause: 'read-only', code: 'MISCONF' }],
    ['ERR Error running script: @user_script: 1: -READONLY You can not write', { cause: 'read-only' }],
    [
      `NOPERM User ${password} has no permissions to run the 'incr' command`,
      { cause: 'permission', code: 'NOPERM', denied: 'incr' },
    ],
    ['NOPERM No permissions to access a key', { cause: 'permission', denied: 'keys' }],
    [`ERR something about ${password}`, { cause: 'other', code: 'ERR' }],
    [`${password}`, { cause: 'other' }],
  ]
  for (const [reply, expected] of replies) {
    t.test(`a reply like "${reply.slice(0, 30)}"`, async (t) => {
      const { url } = await startReplies(t, `-${reply}\r\n`)
      await expectCause(t, await start(t, url), expected)
    })
  }
})

t.test('a real Redis that refuses', needsRedis, async (t) => {
  t.test('the password, the user, or to be used without', async (t) => {
    const redis = await startRedis(t, () => ['--requirepass', 'right'])
    const { host } = new URL(redis.env.REDIS_URL)
    const client = connectRedis(t, redis.env.REDIS_URL, { password: 'right' })
    const none = await start(t, `redis://${host}`)
    await expectCause(t, none, { cause: 'authentication', code: 'NOAUTH' })
    const guest = await start(t, `redis://guest:${password}@${host}`)
    await expectCause(t, guest, { cause: 'authentication', code: 'WRONGPASS' })
    const wrong = await start(t, `redis://:${password}@${host}`)
    await expectCause(t, wrong, { cause: 'authentication', code: 'WRONGPASS' })
    await client.config('SET', 'requirepass', password)
    await expectRecovery(t, wrong)
    await client.acl('SETUSER', 'guest', 'on', `>${password}`, '~onboarding-bff:*', '+@all')
    await expectRecovery(t, guest)
  })

  t.test('a password, because it has none', async (t) => {
    const redis = await startRedis(t)
    const service = await start(t, redis.env.REDIS_URL.replace('//', `//:${password}@`))
    await expectCause(t, service, { cause: 'authentication', code: 'ERR' })
    await connectRedis(t, redis.env.REDIS_URL).config('SET', 'requirepass', password)
    await expectRecovery(t, service)
  })

  t.test('any of the commands, or some of the keys', async (t) => {
    const redis = await startRedis(t)
    const client = connectRedis(t, redis.env.REDIS_URL)
    const url = redis.env.REDIS_URL.replace('//', `//limited:${password}@`)
    const used = ['eval', 'evalsha', 'get', 'set', 'incr', 'pexpire', 'pttl']
    const allow = (commands: readonly string[], keys = ['onboarding-bff:*']) =>
      client.acl(
        'SETUSER',
        'limited',
        'reset',
        'on',
        `>${password}`,
        ...keys.map((pattern) => `~${pattern}`),
        ...commands.map((command) => `+${command}`),
      )
    for (const denied of used) {
      await allow(used.filter((command) => command !== denied))
      await expectCause(t, await start(t, url), { cause: 'permission', code: 'NOPERM', denied })
    }
    for (const pattern of ['onboarding-bff:rate:*', 'onboarding-bff:[^r]*', 'other:*']) {
      await allow(used, [pattern])
      await expectCause(t, await start(t, url), { cause: 'permission', code: 'NOPERM', denied: 'keys' })
    }
    await allow(used)
    const service = await start(t, url)
    t.equal(await isUp(service), true, 'and needs no others')
    t.equal((await service.mint()).status, 201)
    t.equal((await service.mint({ token: 'x' })).status, 401)
    t.equal(await isUp(service), true)
    await allow([])
    await expectCause(t, service, { cause: 'permission', code: 'NOPERM' })
    await allow(used)
    await expectRecovery(t, service)
  })

  t.test('the database, so that no other one is used', async (t) => {
    const redis = await startRedis(t, () => ['--databases', '4'])
    const client = connectRedis(t, redis.env.REDIS_URL)
    const beyond = await start(t, `${redis.env.REDIS_URL}/99`)
    await expectCause(t, beyond, { cause: 'database', code: 'ERR' })
    await client.acl('SETUSER', 'limited', 'on', `>${password}`, '~*', '+@all', '-select')
    const service = await start(t, `${redis.env.REDIS_URL.replace('//', `//limited:${password}@`)}/3`, {
      KYB_REPLAY_SECONDS: '30',
    })
    await expectCause(t, service, { cause: 'database', code: 'NOPERM', denied: 'select' })
    await client.acl('SETUSER', 'limited', '+select')
    await expectRecovery(t, service)
    t.equal((await service.mint()).status, 201)
    await client.acl('SETUSER', 'limited', '-select')
    await client.call('CLIENT', 'KILL', 'USER', 'limited')
    await until(
      async () => linesOf(service).filter(({ cause }) => cause === 'database').length === 2,
      'the second log line about the database',
    )
    t.equal((await service.mint({ token: await service.token({ sub: 'u-2' }) })).status, 201)
    t.equal(await client.dbsize(), 0, 'also after it connects again')
    await client.select(3)
    t.ok((await client.dbsize()) > 0)
  })

  t.test('keys of other nodes of its cluster', async (t) => {
    const redis = await startRedis(t, (port) => [
      '--cluster-enabled',
      'yes',
      '--cluster-require-full-coverage',
      'no',
      '--dir',
      t.testdir(),
      '--cluster-config-file',
      `${port}.conf`,
    ])
    const client = connectRedis(t, redis.env.REDIS_URL)
    await client.call('CLUSTER', 'ADDSLOTSRANGE', 0, 10_000)
    const service = await start(t, redis.env.REDIS_URL)
    await expectCause(t, service, { cause: 'cluster', code: 'CLUSTERDOWN' })
    await client.call('CLUSTER', 'ADDSLOTSRANGE', 10_001, 16_383)
    await expectRecovery(t, service)
  })

  t.test('writes, as a replica after a failover', async (t) => {
    const redis = await startRedis(t)
    const client = connectRedis(t, redis.env.REDIS_URL)
    const service = await start(t, redis.env.REDIS_URL)
    t.equal(await isUp(service), true)
    await client.replicaof('127.0.0.1', await freePort(t))
    await expectCause(t, service, { cause: 'read-only', code: 'READONLY' })
    await client.replicaof('NO', 'ONE')
    await expectRecovery(t, service)
  })

  t.test('scripts, because it is a Sentinel', async (t) => {
    const configFile = `${t.testdir({ 'sentinel.conf': '' })}/sentinel.conf`
    const redis = await startRedis(t, () => ['--sentinel'], [configFile])
    await expectCause(t, await start(t, redis.env.REDIS_URL), { cause: 'unknown-command', code: 'ERR' })
  })
})

t.test('a Redis with TLS', needsRedis, async (t) => {
  const { key, cert } = await certificate('localhost')
  const files = t.testdir({ key, cert })
  const redis = await startRedis(t, (port) => [
    ...['--port', '0', '--tls-port', port, '--tls-auth-clients', 'no'],
    ...[
      '--tls-cert-file',
      `${files}/cert`,
      '--tls-key-file',
      `${files}/key`,
      '--tls-ca-cert-file',
      `${files}/cert`,
    ],
  ])
  const { port } = new URL(redis.env.REDIS_URL)
  const trusted = { REDIS_CA_FILE: `${files}/cert` }

  t.test('is used with the CA of REDIS_CA_FILE', async (t) => {
    t.equal(await isUp(await start(t, `rediss://localhost:${port}`, trusted)), true)
  })

  t.test('not without', async (t) => {
    const service = await start(t, `rediss://localhost:${port}`)
    await expectCause(t, service, { cause: 'certificate', code: 'DEPTH_ZERO_SELF_SIGNED_CERT' })
  })

  t.test('nor under a name that its certificate does not have', async (t) => {
    const service = await start(t, `rediss://127.0.0.1:${port}`, trusted)
    await expectCause(t, service, { cause: 'certificate', code: 'ERR_TLS_CERT_ALTNAME_INVALID' })
  })

  t.test('nor without TLS', async (t) => {
    const service = await start(t, redis.env.REDIS_URL)
    // Redis sends an alert of TLS and closes. Which of the two the client handles first is a race.
    await expectOneOf(t, service, ['closed', 'protocol'], /rediss:/)
  })

  t.test('nor with TLS where there is none', async (t) => {
    const plain = await startRedis(t)
    const service = await start(t, plain.env.REDIS_URL.replace('redis:', 'rediss:'))
    // Redis waits for the end of a line. Only some of the random bytes of a handshake contain one.
    await expectOneOf(t, service, ['protocol', 'timeout'], /redis:/)
  })

  t.test('nor another version of TLS', async (t) => {
    const server = createTlsServer({
      key,
      cert,
      maxVersion: 'TLSv1.1',
      minVersion: 'TLSv1.1',
      ciphers: 'ALL:@SECLEVEL=0',
    })
    server.on('tlsClientError', () => {})
    const service = await start(t, `rediss://localhost:${await listen(t, server)}`, trusted)
    await expectCause(t, service, { cause: 'protocol', code: 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION' })
  })
})

t.test('redis_up is 0 soon after Redis froze, also without requests', needsRedis, async (t) => {
  const redis = await startRedis(t)
  const service = await start(t, redis.env.REDIS_URL)
  const client = connectRedis(t, redis.env.REDIS_URL)
  const checks = async () =>
    Number(/cmdstat_incr:calls=(\d+)/.exec(await client.info('commandstats'))?.[1]) / 2
  await until(async () => (await checks()) > 2, 'more than two checks of Redis')
  t.equal(await isUp(service), true)
  t.equal(linesOf(service).length, 1)
  redis.freeze()
  await until(async () => !(await isUp(service)), 'the service to notice that Redis is frozen')
  t.match(linesOf(service).at(-1), { cause: 'timeout' })
  redis.thaw()
  await expectRecovery(t, service)
})

t.test('a Redis that fails as soon as it is used', needsRedis, async (t) => {
  const server = await startRedis(t)
  const changes: (string | boolean)[] = []
  const shared = createRedisConnection({
    redis: new Redis(server.env.REDIS_URL, {
      lazyConnect: true,
      enableOfflineQueue: false,
    }),
    credentials: [],
    database: 0,
    commandTimeoutMs: 1_000,
    onChange: (isUp, failure) => changes.push(failure?.cause ?? isUp),
    onFailure: () => {},
    clock: systemClock,
  })
  t.teardown(() => shared.close())
  await shared.connect()
  const waits: number[] = []
  for (let index = 0; index < 5; index += 1) {
    const failing = [1, 2].map(() => shared.run(() => shared.client.call('NONSENSE', password)))
    for (const command of failing) await t.rejects(command, /unknown command/)
    await t.rejects(
      shared.run(() => shared.client.get('key')),
      { name: 'RedisUnavailable' },
    )
    const begin = performance.now()
    await until(() => shared.isUp(), 'the connection to be up again')
    waits.push(performance.now() - begin)
  }
  t.ok(Number(waits[0]) < 1_000)
  t.ok(Number(waits[4]) > 1_500, 'is tried less and less often')
  const flaps = [true, 'unknown-command', true, 'unknown-command']
  t.strictSame(changes, flaps, 'and is not reported each time')
  await until(async () => {
    await shared.run(() => shared.client.get('key'))
    return changes.length > flaps.length
  }, 'Redis to be reported as available')
  t.strictSame(changes, [...flaps, true], 'until it has been stable')
})
