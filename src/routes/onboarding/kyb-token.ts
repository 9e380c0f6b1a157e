import { randomUUID } from 'node:crypto'
import type {} from '@fastify/swagger'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from '@sinclair/typebox'
import { ProblemDetails } from '../../problems/problem.js'
import type { Caller } from '../../services/auth/caller.js'
import { KybFormToken, KybSession } from '../../services/idenfy/schemas.js'

const { locale, flow, theme, tags, scanRefs } = KybFormToken.properties

/** The body of a success. */
export const KybToken = Type.Object(
  {
    tokenType: Type.Literal('FORM'),
    tokenString: Type.String({ description: 'A bearer credential for the whole form' }),
    expiration: Type.String({ description: 'When the token ends, as iDenfy wrote it' }),
    expiresIn: Type.Integer({ description: 'Whole seconds until then, by the clock of the server' }),
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

const Headers = Type.Object({
  'x-company-id': Type.Optional(
    Type.String({
      description:
        'Picks one of the companies that the access token lists; its id as it is, or percent-encoded',
    }),
  ),
  'idempotency-key': Type.Optional(
    Type.String({
      pattern: '^("[A-Za-z0-9._~+/=:-]{1,64}"|[A-Za-z0-9._~+/=:-]{1,64})$',
      description:
        'Identical requests with the same key get the same response, and at most one verification is opened for them (a string of RFC 8941; quotes may be left out)',
    }),
  ),
})

declare module 'fastify' {
  interface FastifyRequest {
    /** What the service spent on a request before its body was read: the time that a slow client takes is its own. */
    waitedMs: number
  }
}

/** `POST /onboarding/kyb-token`. Belongs into a guarded scope. */
export const kybTokenRoute: FastifyPluginAsyncTypebox = async (app) => {
  app.decorateRequest('waitedMs', 0)
  app.post(
    '/onboarding/kyb-token',
    {
      schema: {
        operationId: 'createKybToken',
        summary: 'Creates a KYB token for the company of the caller',
        description:
          'Equal requests that come together, or within a short while after a success, get the same token: a double click opens no second verification.',
        tags: ['onboarding'],
        security: [{ accessToken: [] }],
        headers: Headers,
        body: KybSession,
        response: { 201: KybToken, '4xx': ProblemDetails, '5xx': ProblemDetails },
      },
      // After authentication and limits.
      onRequest: (request, reply, done) => {
        request.waitedMs = reply.elapsedTime
        done()
      },
      // A request without a body is an empty one. Fastify would validate a body of `null` in the same way.
      preValidation: (request, _reply, done) => {
        if (request.body === undefined) request.body = {}
        done()
      },
    },
    async (request, reply) => {
      const { token, origin } = await app.kybTokens.issue({
        caller: request.getDecorator<Caller>('caller'),
        wishes: request.body,
        // Not that of the log: a caller may have chosen it.
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
