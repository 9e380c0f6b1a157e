import { hash } from 'node:crypto'
import rateLimit, { normalizeIP } from '@fastify/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from '../config/config.js'
import type { ProblemDetail } from '../problems/catalog.js'
import { Problem } from '../problems/problem.js'
import { createClientAddress } from '../services/http/client-address.js'
import { createRateCounter } from '../services/resilience/fixed-window-counter.js'
import type { SharedRedis } from '../services/single-flight/redis-connection.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** The `onRequest` hook of guarded scopes, after authentication: requests of a user. */
    limitRequests(request: FastifyRequest, reply: FastifyReply): Promise<void>
    /** To be called before a POST to iDenfy: new verifications of a user and of a company. */
    limitVerifications(request: FastifyRequest, reply: FastifyReply): Promise<void>
    /** Counts a failed authentication against the address; good credentials from there are not affected. */
    limitFailures(request: FastifyRequest): Promise<void>
  }
}

export interface RateLimitsOptions {
  readonly config: Config
  readonly monotonicNow: () => number
}

type KeyOf = (request: FastifyRequest) => string

/** What is left of a limit after this request. */
interface Counted {
  readonly remaining: number
  readonly isExceeded: boolean
  /** Milliseconds until the window ends. */
  readonly ttl: number
}

const windowMs = 60_000
/** Who is counted within this process; of more the longest absent is forgotten. */
const maxCounted = 10_000
const nameSpace = 'onboarding-bff:rate:'

/** Counted by all replicas together while Redis is there, else by each for itself. */
export const rateLimits = fp<RateLimitsOptions>(
  async (app, { config, monotonicNow }) => {
    const { sharedRedis } = app
    const clientAddress = createClientAddress(config.TRUST_PROXY ?? [])
    const counter = createRateCounter({ windowMs, maxKeys: maxCounted, monotonicNow })
    const sharedLimiter = sharedRedis && (await createSharedLimiter(app, sharedRedis.client))

    function countOf(max: number, keyOf: KeyOf): (request: FastifyRequest) => Promise<Counted> {
      const alone = (request: FastifyRequest): Counted => {
        const { current, ttl } = counter.count(keyOf(request))
        return { remaining: Math.max(max - current, 0), isExceeded: current > max, ttl }
      }
      if (!sharedRedis || !sharedLimiter) return async (request) => alone(request)
      // Hashed for the same reason as the keys of tokens.
      const keyGenerator = (request: FastifyRequest) => hash('sha256', keyOf(request), 'base64url')
      const together = sharedLimiter({ max, timeWindow: windowMs, keyGenerator })
      return (request) =>
        sharedRedis.run(() => together(request) as Promise<Counted>).catch(() => alone(request))
    }

    /** The response tells of a limit that has a name. */
    function limit(max: number, detail: ProblemDetail, keyOf: KeyOf, name?: string) {
      const count = countOf(max, keyOf)
      const policy = `"${name}";q=${max};w=${windowMs / 1000}`
      return async (request: FastifyRequest, reply?: FastifyReply): Promise<void> => {
        const { remaining, isExceeded, ttl } = await count(request)
        const seconds = Math.min(Math.max(Math.ceil(ttl / 1000), 1), windowMs / 1000)
        // https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
        if (name && reply) {
          append(reply, 'ratelimit-policy', policy)
          append(reply, 'ratelimit', `"${name}";r=${remaining};t=${seconds}`)
        }
        if (isExceeded) throw new Problem('rate-limited', { detail, retryAfterSeconds: seconds })
      }
    }

    const ofUser = limit(
      config.RATE_LIMIT_USER_PER_MINUTE,
      'user-limit',
      ({ caller }) => `user:${caller?.userId}`,
      'user',
    )
    const ofCompany = limit(
      config.RATE_LIMIT_COMPANY_PER_MINUTE,
      'company-limit',
      ({ caller }) => `company:${caller?.companyId}`,
      'company',
    )
    app.decorate(
      'limitRequests',
      limit(
        config.RATE_LIMIT_REQUESTS_PER_MINUTE,
        'request-limit',
        ({ caller }) => `requests:${caller?.userId}`,
        'requests',
      ),
    )
    app.decorate('limitVerifications', async (request: FastifyRequest, reply: FastifyReply) => {
      // A user at the limit does not use up the company's.
      await ofUser(request, reply)
      await ofCompany(request, reply)
    })
    app.decorate(
      'limitFailures',
      limit(
        config.RATE_LIMIT_IP_PER_MINUTE,
        'address-limit',
        // An IPv6 network of 64 bits counts as one address.
        ({ raw }) => `address:${normalizeIP(clientAddress.of(raw))}`,
      ),
    )
  },
  { name: 'rate-limits', fastify: '5.x', dependencies: ['problem-details', 'shared-state'] },
)

/** Counts in Redis. The plugin's memory store is not used: after a jump of the wall clock it locks users out. */
async function createSharedLimiter(app: FastifyInstance, redis: SharedRedis['client']) {
  let createRateLimit: FastifyInstance['createRateLimit'] | undefined
  await app.register(async (scope) => {
    await scope.register(rateLimit, { global: false, redis, nameSpace })
    createRateLimit = scope.createRateLimit
  })
  return createRateLimit
}

function append(reply: FastifyReply, field: string, item: string): void {
  const items = reply.getHeader(field)
  reply.header(field, items === undefined ? item : `${items}, ${item}`)
}
