import { rootCertificates } from 'node:tls'
import fp from 'fastify-plugin'
import type { Config } from '../config/config.js'
import { createSharedRedis, type SharedRedis } from '../services/single-flight/redis-connection.js'
import { redisFailureCauses } from '../services/single-flight/redis-failure.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** The Redis of `REDIS_URL`; null without one. */
    sharedRedis: SharedRedis | null
  }
}

const commandTimeoutMs = 80
const connectTimeoutMs = 1_000
const socketTimeoutMs = 2_000

/** The connection to what replicas share. This instance starts and works without it, too. */
export const sharedState = fp<{ config: Config }>(
  async (app, { config }) => {
    if (config.REDIS_URL === undefined) {
      app.decorate('sharedRedis', null)
      return
    }
    // Only here: its code takes a tenth of the start.
    const { default: ioredis } = await import('ioredis')
    const { tls, host, port, credentials, database } = connectionOf(config.REDIS_URL, config.redisCa)
    const failures = app.metrics.counter(
      'redis_failures_total',
      'Failed connections, checks and commands of Redis, by cause',
      { cause: redisFailureCauses },
    )
    const shared = createSharedRedis({
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
        // What cannot be done at once is done without Redis.
        enableOfflineQueue: false,
        maxRetriesPerRequest: 0,
        autoResendUnfulfilledCommands: false,
        // A connection that is silent for so long is made anew.
        socketTimeout: socketTimeoutMs,
        connectTimeout: connectTimeoutMs,
      }),
      credentials,
      database,
      commandTimeoutMs,
      onChange: (isUp, failure) => {
        if (isUp) app.log.info('Redis is there: state is shared')
        else app.log.warn(failure, 'Redis is down: this instance goes on by itself')
      },
      onFailure: ({ cause }) => failures.inc({ cause }),
    })
    app.decorate('sharedRedis', shared)
    app.metrics.observe('redis_up', 'Whether state is shared with other instances', () =>
      Number(shared.isUp()),
    )
    app.addHook('onReady', async () => shared.connect())
    app.addHook('onClose', async () => shared.close())
  },
  { name: 'shared-state', fastify: '5.x', dependencies: ['metrics'] },
)

/** Not by ioredis: to it a query of the URL outweighs our options, and a database that is no number is number 0. */
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
