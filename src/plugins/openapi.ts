import type { SwaggerTransformObject } from '@fastify/swagger'
import fp from 'fastify-plugin'
import {
  headersOf,
  type Media,
  problemResponses,
  type Response,
  reference,
  responseHeaders,
  type Schema,
} from '../problems/openapi-responses.js'
import { ProblemDetails } from '../problems/problem.js'
import { version } from '../version.js'

/** Collects the schemas of the routes that are registered after it. `app.swagger()` returns the OpenAPI document. */
export const openapi = fp(
  async (app) => {
    // Loaded only here, because it is optional.
    const { default: swagger } = await import('@fastify/swagger')
    await app.register(swagger, {
      openapi: {
        openapi: '3.1.1',
        info: {
          title: 'Onboarding BFF',
          version,
          description:
            'Creates tokens for iDenfy Business Verification (KYB) for the signed-in users of your companies, with the URL of the form.',
          license: { name: 'MIT', identifier: 'MIT' },
        },
        servers: [{ url: '/', description: 'The server of this document' }],
        tags: [{ name: 'onboarding', description: 'The verification of a company' }],
        components: {
          securitySchemes: {
            accessToken: {
              type: 'http',
              scheme: 'bearer',
              bearerFormat: 'JWT',
              description: 'The access token of your identity provider for this API',
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

/**
 * Adds what @fastify/swagger cannot know from a route: names, examples, and the responses of all problems.
 *
 * There is one operation. A second one needs its own name, example and success here.
 */
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
          'The token. The token and `redirectUrl` are credentials for the whole form. Never log or store them.',
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
        Object.entries(responseHeaders).map(([name, description]) => [
          name,
          { description, schema: { type: name === 'Retry-After' ? 'integer' : 'string' } },
        ]),
      ),
    },
  }
}

/** The usual spelling of a header name. */
function fieldName(lowerCase: string): string {
  return lowerCase.replace(/(?<=^|-)[a-z]/g, (letter) => letter.toUpperCase())
}

interface Choice {
  const?: string
  enum?: string[]
}

/** Replaces unions of constants, which TypeBox uses for choices, by enumerations, which readers and generators expect. */
function withChoices(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(withChoices)
  if (typeof schema !== 'object' || schema === null) return schema
  const { anyOf, ...rest } = schema as { anyOf?: Choice[] }
  // @fastify/swagger replaces constants in routes by enumerations with one value.
  const choices = anyOf?.map(({ const: constant, enum: [choice] = [] }) => choice ?? constant)
  if (choices?.every((choice) => choice !== undefined)) return { ...rest, type: 'string', enum: choices }
  return Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, withChoices(value)]))
}
