import { setTimeout as delay } from 'node:timers/promises'
import fp from 'fastify-plugin'
import { Problem } from '../problems.js'

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
      await delay(delayMs)
    })
    app.addHook('preClose', async () => {
      isDraining = true
      isClosing = true
    })
    app.addHook('onRequest', (_request, _reply, done) => {
      done(isClosing ? new Problem('draining') : undefined)
    })
    app.addHook('onSend', (_request, reply, _payload, done) => {
      // Kept-alive connections would hold up close() until they time out.
      if (isDraining) reply.header('connection', 'close')
      done()
    })
  },
  { name: 'draining', fastify: '5.x', dependencies: ['problem-details'] },
)
