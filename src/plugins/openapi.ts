import type { SwaggerTransformObject } from '@fastify/swagger'
import fp from 'fastify-plugin'
import { type ProblemCode, problems } from '../problems/catalog.js'
import { Problem, ProblemDetails, type ProblemOptions } from '../problems/problem.js'
import { version } from '../version.js'

/** Collects the contract of the routes that are registered after it: `app.swagger()` is the OpenAPI document. */
export const openapi = fp(
  async (app) => {
    // Not loaded where there is no documentation.
    const { default: swagger } = await import('@fastify/swagger')
    await app.register(swagger, {
      openapi: {
        openapi: '3.1.1',
        info: {
          title: 'Onboarding BFF',
          version,
          description:
            'Gives the signed-in users of your companies a token for iDenfy Business Verification (KYB), and the URL at which to open the form.',
          license: { name: 'MIT', identifier: 'MIT' },
        },
        servers: [{ url: '/', description: 'Where this document comes from' }],
        tags: [{ name: 'onboarding', description: 'The verification of a company' }],
        components: {
          securitySchemes: {
            accessToken: {
              type: 'http',
              scheme: 'bearer',
              bearerFormat: 'JWT',
              description: 'The access token that your identity provider issued for this API',
            },
          },
        },
      },
      transformObject: ((source: { openapiObject: Document }) =>
        complete(source.openapiObject)) as unknown as SwaggerTransformObject,
    })
  },
  { name: 'openapi', fastify: '5.x' },
)

type Schema = Record<string, unknown>
interface Media {
  schema: Schema
  example?: unknown
  examples?: Record<string, { value: unknown }>
}
interface Response {
  description: string
  headers?: Record<string, Schema>
  content: Record<string, Media>
}
interface Operation {
  parameters: { name: string }[]
  requestBody: { required: boolean; content: Record<string, Media> }
  responses: Record<string, Response>
}
interface Document {
  components: Record<string, unknown>
  paths: Record<string, Record<string, Operation>>
}

const json = 'application/json'
const exampleToken = 'd79719cbfc4b56a3d0c8175103a004620b25bc27'
const exampleSuccess = {
  tokenType: 'FORM',
  tokenString: exampleToken,
  expiration: '2026-11-23T13:22:52.685Z',
  expiresIn: 3599,
  isValid: true,
  companyId: '167e5025-3fe6-4442-bf50-6c9c6502c51a',
  clientId: 'acme',
  externalRef: 'u-1',
  redirectUrl: `https://kyb.ui.idenfy.com/welcome?authToken=${exampleToken}`,
  locale: null,
}

const headers = {
  Allow: 'The methods that this path has',
  'Idempotency-Replayed': '`true` if this is the stored response to an earlier request with the same key',
  RateLimit:
    'What is left of the limits that this request counted for, and for how many seconds: `requests` of the user, and new verifications of the `user` and the `company`',
  'RateLimit-Policy': 'These limits and their windows in seconds',
  'Retry-After': 'Seconds; do not repeat the request before',
  'X-Request-Id': 'Finds the request in the log of the service',
  'WWW-Authenticate': 'RFC 6750',
}
type HeaderName = keyof typeof headers

/** Answers that can come when the caller is known already. */
const knowsCaller = new Set([201, 400, 403, 408, 409, 413, 415, 422, 429, 500, 502, 503, 504])

/** What @fastify/swagger cannot know from a route: what all of them have in common. */
function complete(document: Document) {
  const schemas: Record<string, Schema> = { Problem: withChoices(ProblemDetails) as Schema }
  const named = (name: string, media: Media): Media => {
    schemas[name] = withChoices(media.schema) as Schema
    return { ...media, schema: reference('schemas', name) }
  }
  for (const operation of Object.values(document.paths).flatMap((path) => Object.values(path))) {
    const { parameters, requestBody, responses } = operation
    for (const parameter of parameters) parameter.name = fieldName(parameter.name)
    const { 201: success } = responses as { 201: Response }
    requestBody.required = false
    requestBody.content = {
      [json]: { ...named('KybSession', requestBody.content[json] as Media), example: { locale: 'lt' } },
    }
    operation.responses = {
      201: {
        description:
          'A token. It and `redirectUrl` are credentials for the whole form: never log or store them.',
        headers: headersOf(201, ['Idempotency-Replayed']),
        content: {
          [json]: { ...named('KybToken', success.content[json] as Media), example: exampleSuccess },
        },
      },
      ...problemResponses(),
    }
  }
  return {
    ...document,
    components: {
      ...document.components,
      schemas,
      headers: Object.fromEntries(
        Object.entries(headers).map(([name, description]) => [
          name,
          { description, schema: { type: name === 'Retry-After' ? 'integer' : 'string' } },
        ]),
      ),
    },
  }
}

function problemResponses(): Record<number, Response> {
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
            (Object.keys(headers) as HeaderName[]).filter((name) => sent.includes(name.toLowerCase())),
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

/** A key remembers that its outcome is unknown. */
const replayed: ProblemOptions = { headers: { 'idempotency-replayed': 'true' } }

/** What the code alone does not imply. */
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

function headersOf(status: number, names: readonly HeaderName[]): Record<string, Schema> {
  const all: HeaderName[] = [...names, 'X-Request-Id']
  if (knowsCaller.has(status)) all.push('RateLimit', 'RateLimit-Policy')
  return Object.fromEntries(all.map((name) => [name, reference('headers', name)]))
}

/** In the spelling of the standards: a client may compare it, a server may not. */
function fieldName(lowerCase: string): string {
  return lowerCase.replace(/(?<=^|-)[a-z]/g, (letter) => letter.toUpperCase())
}

function reference(kind: 'schemas' | 'headers', name: string): Schema {
  return { $ref: `#/components/${kind}/${name}` }
}

interface Choice {
  const?: string
  enum?: string[]
}

/** TypeBox writes a choice as a union of constants; readers and generators expect one enumeration. */
function withChoices(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(withChoices)
  if (typeof schema !== 'object' || schema === null) return schema
  const { anyOf, ...rest } = schema as { anyOf?: Choice[] }
  // @fastify/swagger has turned the constants of routes into enumerations of one.
  const choices = anyOf?.map(({ const: constant, enum: [choice] = [] }) => choice ?? constant)
  if (choices?.every((choice) => choice !== undefined)) return { ...rest, type: 'string', enum: choices }
  return Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, withChoices(value)]))
}
