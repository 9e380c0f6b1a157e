import { randomUUID } from 'node:crypto'
import { type OutgoingHttpHeaders, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { ProblemCode, ProblemDetail } from '../problems/catalog.js'
import { type FieldFault, Problem } from '../problems/problem.js'

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

/** Errors of Fastify before a handler runs. */
const fastifyProblems: Readonly<Record<string, [code: ProblemCode, detail?: ProblemDetail]>> = {
  FST_ERR_BAD_URL: ['malformed-request', 'url-encoding'],
  FST_ERR_CTP_INVALID_JSON_BODY: ['malformed-request', 'not-json'],
  FST_ERR_CTP_EMPTY_JSON_BODY: ['malformed-request', 'not-json'],
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: ['malformed-request', 'body-length'],
  FST_ERR_CTP_BODY_TOO_LARGE: ['payload-too-large'],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: ['unsupported-media-type', 'content-type'],
}

function toProblem(error: unknown): Problem {
  try {
    if (error instanceof Error) return errorToProblem(error)
  } catch {
    // Reading a member throws.
  }
  // Only its type: its text may be a secret.
  const thrown = error === null ? 'null' : typeof error
  return new Problem('internal-error', { cause: error, diagnosis: { thrown } })
}

function errorToProblem(error: Error): Problem {
  if (error instanceof Problem) return error
  const { validation, validationContext, code } = error as FastifyError
  if (validation) {
    // The only header with a schema.
    if (validationContext !== 'body') return new Problem('malformed-request', { detail: 'idempotency-key' })
    return new Problem('validation-failed', { errors: fieldFaults(validation as SchemaError[]) })
  }
  const [problemCode, detail] = fastifyProblems[String(code)] ?? ['internal-error']
  return new Problem(problemCode, { cause: error, ...(detail && { detail }) })
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
    // A nullable property has several errors, and a choice has one for each member. Report it once.
    if (keyword === 'anyOf' || params.type === 'null') continue
    const pointer = instancePath + unknownName(params.additionalProperty)
    if (!faults.has(pointer)) faults.set(pointer, { pointer, code: faultCodes[keyword] ?? 'invalid' })
  }
  return [...faults.values()]
}

/** The only text of the input in a response. It is included only if it consists of plain characters. */
function unknownName(name: string | undefined): string {
  if (name === undefined) return ''
  return /^[A-Za-z][A-Za-z0-9_]{0,31}$/.test(name) ? `/${name}` : ''
}
