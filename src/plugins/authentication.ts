import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { Agent } from 'undici'
import { Problem } from '../problems/problem.js'
import { createAccessTokenVerifier } from '../services/auth/access-token-verifier.js'
import { type Caller, createCallerResolver } from '../services/auth/caller.js'
import { fetchKeySet, maxKeySetBytes } from '../services/auth/fetch-key-set.js'
import { type IgnoredKey, KeySetFault } from '../services/auth/key-set.js'
import { createSigningKeys } from '../services/auth/signing-keys.js'
import { version } from '../version.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** The `onRequest` hook of guarded scopes: bearer JWT → `request.caller`. */
    authenticate(request: FastifyRequest): Promise<void>
    /** Whether access tokens can be checked. */
    hasSigningKeys(): Promise<boolean>
  }
  interface FastifyRequest {
    /** Null outside of guarded scopes. */
    caller: Caller | null
  }
}

const maxFetchTimeoutMs = 2_000
/** Time between two fetches for unknown keys. */
const maxUnknownKeyIntervalMs = 1_000
const refreshCheckMs = 1_000
const maxLoggedKeys = 20

export const authentication = fp(
  async (app) => {
    const { config, clock } = app
    // The rest of the time is for iDenfy. A fetch takes less than this, so that the request sees its result.
    const waitMs = (config.IDENFY_TIMEOUT_MS * 3) / 4
    const fetchTimeoutMs = Math.min(maxFetchTimeoutMs, config.IDENFY_TIMEOUT_MS / 2)
    const dispatcher = new Agent({
      maxResponseSize: maxKeySetBytes,
      connect: { timeout: fetchTimeoutMs },
      // Fetches are minutes apart. The provider would have closed a connection that was kept alive.
      pipelining: 0,
    })
    const source = { url: config.AUTH_JWKS_URL, dispatcher, userAgent: `onboarding-bff/${version}` }
    let isClosing = false
    const signingKeys = createSigningKeys({
      fetchKeySet: (signal) => fetchKeySet(source, signal),
      algorithms: config.AUTH_ALGORITHMS,
      fetchTimeoutMs,
      unknownKeyIntervalMs: Math.min(maxUnknownKeyIntervalMs, waitMs / 2),
      onFetchFailed: (err) => {
        if (isClosing) return
        const fault = err instanceof KeySetFault ? err : undefined
        app.log.warn(
          {
            err,
            // Without the query, which may contain a secret.
            url: config.AUTH_JWKS_URL.replace(/\?.*/, ''),
            received: fault?.message ?? 'no response',
            expected: 'a JWK set (RFC 7517) with a key for AUTH_ALGORITHMS; see AUTH_JWKS_URL',
            ...(fault?.ignored && describeIgnored(fault.ignored)),
          },
          'the signing keys could not be fetched',
        )
        app.metrics.failedKeyFetches.inc({ reason: fault?.code ?? 'unreachable' })
      },
      onKeysIgnored: (ignored) => app.log.info(describeIgnored(ignored), 'some signing keys are not used'),
      clock,
    })
    const verify = createAccessTokenVerifier({
      signingKeys,
      issuer: config.AUTH_ISSUER,
      audience: config.AUTH_AUDIENCE,
      algorithms: config.AUTH_ALGORITHMS,
      tokenTypes: config.AUTH_TOKEN_TYPES,
      clockToleranceSeconds: config.AUTH_CLOCK_TOLERANCE_SECONDS,
      maxLifetimeSeconds: config.AUTH_MAX_TOKEN_LIFETIME_SECONDS,
      timeoutMs: waitMs,
      clock,
    })
    const resolveCaller = createCallerResolver({
      userClaim: config.AUTH_USER_CLAIM,
      companyClaim: config.AUTH_COMPANY_CLAIM,
      requiredScope: config.AUTH_REQUIRED_SCOPE,
    })

    app.metrics.gauge(
      'signing_keys_age_seconds',
      'Since the last successful fetch of the signing keys, or since the start without one',
      signingKeys.ageSeconds,
    )
    // The age is not enough: keys are used for a day, and an instance may never have had any.
    app.metrics.gauge('signing_keys_usable', 'Whether access tokens can be checked', async () =>
      Number(await signingKeys.isReady()),
    )

    app.decorateRequest('caller', null)
    app.decorate('hasSigningKeys', signingKeys.isReady)
    app.decorate('authenticate', async (request: FastifyRequest) => {
      try {
        const claims = await verify(bearerToken(request.headers.authorization))
        request.caller = resolveCaller(claims, request.headers['x-company-id']?.toString())
      } catch (error) {
        if (!(error instanceof Problem) || error.status !== 401) throw error
        app.metrics.failedAuthentications.inc({ reason: error.options.diagnosis?.reason ?? error.code })
        await app.limitFailures(request)
        throw error
      }
    })
    let timer: NodeJS.Timeout | undefined
    app.addHook('onReady', async () => {
      signingKeys.refreshIfDue()
      timer = setInterval(signingKeys.refreshIfDue, refreshCheckMs).unref()
    })
    app.addHook('onClose', async () => {
      isClosing = true
      clearInterval(timer)
      await dispatcher.destroy()
    })
  },
  { name: 'authentication', fastify: '5.x', dependencies: ['problem-details', 'metrics', 'rate-limits'] },
)

/** RFC 6750, section 2.1. */
function bearerToken(authorization = ''): string {
  const [, token] = /^bearer +(.+)$/i.exec(authorization) ?? []
  if (token === undefined) throw new Problem('unauthenticated')
  return token
}

function describeIgnored(ignored: readonly IgnoredKey[]) {
  return { ignoredKeys: ignored.slice(0, maxLoggedKeys), ignoredCount: ignored.length }
}
