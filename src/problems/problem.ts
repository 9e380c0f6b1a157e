import { type Static, Type } from '@sinclair/typebox'
import {
  detailTexts,
  type ProblemCode,
  type ProblemDefinition,
  type ProblemDetail,
  ProviderOutcome,
  problems,
} from './catalog.js'

const FieldFault = Type.Object({
  pointer: Type.String({ description: 'JSON Pointer into the request body (RFC 6901)' }),
  code: Type.String(),
})
export type FieldFault = Static<typeof FieldFault>

/** The body of every response that is not a success: RFC 9457 with this service's extension members. */
export const ProblemDetails = Type.Object(
  {
    type: Type.String({ description: 'A path on this service' }),
    title: Type.String(),
    status: Type.Integer(),
    code: Type.Unsafe<ProblemCode>(Type.Union(Object.keys(problems).map((code) => Type.Literal(code)))),
    requestId: Type.String({ description: 'The id of the request in the log of the service' }),
    retryable: Type.Boolean({ description: 'Whether the same request may succeed later' }),
    outcome: Type.Optional(ProviderOutcome),
    detail: Type.Optional(Type.String({ description: 'The exact cause, if a code has several' })),
    errors: Type.Optional(Type.Array(FieldFault)),
    companyIds: Type.Optional(
      Type.Array(Type.String(), { description: 'The companies that the caller may choose from' }),
    ),
  },
  { additionalProperties: false },
)
export type ProblemDetails = Static<typeof ProblemDetails>

export interface ProblemOptions {
  /** For the operator's log only. */
  readonly cause?: unknown
  /** Which cause of the code it is, for the caller and the log. */
  readonly detail?: ProblemDetail
  /** The companies that the caller can choose from. */
  readonly companyIds?: readonly string[]
  /** More for the operator's log line: values from closed lists, or from a verified token. */
  readonly diagnosis?: Readonly<Record<string, string | number | undefined>>
  readonly errors?: readonly FieldFault[]
  /** Response header fields that the code does not imply. */
  readonly headers?: Readonly<Record<string, string>>
  /** Overrides the delay that the table gives for the code. */
  readonly retryAfterSeconds?: number
  /** Why this service may retry the call to iDenfy without the risk of a second verification, and when. */
  readonly safeToRetry?: {
    readonly reason: 'not-sent' | 'rate-limited' | 'new-credentials'
    readonly afterMs: number
  }
}

/** A failure that is listed in the catalog. Services, hooks and handlers throw it. `detail` is logged as `reason`. */
export class Problem extends Error {
  override readonly name = 'Problem'
  readonly status: number
  readonly headers: Readonly<Record<string, string>>

  readonly options: ProblemOptions

  constructor(
    readonly code: ProblemCode,
    options: ProblemOptions = {},
  ) {
    const definition: ProblemDefinition = problems[code]
    super(definition.title, { cause: options.cause })
    const { detail, diagnosis } = options
    this.options =
      detail === undefined ? options : { ...options, diagnosis: { reason: detail, ...diagnosis } }
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

  /** Builds the error body. Nothing in it comes from the request or from iDenfy, except for names of fields. */
  toDetails(requestId: string): ProblemDetails {
    const { title, status, retryable, outcome }: ProblemDefinition = problems[this.code]
    const { detail, errors, companyIds } = this.options
    return {
      type: `/problems/${this.code}`,
      title,
      status,
      code: this.code,
      requestId,
      retryable,
      ...(outcome && { outcome }),
      ...(detail && { detail: detailTexts[detail] }),
      ...(errors && { errors: [...errors] }),
      ...(companyIds && { companyIds: [...companyIds] }),
    }
  }
}
