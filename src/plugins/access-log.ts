import type { Socket } from 'node:net'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { createFloodGate } from '../observability/log-sampling.js'
import { outcomeOf, type ProblemCode } from '../problems/catalog.js'
import { refuseOnSocket, sendProblem } from './problem-details.js'

/**
 * One line per request, made of named values only: no URL, no header, no body. Its outcome is what the client saw. Equal
 * failures in a flood lose detail.
 */
export const accessLog = fp<{ monotonicNow: () => number }>(
  async (app, { monotonicNow }) => {
    const { requests, requestSeconds } = app.metrics
    const gate = createFloodGate({ monotonicNow })

    app.connections.onRequestEnd((reply, wasSent) => {
      const { request } = reply
      const { problem } = request
      const durationMs = Math.round(reply.elapsedTime * 10) / 10
      if (!wasSent) {
        requests.inc({ outcome: 'client-closed' })
        return request.log.info(describe(request, 'client-closed', undefined, durationMs), 'request')
      }
      // Nothing but a preflight succeeds with this method.
      const outcome = problem?.code ?? (request.method === 'OPTIONS' ? 'preflight' : 'success')
      requests.inc({ outcome })
      requestSeconds.observe(durationMs / 1000)
      const answered = describe(request, outcome, reply.statusCode, durationMs)
      if (!problem) return request.log.info(answered, 'request')
      const { diagnosis } = problem.options
      const providerOutcome = outcomeOf(problem.code)
      const line = { ...answered, providerOutcome, ...diagnosis }
      // A token of the right provider that another setting would accept.
      const level = diagnosis?.expected === undefined ? levelOf(outcome) : 'warn'
      if (level === 'info') return request.log.info(line, 'request')
      const { isOpen, held } = gate.pass(`${outcome} ${Object.values(diagnosis ?? {})}`)
      if (!isOpen) return request.log.info(line, 'request')
      request.log[level](
        { ...line, err: problem, ...(held > 0 && { equalLinesWithoutDetail: held }) },
        'request',
      )
    })
  },
  { name: 'access-log', fastify: '5.x', dependencies: ['connections', 'problem-details', 'metrics'] },
)

/** For Fastify's `frameworkErrors`, which pass no hook. */
export function onFrameworkError(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  const { connections, browserFields } = request.server
  connections.begin(reply)
  sendProblem(error, request, reply.headers(browserFields(request.headers.origin)))
  connections.end(reply)
}

/** For Fastify's `clientErrorHandler`: what the HTTP parser refuses. */
export function onClientError(this: FastifyInstance, error: NodeJS.ErrnoException, socket: Socket): void {
  // The bytes that the parser was given last.
  const { rawPacket } = error as { rawPacket?: Buffer }
  const [, origin] = /\norigin:[\t ]*([^\t\r\n ]*)/i.exec(rawPacket?.toString('latin1') ?? '') ?? []
  const refusal = refuseOnSocket.call(this, error, socket, this.browserFields(origin))
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

/** `error` is for what somebody has to mend here, `warn` for what passes by itself. */
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
