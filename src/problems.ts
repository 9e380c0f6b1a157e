import { type Static, Type } from '@sinclair/typebox'

interface ProblemDefinition {
  readonly status: number
  readonly title: string
  /** May the same request succeed later without a change? */
  readonly retryable: boolean
  readonly retryAfterSeconds?: number
  /** The `WWW-Authenticate` field (RFC 6750, section 3). */
  readonly challenge?: string
}

/** Every problem this service can answer with. The codes are part of the public contract. */
export const problems = {
  'malformed-request': { status: 400, title: 'The request is malformed', retryable: false },
  'validation-failed': { status: 400, title: 'The request body is not valid', retryable: false },
  unauthenticated: {
    status: 401,
    title: 'Bearer credentials are required',
    retryable: false,
    challenge: 'Bearer',
  },
  'invalid-token': {
    status: 401,
    title: 'The access token is not valid',
    retryable: false,
    challenge: 'Bearer error="invalid_token"',
  },
  'insufficient-scope': { status: 403, title: 'The access token lacks the required scope', retryable: false },
  'company-not-allowed': {
    status: 403,
    title: 'The access token gives no access to this company',
    retryable: false,
  },
  'identity-not-mappable': {
    status: 403,
    title: 'The user or company id cannot be used for a verification',
    retryable: false,
  },
  'field-not-permitted': {
    status: 403,
    title: 'The request sets what the caller may not choose',
    retryable: false,
  },
  'not-found': { status: 404, title: 'There is nothing here', retryable: false },
  'method-not-allowed': { status: 405, title: 'The method is not allowed here', retryable: false },
  'request-timeout': { status: 408, title: 'The request took too long to arrive', retryable: true },
  'kyb-session-conflict': {
    status: 409,
    title: 'A verification of this company is already in progress',
    retryable: true,
  },
  'idempotency-conflict': {
    status: 409,
    title: 'A request with this idempotency key is still in flight',
    retryable: true,
    retryAfterSeconds: 1,
  },
  'payload-too-large': { status: 413, title: 'The request body is too large', retryable: false },
  'unsupported-media-type': {
    status: 415,
    title: 'The request body must be application/json',
    retryable: false,
  },
  'expectation-failed': { status: 417, title: 'The expectation cannot be met', retryable: false },
  'idempotency-mismatch': {
    status: 422,
    title: 'This idempotency key was used with another request',
    retryable: false,
  },
  'rate-limited': { status: 429, title: 'Too many requests', retryable: true },
  'header-too-large': { status: 431, title: 'The request headers are too large', retryable: false },
  'internal-error': { status: 500, title: 'The service failed', retryable: false },
  'provider-rejected': {
    status: 502,
    title: 'The verification provider refused the service',
    retryable: false,
  },
  'provider-bad-response': {
    status: 502,
    title: 'The verification provider gave an unusable answer',
    retryable: false,
  },
  'provider-outcome-unknown': {
    status: 502,
    title: 'The connection to the verification provider broke',
    retryable: true,
  },
  'provider-unavailable': {
    status: 503,
    title: 'The verification provider is unavailable',
    retryable: true,
    retryAfterSeconds: 5,
  },
  'provider-rate-limited': {
    status: 503,
    title: 'The verification provider is limiting requests',
    retryable: true,
    retryAfterSeconds: 30,
  },
  'auth-keys-unavailable': {
    status: 503,
    title: 'The keys to check access tokens are unavailable',
    retryable: true,
    retryAfterSeconds: 5,
  },
  overloaded: { status: 503, title: 'This instance is overloaded', retryable: true, retryAfterSeconds: 2 },
  draining: { status: 503, title: 'This instance is shutting down', retryable: true, retryAfterSeconds: 1 },
  'provider-timeout': {
    status: 504,
    title: 'The verification provider did not answer in time',
    retryable: true,
  },
} as const satisfies Record<string, ProblemDefinition>

export type ProblemCode = keyof typeof problems

const FieldFault = Type.Object({
  pointer: Type.String({ description: 'JSON Pointer into the request body (RFC 6901)' }),
  code: Type.String(),
})
export type FieldFault = Static<typeof FieldFault>

const ProviderOutcome = Type.Union([Type.Literal('not-created'), Type.Literal('unknown')], {
  description: 'Was a verification perhaps opened?',
})
export type ProviderOutcome = Static<typeof ProviderOutcome>

/** The body of every answer that is not a success: RFC 9457 with this service's extension members. */
export const ProblemDetails = Type.Object(
  {
    type: Type.String(),
    title: Type.String(),
    status: Type.Integer(),
    code: Type.String(),
    requestId: Type.String(),
    retryable: Type.Boolean(),
    outcome: Type.Optional(ProviderOutcome),
    errors: Type.Optional(Type.Array(FieldFault)),
  },
  { additionalProperties: false },
)
export type ProblemDetails = Static<typeof ProblemDetails>

export interface ProblemOptions {
  /** For the operator's log only. */
  readonly cause?: unknown
  /** What the operator's log line says beyond the code: values from closed lists, never input. */
  readonly diagnosis?: Readonly<Record<string, string | number | undefined>>
  readonly errors?: readonly FieldFault[]
  readonly outcome?: ProviderOutcome
  /** Response header fields that the code does not imply. */
  readonly headers?: Readonly<Record<string, string>>
  /** Overrides the delay that the table gives for the code. */
  readonly retryAfterSeconds?: number
  /** Why this service may repeat the call to iDenfy without the risk of a second verification, and when. */
  readonly safeToRepeat?: {
    readonly reason: 'not-sent' | 'rate-limited' | 'new-credentials'
    readonly afterMs: number
  }
}

/** A failure with a place in the table: what services, hooks and handlers throw. */
export class Problem extends Error {
  override readonly name = 'Problem'
  readonly status: number
  readonly headers: Readonly<Record<string, string>>

  constructor(
    readonly code: ProblemCode,
    readonly options: ProblemOptions = {},
  ) {
    const definition: ProblemDefinition = problems[code]
    super(definition.title, { cause: options.cause })
    this.status = definition.status
    const { challenge } = definition
    const retryAfterSeconds = options.retryAfterSeconds ?? definition.retryAfterSeconds
    this.headers = {
      'cache-control': 'no-store',
      ...(challenge !== undefined && { 'www-authenticate': challenge }),
      ...(retryAfterSeconds !== undefined && { 'retry-after': String(retryAfterSeconds) }),
      ...options.headers,
    }
  }

  /** Composes the one shape of error bodies; nothing in it comes from the input or from iDenfy. */
  toDetails(requestId: string): ProblemDetails {
    const { title, status, retryable } = problems[this.code]
    const { outcome, errors } = this.options
    return {
      type: `/problems/${this.code}`,
      title,
      status,
      code: this.code,
      requestId,
      retryable,
      ...(outcome && { outcome }),
      ...(errors && { errors: [...errors] }),
    }
  }
}
