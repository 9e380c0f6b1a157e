import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import fp from 'fastify-plugin'
import { createClientAddress } from '../services/http/client-address.js'

const plainId = /^[A-Za-z0-9._-]{1,64}$/

/** For Fastify's `genReqId`: the id that a trusted proxy has set, or a new one. */
export function createRequestId(trustedNetworks: readonly string[] = []) {
  const { isFromProxy } = createClientAddress(trustedNetworks)
  return (request: Pick<IncomingMessage, 'headers' | 'socket'>): string => {
    const given = request.headers['x-request-id']
    if (typeof given === 'string' && plainId.test(given) && isFromProxy(request)) return given
    return randomUUID()
  }
}

/** Every response has the request id of its log lines. */
export const requestIds = fp(
  async (app) => {
    app.addHook('onRequest', (request, reply, done) => {
      reply.header('x-request-id', request.id)
      done()
    })
  },
  { name: 'request-ids', fastify: '5.x' },
)
