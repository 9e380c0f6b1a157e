import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { authenticationSettings } from '../config/authentication-settings.js'
import { Problem } from '../problems/problem.js'
import { createAuthenticator } from '../services/auth/authenticator.js'
import type { Caller } from '../services/auth/caller.js'
import { type IgnoredKey, KeySetFault } from '../services/auth/key-set.js'
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

const refreshCheckMs = 1_000
const maxLoggedKeys = 20

export const authentication = fp(
  async (app) => {
    const { config, clock } = app
    const { authenticate, signingKeys, close } = createAuthenticator(authenticationSettings(config), {
      userAgent: `onboarding-bff/${version}`,
      onFetchFailed: (err) => {
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
        request.caller = await authenticate(
          bearerToken(request.headers.authorization),
          request.headers['x-company-id']?.toString(),
        )
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
      clearInterval(timer)
      await close()
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
