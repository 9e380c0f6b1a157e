import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'

/** One line per request, made of named values only: no URL, no header, no body. */
export const accessLog = fp(
  async (app) => {
    app.addHook('onResponse', async (request, reply) => logAccess(request, reply))
    // Of a caller who hangs up there is no response. What was begun for him goes on.
    app.addHook('onRequestAbort', async (request) => {
      request.log.info({ ...describeRequest(request), outcome: 'client-closed' }, 'request')
    })
  },
  { name: 'access-log', fastify: '5.x', dependencies: ['problem-details'] },
)

/** For requests that no hook sees. */
export function logAccess(request: FastifyRequest, reply: FastifyReply): void {
  const { problem } = request
  const line = {
    ...describeRequest(request),
    status: reply.statusCode,
    durationMs: Math.round(reply.elapsedTime * 10) / 10,
    outcome: problem?.code ?? 'success',
    providerOutcome: problem?.options.outcome,
    ...problem?.options.diagnosis,
    // Below 500 the code and the diagnosis say it all.
    ...(problem && problem.status >= 500 && { err: problem }),
  }
  request.log[levelOf(problem?.code)](line, 'request')
}

function describeRequest({ method, routeOptions, caller }: FastifyRequest) {
  return { method, route: routeOptions.url, company: caller?.companyId }
}

/** `error` is for what somebody has to mend here, `warn` for what passes by itself. */
function levelOf(code: string | undefined): 'info' | 'warn' | 'error' {
  switch (code) {
    case 'internal-error':
    case 'provider-rejected':
    case 'provider-bad-response':
      return 'error'
    case 'provider-outcome-unknown':
    case 'provider-unavailable':
    case 'provider-rate-limited':
    case 'provider-timeout':
    case 'auth-keys-unavailable':
    case 'overloaded':
      return 'warn'
    default:
      return 'info'
  }
}
