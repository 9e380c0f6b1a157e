import { rootCertificates } from 'node:tls'
import fp from 'fastify-plugin'
import { createRedisConnection, type RedisConnection } from '../services/single-flight/redis-connection.js'
import { redisFailureCauses } from '../services/single-flight/redis-failure.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** The Redis of `REDIS_URL`; null without one. */
    redis: RedisConnection | null
  }
}

const commandTimeoutMs = 80
const connectTimeoutMs = 1_000
const socketTimeoutMs = 2_000

/** The Redis that replicas share. This instance also starts and works while Redis is unavailable. */
export const redis = fp(
  async (app) => {
    const { config } = app
    if (config.REDIS_URL === undefined) {
      app.decorate('redis', null)
      return
    }
    // Loaded only here: its code takes a tenth of the start-up time.
    const { default: ioredis } = await import('ioredis')
    const { tls, host, port, credentials, database } = connectionOf(config.REDIS_URL, config.redisCa)
    const failures = app.metrics.counter(
      'redis_failures_total',
      'Failed connections, checks and commands of Redis, by cause',
      { cause: redisFailureCauses },
    )
    const connection = createRedisConnection({
      redis: new ioredis.Redis({
        host,
        port,
        ...(tls && { tls }),
        // Without HELLO and CLIENT SETINFO, which ioredis sends before AUTH.
        protocol: 2,
        disableClientInfo: true,
        // It needs INFO, and writes to the console where that is not permitted.
        enableReadyCheck: false,
        lazyConnect: true,
        // A command that cannot be sent at once is not sent.
        enableOfflineQueue: false,
        maxRetriesPerRequest: 0,
        autoResendUnfulfilledCommands: false,
        // A connection that is silent for this long is replaced.
        socketTimeout: socketTimeoutMs,
        connectTimeout: connectTimeoutMs,
      }),
      credentials,
      database,
      commandTimeoutMs,
      onChange: (isUp, failure) => {
        if (isUp) app.log.info('Redis available, state is shared')
        else app.log.warn(failure, 'Redis unavailable, continuing without shared state')
      },
      onFailure: ({ cause }) => failures.inc({ cause }),
      clock: app.clock,
    })
    app.decorate('redis', connection)
    app.metrics.gauge('redis_up', 'Whether state is shared with other instances', () =>
      Number(connection.isUp()),
    )
    app.addHook('onReady', async () => connection.connect())
    app.addHook('onClose', async () => connection.close())
  },
  { name: 'redis', fastify: '5.x', dependencies: ['metrics'] },
)

/** Not parsed by ioredis: it prefers a query of the URL to our options, and reads a database that is no number as 0. */
function connectionOf(url: string, extraCa: string | undefined) {
  const { protocol, hostname, port, username, password, pathname } = new URL(url)
  return {
    tls: protocol === 'rediss:' && { ...(extraCa && { ca: [...rootCertificates, extraCa] }) },
    // Without the brackets of IPv6.
    host: hostname.replace(/^\[|\]$/g, ''),
    port: Number(port || 6379),
    credentials:
      username || password ? [username, password].map(decodeURIComponent).slice(username ? 0 : 1) : [],
    database: Number(pathname.slice(1)),
  }
}
