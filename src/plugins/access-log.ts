import type { Socket } from 'node:net'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { outcomeOf, type ProblemCode } from '../problems/catalog.js'
import { refuseOnSocket, sendProblem } from './problem-details.js'

/**
 * Logs one line per request, made of named values only: no URL, no header, no body. The outcome is what the client saw.
 */
export const accessLog = fp(
  async (app) => {
    const { requests, requestSeconds } = app.metrics

    app.connections.onRequestEnd((reply, wasSent) => {
      const { request } = reply
      const { problem } = request
      const durationMs = Math.round(reply.elapsedTime * 10) / 10
      if (!wasSent) {
        requests.inc({ outcome: 'client-closed' })
        return request.log.info(describe(request, 'client-closed', undefined, durationMs), 'request')
      }
      // Only a preflight succeeds with OPTIONS.
      const outcome = problem?.code ?? (request.method === 'OPTIONS' ? 'preflight' : 'success')
      requests.inc({ outcome })
      requestSeconds.observe(durationMs / 1000)
      const fields = describe(request, outcome, reply.statusCode, durationMs)
      if (!problem) return request.log.info(fields, 'request')
      const { diagnosis } = problem.options
      const providerOutcome = outcomeOf(problem.code)
      const line = { ...fields, providerOutcome, ...diagnosis }
      // `expected` is set for a genuine token that another setting would accept. The operator should see it.
      const level = diagnosis?.expected === undefined ? levelOf(outcome) : 'warn'
      request.log[level](level === 'info' ? line : { ...line, err: problem }, 'request')
    })
  },
  { name: 'access-log', fastify: '5.x', dependencies: ['connections', 'problem-details', 'metrics'] },
)

/** For Fastify's `frameworkErrors`: these requests run no hooks. */
export function onFrameworkError(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  const { connections, browserHeaders } = request.server
  connections.begin(reply)
  sendProblem(error, request, reply.headers(browserHeaders(request.headers.origin)))
  connections.end(reply)
}

/** For Fastify's `clientErrorHandler`: requests that the HTTP parser refuses. */
export function onClientError(this: FastifyInstance, error: NodeJS.ErrnoException, socket: Socket): void {
  // The last bytes that the parser received.
  const { rawPacket } = error as { rawPacket?: Buffer }
  const [, origin] = /\norigin:[\t ]*([^\t\r\n ]*)/i.exec(rawPacket?.toString('latin1') ?? '') ?? []
  const refusal = refuseOnSocket.call(this, error, socket, this.browserHeaders(origin))
  if (!refusal) return
  const { problem, requestId } = refusal
  this.metrics.requests.inc({ outcome: problem.code })
  const { status, code: outcome, options } = problem
  this.log.info({ requestId, status, outcome, ...options.diagnosis }, 'request')
}

function describe(
  { method, routeOptions, caller }: FastifyRequest,
  outcome: string,
  status?: number,
  durationMs?: number,
) {
  return { method, route: routeOptions.url, company: caller?.companyId, status, durationMs, outcome }
}

/** `error`: the operator must fix something. `warn`: it passes without action. */
function levelOf(outcome: ProblemCode | 'success' | 'preflight'): 'info' | 'warn' | 'error' {
  switch (outcome) {
    case 'internal-error':
    case 'identity-not-mappable':
    case 'provider-rejected':
    case 'provider-bad-response':
      return 'error'
    case 'provider-outcome-unknown':
    case 'provider-unavailable':
    case 'provider-rate-limited':
    case 'provider-timeout':
    case 'auth-keys-unavailable':
    case 'state-unavailable':
    case 'overloaded':
      return 'warn'
    default:
      return 'info'
  }
}
