import { randomUUID } from 'node:crypto'
import cors from '@fastify/cors'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { Type } from '@sinclair/typebox'
import Fastify from 'fastify'
import type { TokenSigner } from './token-signer.js'

export interface IdentityProviderOptions {
  readonly issuer: string
  readonly audience: string
  /** The first one signs tokens. The key set contains all of them. */
  readonly signers: readonly [TokenSigner, ...TokenSigner[]]
  /** Wall clock, milliseconds since the epoch. */
  readonly now?: () => number
}

const TokenRequest = Type.Object(
  {
    userId: Type.String({ minLength: 1 }),
    companyId: Type.Optional(Type.String()),
    companyIds: Type.Optional(Type.Array(Type.String())),
    scope: Type.Optional(Type.String()),
    expiresIn: Type.Optional(Type.Integer({ description: 'Seconds' })),
  },
  { additionalProperties: false },
)

/** Simulates the company's identity provider. It issues any client an access token for any user and company. */
export function buildIdentityProvider({
  issuer,
  audience,
  signers,
  now = Date.now,
}: IdentityProviderOptions) {
  const app = Fastify({
    ajv: { customOptions: { removeAdditional: false, coerceTypes: false } },
  }).withTypeProvider<TypeBoxTypeProvider>()

  // Pages without a backend fetch their tokens directly.
  app.register(cors, { origin: '*', methods: ['GET', 'POST'] })

  app.get('/.well-known/jwks.json', async () => ({ keys: signers.map(({ publicJwk }) => publicJwk) }))

  app.post('/token', { schema: { body: TokenRequest } }, async ({ body }) => {
    const { userId, companyId, companyIds, scope, expiresIn = 3600 } = body
    const iat = Math.floor(now() / 1000)
    const company = companyIds ?? companyId
    const claims = {
      iss: issuer,
      aud: audience,
      sub: userId,
      ...(company !== undefined && { company_id: company }),
      ...(scope !== undefined && { scope }),
      iat,
      exp: iat + expiresIn,
      jti: randomUUID(),
    }
    return { access_token: await signers[0].sign(claims), token_type: 'Bearer', expires_in: expiresIn }
  })

  return app
}
