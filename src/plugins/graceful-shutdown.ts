import { setTimeout as delay } from 'node:timers/promises'
import fp from 'fastify-plugin'
import { Problem } from '../problems/problem.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** Makes `/readyz` fail and waits until load balancers have had time to see it. Requests are still accepted. */
    drain(delayMs: number): Promise<void>
    /** Aborted when the server begins to drain or to close. */
    draining: AbortSignal
  }
}

/**
 * Graceful shutdown. Requests are accepted until the server closes, but every response closes its connection. Requests in
 * flight are completed. Later ones are refused with `draining`, and another instance can serve them.
 */
export const gracefulShutdown = fp(
  async (app) => {
    const draining = new AbortController()
    let isClosing = false
    app.decorate('draining', draining.signal)
    app.decorate('drain', async (delayMs: number) => {
      draining.abort()
      app.connections.stopKeepAlive()
      await delay(delayMs)
    })
    app.addHook('preClose', async () => {
      draining.abort()
      isClosing = true
    })
    app.addHook('onRequest', (_request, _reply, done) => {
      done(isClosing ? new Problem('draining') : undefined)
    })
  },
  { name: 'graceful-shutdown', fastify: '5.x', dependencies: ['connections', 'problem-details'] },
)
