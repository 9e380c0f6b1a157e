import type { FastifyError } from 'fastify'
import type { ProblemCode, ProblemDetail } from '../problems/catalog.js'
import { type FieldFault, Problem } from '../problems/problem.js'

/** Errors of Fastify before a handler runs. */
const fastifyProblems: Readonly<Record<string, [code: ProblemCode, detail?: ProblemDetail]>> = {
  FST_ERR_BAD_URL: ['malformed-request', 'url-encoding'],
  // Only for QUERY, a method that no route has.
  FST_ERR_ROUTE_MISSING_CONTENT_TYPE: ['not-found'],
  FST_ERR_CTP_INVALID_JSON_BODY: ['malformed-request', 'not-json'],
  FST_ERR_CTP_EMPTY_JSON_BODY: ['malformed-request', 'not-json'],
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: ['malformed-request', 'body-length'],
  FST_ERR_CTP_BODY_TOO_LARGE: ['payload-too-large'],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: ['unsupported-media-type', 'content-type'],
}

/** Error mapping of the server: maps anything that was thrown to a problem. */
export function toProblem(error: unknown): Problem {
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
    // The only header whose schema can fail.
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
