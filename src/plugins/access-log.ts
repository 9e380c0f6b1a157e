import type { Socket } from 'node:net'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { outcomeOf, type Problem } from '../problems.js'
import { createFloodGate } from '../services/flood-gate.js'
import { sendProblem, sendRawProblem } from './problem-details.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** Writes the line of a request, and counts it. */
    logAccess(request: FastifyRequest, reply: FastifyReply): void
  }
}

/** One line per request, made of named values only: no URL, no header, no body. Equal failures in a flood lose detail. */
export const accessLog = fp<{ monotonicNow: () => number }>(
  async (app, { monotonicNow }) => {
    const { requests, requestSeconds } = app.metrics
    const gate = createFloodGate({ monotonicNow })

    app.decorate('logAccess', (request, reply) => {
      const { problem } = request
      const outcome = problem?.code ?? 'success'
      const durationMs = Math.round(reply.elapsedTime * 10) / 10
      requests.inc({ outcome })
      requestSeconds.observe(durationMs / 1000)
      const answered = describe(request, outcome, reply.statusCode, durationMs)
      if (!problem) return request.log.info(answered, 'request')
      const { diagnosis } = problem.options
      const providerOutcome = outcomeOf(problem.code)
      const line = { ...answered, providerOutcome, ...diagnosis }
      const level = levelOf(outcome)
      if (level === 'info') return request.log.info(line, 'request')
      const { isOpen, held } = gate.pass(`${outcome} ${Object.values(diagnosis ?? {})}`)
      if (!isOpen) return request.log.info(line, 'request')
      request.log[level](
        { ...line, err: problem, ...(held > 0 && { equalLinesWithoutDetail: held }) },
        'request',
      )
    })
    app.addHook('onResponse', (request, reply, done) => {
      app.logAccess(request, reply)
      done()
    })
    // Of a caller who hangs up there is no response. What was begun for him goes on.
    app.addHook('onRequestAbort', async (request) => {
      requests.inc({ outcome: 'client-closed' })
      request.log.info(describe(request, 'client-closed'), 'request')
    })
  },
  { name: 'access-log', fastify: '5.x', dependencies: ['problem-details', 'metrics'] },
)

/** For Fastify's `frameworkErrors`, which pass no hook. */
export function onFrameworkError(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  sendProblem(error, request, reply)
  request.server.logAccess(request, reply)
}

/** For Fastify's `clientErrorHandler`: there is no request, only a socket. */
export function onClientError(this: FastifyInstance, error: NodeJS.ErrnoException, socket: Socket): void {
  const refusal = sendRawProblem(error, socket)
  if (!refusal) return
  const { problem, requestId } = refusal
  this.metrics.requests.inc({ outcome: problem.code })
  this.log.info({ requestId, status: problem.status, outcome: problem.code }, 'request')
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
function levelOf(outcome: Problem['code'] | 'success'): 'info' | 'warn' | 'error' {
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
