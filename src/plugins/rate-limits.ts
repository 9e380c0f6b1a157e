import { hash } from 'node:crypto'
import rateLimit, { normalizeIP } from '@fastify/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { ProblemDetail } from '../problems/catalog.js'
import { Problem } from '../problems/problem.js'
import { createClientAddress } from '../services/http/client-address.js'
import { createFixedWindowCounter } from '../services/resilience/fixed-window-counter.js'
import type { RedisConnection } from '../services/single-flight/redis-connection.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** Limits the requests of a user. An `onRequest` hook of guarded scopes, after authentication. */
    limitRequests(request: FastifyRequest, reply: FastifyReply): Promise<void>
    /** Limits new verifications of a user and of a company. Call it before a POST to iDenfy. */
    limitVerifications(request: FastifyRequest, reply: FastifyReply): Promise<void>
    /** Counts a failed authentication of an address. Valid credentials from that address are not affected. */
    limitFailures(request: FastifyRequest): Promise<void>
  }
}

type KeyOf = (request: FastifyRequest) => string

/** The state of a limit after this request. */
interface Counted {
  readonly remaining: number
  readonly isExceeded: boolean
  /** Milliseconds until the window ends. */
  readonly ttl: number
}

const windowMs = 60_000
/** Keys that are counted in this process. If there are more, the least recently used one is dropped. */
const maxCounted = 10_000
const nameSpace = 'onboarding-bff:rate:'

/** Rate limits. All replicas count together while Redis is available, otherwise each counts alone. */
export const rateLimits = fp(
  async (app) => {
    const { config, redis } = app
    const { clock } = app
    const clientAddress = createClientAddress(config.TRUST_PROXY ?? [])
    const counter = createFixedWindowCounter({ windowMs, maxKeys: maxCounted, clock })
    const sharedLimiter = redis && (await createSharedLimiter(app, redis.client))

    function countOf(max: number, keyOf: KeyOf): (request: FastifyRequest) => Promise<Counted> {
      const alone = (request: FastifyRequest): Counted => {
        const { current, ttl } = counter.count(keyOf(request))
        return { remaining: Math.max(max - current, 0), isExceeded: current > max, ttl }
      }
      if (!redis || !sharedLimiter) return async (request) => alone(request)
      // Hashed, because the tools of Redis show keys.
      const keyGenerator = (request: FastifyRequest) => hash('sha256', keyOf(request), 'base64url')
      const together = sharedLimiter({ max, timeWindow: windowMs, keyGenerator })
      return (request) => redis.run(() => together(request) as Promise<Counted>).catch(() => alone(request))
    }

    /** If the limit has a name, the response reports its state. */
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
        // A /64 network of IPv6 counts as one address.
        ({ raw }) => `address:${normalizeIP(clientAddress.of(raw))}`,
      ),
    )
  },
  { name: 'rate-limits', fastify: '5.x', dependencies: ['problem-details', 'redis'] },
)

/** Counts in Redis. The plugin's memory store is not used, because a jump of the wall clock would lock users out. */
async function createSharedLimiter(app: FastifyInstance, redis: RedisConnection['client']) {
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
