import { outcomeOf, type ProblemCode } from '../../problems/catalog.js'
import { Problem } from '../../problems/problem.js'

/**
 * What the operator must check when iDenfy refuses permanently: the session policy, the key pair, the account's balance,
 * its contract, or `IDENFY_BASE_URL`.
 */
type RejectionClass = 'request' | 'credentials' | 'funds' | 'contract' | 'endpoint'

interface ErrorMapping {
  readonly code: ProblemCode
  readonly class?: RejectionClass
}

/** The identifiers that iDenfy documents. Any other text it sends is not logged. */
const knownIdentifiers = new Set([
  'AUTHENTICATION_FAILED',
  'BAD_VALUE',
  'ENCODING_ERROR',
  'INTERNAL_ERROR',
  'JSON_ERROR',
  'METHOD_NOT_ALLOWED',
  'MISSING_VALUE',
  'NOT_FOUND',
  'PARTNER_CONTRACT_ERROR',
  'PERMISSIONS_ERROR',
  'TOO_MANY_REQUESTS',
  'UNAUTHORIZED',
  'VALIDATION_ERROR',
])

const maxRetryAfterSeconds = 300

/**
 * Error mapping for iDenfy: maps an error response to a problem, by status **and** identifier. The identifier is the stable part: the
 * same one is documented under several statuses.
 *
 * @param body the parsed body of the response, undefined if it was not JSON
 * @param retryAfter the `Retry-After` field; only a number of seconds is understood
 */
export function mapErrorResponse(status: number, body: unknown, retryAfter?: string): Problem {
  const { identifier, message } = (body ?? {}) as { identifier?: unknown; message?: unknown }
  const known = typeof identifier === 'string' && knownIdentifiers.has(identifier) ? identifier : undefined
  const { code, class: rejectionClass } = mapError(status, known, message)
  const seconds = /^\d{1,6}$/.test(retryAfter ?? '') ? Number(retryAfter) : undefined
  const wait =
    code === 'provider-rate-limited' && seconds !== undefined
      ? Math.min(Math.max(seconds, 1), maxRetryAfterSeconds)
      : undefined
  const phase = outcomeOf(code) === 'unknown' ? 'after-sending' : 'refused'
  return new Problem(code, {
    ...(wait !== undefined && {
      retryAfterSeconds: wait,
      safeToRetry: { reason: 'rate-limited', afterMs: wait * 1000 },
    }),
    diagnosis: { phase, upstreamStatus: status, identifier: known, class: rejectionClass },
  })
}

function mapError(status: number, identifier: string | undefined, message: unknown): ErrorMapping {
  if (identifier === 'TOO_MANY_REQUESTS' || status === 429) return { code: 'provider-rate-limited' }
  if (identifier === 'PARTNER_CONTRACT_ERROR') return rejected('contract')
  if (identifier === 'INTERNAL_ERROR' || status >= 500) return { code: 'provider-outcome-unknown' }
  if (identifier === 'UNAUTHORIZED' || identifier === 'AUTHENTICATION_FAILED') return rejected('credentials')
  if (status === 402) return rejected('funds')
  if (identifier === 'PERMISSIONS_ERROR') {
    return rejected(/token limit/i.test(String(message)) ? 'funds' : 'contract')
  }
  if (status === 403) return rejected('contract')
  if (status === 401 && identifier === undefined) return rejected('credentials')
  if (status === 409) return { code: 'kyb-session-conflict' }
  // Path and method never change, and iDenfy would send an identifier. So this is the response of another server.
  if (identifier === undefined && (status === 404 || status === 405)) return rejected('endpoint')
  return rejected('request')
}

function rejected(rejectionClass: RejectionClass): ErrorMapping {
  return { code: 'provider-rejected', class: rejectionClass }
}
