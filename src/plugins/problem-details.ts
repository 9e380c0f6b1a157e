import { randomUUID } from 'node:crypto'
import { type OutgoingHttpHeaders, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { Problem } from '../problems/problem.js'
import { toProblem } from './error-mapping.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** Why the request failed; null if it has not. */
    problem: Problem | null
  }
}

/**
 * Error handling: the one place that writes error bodies (RFC 9457), for failures of all layers. Requests that Fastify or
 * Node refuse outside of a route come through the two functions below.
 */
export const problemDetails = fp(
  async (app) => {
    app.decorateRequest('problem', null)
    app.setErrorHandler((error, request, reply) => {
      const problem = toProblem(error)
      // A QUERY request does not get to the handler below, so this may be a 405.
      sendProblem(problem.code === 'not-found' ? noRoute(app, request) : problem, request, reply)
    })
    app.setNotFoundHandler((request) => {
      throw noRoute(app, request)
    })
  },
  { name: 'problem-details', fastify: '5.x' },
)

function noRoute(app: FastifyInstance, { url }: FastifyRequest): Problem {
  const path = url.replace(/\?.*/, '')
  const allowed = app.supportedMethods.filter((method) => app.hasRoute({ method, url: path }))
  if (allowed.length === 0) return new Problem('not-found')
  return new Problem('method-not-allowed', { headers: { allow: allowed.join(', ') } })
}

/**
 * For Fastify's `clientErrorHandler`: requests that Node's HTTP parser refuses. A request that is still being received
 * gets the response. Bytes after a request in progress get none, but close the connection. In all other cases the response
 * is written to the bare socket.
 *
 * @returns what was written to the bare socket
 */
export function refuseOnSocket(
  this: FastifyInstance,
  error: NodeJS.ErrnoException,
  socket: Socket,
  headers: Readonly<Record<string, string>> = {},
): { problem: Problem; requestId: string } | undefined {
  const { connections } = this
  const arriving = connections.arriving(socket)
  const hasLeft = error.code === 'ECONNRESET' || error.syscall !== undefined || !socket.writable
  if (hasLeft || (arriving && error.code === 'HPE_INVALID_EOF_STATE')) {
    socket.destroy()
    return undefined
  }
  const problem = parserProblem(error.code)
  if (arriving) {
    if (arriving.sent) socket.destroySoon()
    else sendProblem(problem, arriving.request, arriving.header('connection', 'close'))
    return undefined
  }
  if (connections.closeAfterResponses(socket)) return undefined
  const requestId = randomUUID()
  const body = JSON.stringify(problem.toDetails(requestId))
  const fields = Object.entries({
    ...headers,
    ...fieldsOf(problem, requestId, body),
    connection: 'close',
  }).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.end(`HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}\r\n${fields.join('')}\r\n${body}`)
  return { problem, requestId }
}

function parserProblem(code: string | undefined): Problem {
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return new Problem('request-timeout')
  if (code === 'HPE_HEADER_OVERFLOW') return new Problem('header-too-large', { detail: 'header-bytes' })
  return new Problem('malformed-request', { detail: 'http-syntax' })
}

function fieldsOf(problem: Problem, requestId: string, body: string) {
  return {
    ...problem.headers,
    'x-request-id': requestId,
    'content-type': 'application/problem+json; charset=utf-8',
    'content-length': String(Buffer.byteLength(body)),
  }
}

/**
 * Also for Fastify's `frameworkErrors`: requests whose URL the router cannot read, which run no hooks. It writes the
 * response itself, because a serializer, an `onSend` hook or a header of the response may have failed.
 *
 * @param error anything that was thrown
 */
export function sendProblem(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  const problem = toProblem(error)
  request.problem = problem
  const { raw } = reply
  if (raw.headersSent) return void raw.destroy()
  const body = JSON.stringify(problem.toDetails(request.id))
  const fields = fieldsOf(problem, request.id, body)
  try {
    raw.writeHead(problem.status, { ...(reply.getHeaders() as OutgoingHttpHeaders), ...fields })
  } catch {
    raw.writeHead(problem.status, fields)
  }
  raw.end(body)
}
