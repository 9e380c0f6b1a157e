import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { Agent } from 'undici'
import type { Config } from '../config.js'
import { Problem } from '../problems.js'
import { createAccessTokenVerifier } from '../services/access-token-verifier.js'
import { type Caller, createCallerResolver } from '../services/caller.js'
import { createSigningKeys } from '../services/signing-keys.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** The `onRequest` hook of guarded scopes: bearer JWT → `request.caller`. */
    authenticate(request: FastifyRequest): Promise<void>
    /** Whether access tokens can be checked. */
    hasSigningKeys(): boolean
  }
  interface FastifyRequest {
    /** Null outside of guarded scopes. */
    caller: Caller | null
  }
}

export interface AuthenticationOptions {
  readonly config: Config
  readonly now: () => number
}

const maxJwksBytes = 64 * 1024

export const authentication = fp<AuthenticationOptions>(
  async (app, { config, now }) => {
    const dispatcher = new Agent({ maxResponseSize: maxJwksBytes })
    const signingKeys = createSigningKeys({
      url: config.AUTH_JWKS_URL,
      dispatcher,
      onFetchFailed: (err) => app.log.warn({ err }, 'the signing keys could not be fetched'),
    })
    const verify = createAccessTokenVerifier({
      signingKeys,
      issuer: config.AUTH_ISSUER,
      audience: config.AUTH_AUDIENCE,
      algorithms: config.AUTH_ALGORITHMS,
      tokenTypes: config.AUTH_TOKEN_TYPES,
      clockToleranceSeconds: config.AUTH_CLOCK_TOLERANCE_SECONDS,
      maxLifetimeSeconds: config.AUTH_MAX_TOKEN_LIFETIME_SECONDS,
      now,
    })
    const resolveCaller = createCallerResolver({
      userClaim: config.AUTH_USER_CLAIM,
      companyClaim: config.AUTH_COMPANY_CLAIM,
      requiredScope: config.AUTH_REQUIRED_SCOPE,
    })

    app.decorateRequest('caller', null)
    app.decorate('hasSigningKeys', () => signingKeys.isReady())
    app.decorate('authenticate', async (request: FastifyRequest) => {
      const claims = await verify(bearerToken(request))
      request.caller = resolveCaller(claims, request.headers['x-company-id']?.toString())
    })
    app.addHook('onReady', async () => {
      signingKeys.isReady()
    })
    app.addHook('onClose', async () => dispatcher.close())
  },
  { name: 'authentication', fastify: '5.x', dependencies: ['problem-details'] },
)

/** RFC 6750, section 2.1. Looks at the raw fields, because Node keeps only the first of several. */
function bearerToken({ raw, headers }: FastifyRequest): string {
  const fields = raw.rawHeaders.filter((name, index) => index % 2 === 0 && /^authorization$/i.test(name))
  if (fields.length > 1) throw new Problem('malformed-request')
  const [, token] = /^bearer +(.+)$/i.exec(headers.authorization ?? '') ?? []
  if (token === undefined) throw new Problem('unauthenticated')
  return token
}
