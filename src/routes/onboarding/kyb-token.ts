import { randomUUID } from 'node:crypto'
import type {} from '@fastify/swagger'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { type Static, type TObject, type TSchema, Type } from '@sinclair/typebox'
import { ProblemDetails } from '../../problems/problem.js'
import type { Caller } from '../../services/auth/caller.js'
import { KybFormToken, KybSession } from '../../services/idenfy/schemas.js'

const { locale, flow, theme, tags, scanRefs } = KybFormToken.properties

/** The body of a successful response. */
export const KybToken = Type.Object(
  {
    tokenType: Type.Literal('FORM'),
    tokenString: Type.String({ description: 'A bearer credential for the whole form' }),
    expiration: Type.String({ description: 'When the token expires, as sent by iDenfy' }),
    expiresIn: Type.Integer({ description: 'Seconds until then, by the clock of the server' }),
    isValid: Type.Boolean(),
    companyId: Type.Union([Type.String(), Type.Null()], { description: "iDenfy's id of the company" }),
    clientId: Type.String(),
    externalRef: Type.String(),
    redirectUrl: Type.String({ description: 'Where the user opens the form' }),
    locale,
    flow,
    theme,
    tags,
    scanRefs,
  },
  { additionalProperties: false },
)

/**
 * The same schema with lists of types instead of unions with null. For a union, the serializer would compile a validator
 * during the first request, which takes longer than the rest of that request.
 */
function withTypeLists<T extends TObject>(schema: T) {
  const properties = Object.entries<TSchema>(schema.properties).map(([name, { anyOf, ...others }]) => {
    const [{ type, ...value } = {}] = anyOf ?? []
    return [name, anyOf ? { type: [type, 'null'], ...value, ...others } : others]
  })
  return Type.Unsafe<Static<T>>({ ...schema, properties: Object.fromEntries(properties) })
}

const Headers = Type.Object({
  'x-company-id': Type.Optional(
    Type.String({
      description: 'Selects one of the companies in the access token. The id, as it is or percent-encoded',
    }),
  ),
  'idempotency-key': Type.Optional(
    Type.String({
      pattern: '^("[A-Za-z0-9._~+/=:-]{1,64}"|[A-Za-z0-9._~+/=:-]{1,64})$',
      description:
        'Identical requests with the same key get the same response. At most one verification is opened for them. A string of RFC 8941; the quotes are optional',
    }),
  ),
})

declare module 'fastify' {
  interface FastifyRequest {
    /** How long the service worked on a request before it read the body. The time of a slow client does not count. */
    waitedMs: number
  }
}

/** `POST /onboarding/kyb-token`. Register it in a guarded scope. */
export const kybTokenRoute: FastifyPluginAsyncTypebox = async (app) => {
  app.decorateRequest('waitedMs', 0)
  app.post(
    '/onboarding/kyb-token',
    {
      schema: {
        operationId: 'createKybToken',
        summary: 'Creates a KYB token for the company of the caller',
        description:
          'Identical requests at the same time, or shortly after a success, get the same token. A double click does not open a second verification.',
        tags: ['onboarding'],
        security: [{ accessToken: [] }],
        headers: Headers,
        body: KybSession,
        response: { 201: withTypeLists(KybToken), '4xx': ProblemDetails, '5xx': ProblemDetails },
      },
      // After authentication and limits.
      onRequest: (request, reply, done) => {
        request.waitedMs = reply.elapsedTime
        done()
      },
      // A request without a body means an empty object. Fastify would accept a body of `null` in the same way.
      preValidation: (request, _reply, done) => {
        if (request.body === undefined) request.body = {}
        done()
      },
    },
    async (request, reply) => {
      const { token, origin } = await app.tokenIssuer.issue({
        caller: request.getDecorator<Caller>('caller'),
        requestedSession: request.body,
        // Not the id of the log, because the client may have chosen that one.
        requestId: randomUUID(),
        log: request.log,
        idempotencyKey: request.headers['idempotency-key']?.replaceAll('"', ''),
        waitedMs: request.waitedMs,
        isAbandoned: () => request.isAbandoned(),
        admit: () => app.limitVerifications(request, reply),
      })
      if (origin === 'idempotent') reply.header('idempotency-replayed', 'true')
      reply.code(201).header('cache-control', 'no-store')
      return token
    },
  )
}
