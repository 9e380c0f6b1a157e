import { setTimeout as delay } from 'node:timers/promises'
import fp from 'fastify-plugin'
import { Problem } from '../problems/problem.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** Makes `/readyz` fail and waits until load balancers have had time to see it. Requests are still accepted. */
    drain(delayMs: number): Promise<void>
    /** Whether the server drains or closes. */
    isDraining(): boolean
  }
}

/**
 * Graceful shutdown. Requests are accepted until the server closes, but every response closes its connection. Requests in
 * flight are completed. Later ones are refused with `draining`, and another instance can serve them.
 */
export const gracefulShutdown = fp(
  async (app) => {
    let isDraining = false
    let isClosing = false
    app.decorate('isDraining', () => isDraining)
    app.decorate('drain', async (delayMs: number) => {
      isDraining = true
      app.connections.stopKeepAlive()
      await delay(delayMs)
    })
    app.addHook('preClose', async () => {
      isDraining = true
      isClosing = true
    })
    app.addHook('onRequest', (_request, _reply, done) => {
      done(isClosing ? new Problem('draining') : undefined)
    })
  },
  { name: 'graceful-shutdown', fastify: '5.x', dependencies: ['connections', 'problem-details'] },
)
