import fp from 'fastify-plugin'
import { Problem } from '../problems.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** True from the moment the server begins to close. */
    isDraining(): boolean
  }
}

/** While the server closes: what is in flight ends with its connection, what comes too late is sent elsewhere. */
export const draining = fp(
  async (app) => {
    let isDraining = false
    app.decorate('isDraining', () => isDraining)
    app.addHook('preClose', async () => {
      isDraining = true
    })
    app.addHook('onRequest', async () => {
      if (isDraining) throw new Problem('draining')
    })
    app.addHook('onSend', async (_request, reply) => {
      // Kept-alive connections would hold up close() until they time out.
      if (isDraining) reply.header('connection', 'close')
    })
  },
  { name: 'draining', fastify: '5.x', dependencies: ['problem-details'] },
)
