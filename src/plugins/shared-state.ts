import fp from 'fastify-plugin'
import type { Config } from '../config.js'
import { createSharedRedis, type SharedRedis } from '../services/shared-redis.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** The Redis of `REDIS_URL`; null without one. */
    sharedRedis: SharedRedis | null
  }
}

const commandTimeoutMs = 80
const connectTimeoutMs = 1_000
const socketTimeoutMs = 2_000
const maxReconnectDelayMs = 1_000

/** The connection to what replicas share. This instance starts and works without it, too. */
export const sharedState = fp<{ config: Config }>(
  async (app, { config }) => {
    if (config.REDIS_URL === undefined) {
      app.decorate('sharedRedis', null)
      return
    }
    // Only here: its code takes a tenth of the start.
    const { default: ioredis } = await import('ioredis')
    const shared = createSharedRedis({
      redis: new ioredis.Redis(config.REDIS_URL, {
        lazyConnect: true,
        // What cannot be done at once is done without Redis.
        enableOfflineQueue: false,
        maxRetriesPerRequest: 0,
        autoResendUnfulfilledCommands: false,
        // A connection that is silent for so long is made anew.
        socketTimeout: socketTimeoutMs,
        connectTimeout: connectTimeoutMs,
        retryStrategy: (attempts) => Math.min(attempts * 100, maxReconnectDelayMs),
        // After a failover the address may lead to another server.
        reconnectOnError: (error) => error.message.startsWith('READONLY'),
      }),
      commandTimeoutMs,
      onChange: (isUp, err) => {
        if (isUp) app.log.info('Redis is there: state is shared')
        else app.log.warn({ err }, 'Redis is down: this instance goes on by itself')
      },
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
