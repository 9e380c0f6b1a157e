import { randomUUID } from 'node:crypto'
import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { type FieldFault, Problem, type ProblemCode } from '../problems.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** Why the request failed; null as long as it has not. */
    problem: Problem | null
  }
}

/**
 * The one place that writes error bodies (RFC 9457), whichever layer the failure comes from. What Fastify
 * or Node refuse outside of a route comes through the two functions below.
 */
export const problemDetails = fp(
  async (app) => {
    app.decorateRequest('problem', null)
    app.setErrorHandler(sendProblem)
    app.setNotFoundHandler((request) => {
      const path = request.url.replace(/\?.*/, '')
      const allowed = app.supportedMethods.filter((method) => app.hasRoute({ method, url: path }))
      if (allowed.length === 0) throw new Problem('not-found')
      throw new Problem('method-not-allowed', { headers: { allow: allowed.join(', ') } })
    })
  },
  { name: 'problem-details', fastify: '5.x' },
)

/** What Node's HTTP parser refuses is answered on the bare socket; undefined when nobody is there to read it. */
export function sendRawProblem(
  error: NodeJS.ErrnoException,
  socket: Socket,
): { problem: Problem; requestId: string } | undefined {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return undefined
  }
  const problem = new Problem(parserProblems[String(error.code)] ?? 'malformed-request')
  const requestId = randomUUID()
  const body = JSON.stringify(problem.toDetails(requestId))
  const fields = Object.entries({
    ...problem.headers,
    'content-type': contentType,
    'content-length': Buffer.byteLength(body),
    connection: 'close',
  }).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.end(`HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}\r\n${fields.join('')}\r\n${body}`)
  return { problem, requestId }
}

const contentType = 'application/problem+json; charset=utf-8'

const parserProblems: Record<string, ProblemCode> = {
  ERR_HTTP_REQUEST_TIMEOUT: 'request-timeout',
  HPE_HEADER_OVERFLOW: 'header-too-large',
}

/** Also for Fastify's `frameworkErrors`: requests whose URL the router cannot read, which pass no hook. */
export function sendProblem(
  error: FastifyError | Problem,
  request: FastifyRequest,
  reply: FastifyReply,
): void {
  const problem = toProblem(error)
  request.problem = problem
  reply
    .code(problem.status)
    .headers(problem.headers)
    .type(contentType)
    .serializer(JSON.stringify)
    .send(problem.toDetails(request.id))
}

const problemsOfStatus: Record<number, ProblemCode> = {
  400: 'malformed-request',
  413: 'payload-too-large',
  415: 'unsupported-media-type',
}

function toProblem(error: FastifyError | Problem): Problem {
  if (error instanceof Problem) return error
  if (error.validation) {
    if (error.validationContext !== 'body') return new Problem('malformed-request')
    return new Problem('validation-failed', { errors: fieldFaults(error.validation as SchemaError[]) })
  }
  const isFastifys = error.code?.startsWith('FST_')
  const code = (isFastifys && problemsOfStatus[Number(error.statusCode)]) || 'internal-error'
  return new Problem(code, { cause: error })
}

interface SchemaError {
  readonly keyword: string
  readonly instancePath: string
  readonly params: { readonly type?: string; readonly additionalProperty?: string }
}

const faultCodes: Record<string, string> = {
  additionalProperties: 'unknown-property',
  type: 'wrong-type',
  pattern: 'wrong-format',
  const: 'not-a-choice',
  minLength: 'too-short',
  maxLength: 'too-long',
  minimum: 'too-small',
  maximum: 'too-large',
  maxItems: 'too-many',
}

function fieldFaults(errors: readonly SchemaError[]): FieldFault[] {
  const faults = new Map<string, FieldFault>()
  for (const { keyword, instancePath, params } of errors) {
    // A nullable property fails as a whole and as "not null" too, a choice once for each member: say it once.
    if (keyword === 'anyOf' || params.type === 'null') continue
    const pointer = instancePath + unknownName(params.additionalProperty)
    if (!faults.has(pointer)) faults.set(pointer, { pointer, code: faultCodes[keyword] ?? 'invalid' })
  }
  return [...faults.values()]
}

/** The only text that passes from the input into an answer, and only if it is plain enough to do no harm. */
function unknownName(name: string | undefined): string {
  if (name === undefined) return ''
  return /^[A-Za-z][A-Za-z0-9_]{0,31}$/.test(name) ? `/${name}` : ''
}
