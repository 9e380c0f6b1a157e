import { setTimeout as delay } from 'node:timers/promises'
import fp from 'fastify-plugin'
import { Problem } from '../problems/problem.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** From now on nobody new should come; resolves when those who balance the load have had time to see that. */
    drain(delayMs: number): Promise<void>
    /** True from the moment the server drains or closes. */
    isDraining(): boolean
  }
}

/**
 * On the way out: requests are taken until the server closes, but every answer ends its connection. What is in flight
 * then is finished, what comes too late is sent elsewhere.
 */
export const draining = fp(
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
  { name: 'draining', fastify: '5.x', dependencies: ['connections', 'problem-details'] },
)
