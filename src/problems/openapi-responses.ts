import { type ProblemCode, problems } from './catalog.js'
import { Problem, type ProblemOptions } from './problem.js'

export type Schema = Record<string, unknown>
export interface Media {
  schema: Schema
  example?: unknown
  examples?: Record<string, { value: unknown }>
}
export interface Response {
  description: string
  headers?: Record<string, Schema>
  content: Record<string, Media>
}
export const responseHeaders = {
  Allow: 'The methods that this path supports',
  'Idempotency-Replayed': '`true` if this is the stored response to an earlier request with the same key',
  RateLimit:
    'What is left of the limits after this request, and for how many seconds: `requests` of the user, and new verifications of the `user` and the `company`',
  'RateLimit-Policy': 'These limits and their windows in seconds',
  'Retry-After': 'Seconds to wait before a retry',
  'X-Request-Id': 'The id of the request in the log of the service',
  'WWW-Authenticate': 'RFC 6750',
}
type HeaderName = keyof typeof responseHeaders

/** Statuses of responses after authentication. */
const authenticatedStatuses = new Set([201, 400, 403, 408, 409, 413, 415, 422, 429, 500, 502, 503, 504])

/** The responses of all problems, by status, for an OpenAPI operation. */
export function problemResponses(): Record<number, Response> {
  const codes = Object.keys(problems) as ProblemCode[]
  const statuses = new Set(codes.map((code) => problems[code].status))
  return Object.fromEntries(
    [...statuses].map((status) => {
      const examples = codes
        .map((code) => ({ code, problem: new Problem(code, exampleOptions[code]) }))
        .filter(({ problem }) => problem.status === status)
      const sent = examples.flatMap(({ problem }) => Object.keys(problem.headers))
      return [
        status,
        {
          description: examples
            .map(({ code }) => `\`${code}\`: ${problems[code].when}. ${problems[code].advice}`)
            .join('\n\n'),
          headers: headersOf(
            status,
            (Object.keys(responseHeaders) as HeaderName[]).filter((name) =>
              sent.includes(name.toLowerCase()),
            ),
          ),
          content: {
            'application/problem+json': {
              schema: reference('schemas', 'Problem'),
              examples: Object.fromEntries(
                examples.map(({ code, problem }) => [code, { value: problem.toDetails(exampleRequestId) }]),
              ),
            },
          },
        },
      ]
    }),
  )
}

const exampleRequestId = '9b94f962-e2ad-4f5f-8d85-724a1e0717bf'

/** A response to an idempotency key that was used before. */
const replayed: ProblemOptions = { headers: { 'idempotency-replayed': 'true' } }

/** Options of the examples, in addition to the code. */
const exampleOptions: Partial<Record<ProblemCode, ProblemOptions>> = {
  'malformed-request': { detail: 'not-json' },
  'unsupported-media-type': { detail: 'content-type' },
  'header-too-large': { detail: 'header-bytes' },
  'company-not-allowed': { detail: 'company-not-listed' },
  'company-required': { companyIds: ['acme', 'globex'] },
  'validation-failed': { errors: [{ pointer: '/tags/1', code: 'too-long' }] },
  'insufficient-scope': {
    headers: {
      'www-authenticate': 'Bearer realm="onboarding", error="insufficient_scope", scope="kyb:create"',
    },
  },
  'field-not-permitted': { errors: [{ pointer: '/tags', code: 'not-permitted' }] },
  'method-not-allowed': { headers: { allow: 'POST' } },
  'rate-limited': { detail: 'user-limit', retryAfterSeconds: 42 },
  'internal-error': replayed,
  'provider-bad-response': replayed,
  'provider-outcome-unknown': replayed,
  'provider-timeout': replayed,
}

/** References to the headers of a response. */
export function headersOf(status: number, names: readonly HeaderName[]): Record<string, Schema> {
  const all: HeaderName[] = [...names, 'X-Request-Id']
  if (authenticatedStatuses.has(status)) all.push('RateLimit', 'RateLimit-Policy')
  return Object.fromEntries(all.map((name) => [name, reference('headers', name)]))
}

export function reference(kind: 'schemas' | 'headers', name: string): Schema {
  return { $ref: `#/components/${kind}/${name}` }
}
