import { hash } from 'node:crypto'
import rateLimit, { normalizeIP, type RateLimitPluginOptions } from '@fastify/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from '../config.js'
import { Problem } from '../problems.js'
import { createClientAddress } from '../services/client-address.js'
import { createRateCounter } from '../services/rate-counter.js'

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

type Limit = (request: FastifyRequest) => Promise<Result>
interface Result {
  readonly remaining: number
  readonly ttlInSeconds: number
  readonly isExceeded: boolean
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
    const local = await limiterFactory(app, { store: localStore(monotonicNow) })
    const shared = sharedRedis && (await limiterFactory(app, { redis: sharedRedis.client, nameSpace }))
    const limit = (max: number, keyOf: (request: FastifyRequest) => string): Limit => {
      const options = { max, timeWindow: windowMs }
      const alone = local({ ...options, keyGenerator: keyOf }) as Limit
      if (!shared) return alone
      // Hashed for the same reason as the keys of tokens.
      const hashed = (request: FastifyRequest) => hash('sha256', keyOf(request), 'base64url')
      const together = shared({ ...options, keyGenerator: hashed }) as Limit
      return (request) => sharedRedis.run(() => together(request)).catch(() => alone(request))
    }

    const {
      RATE_LIMIT_REQUESTS_PER_MINUTE: maxRequests,
      RATE_LIMIT_USER_PER_MINUTE: maxOfUser,
      RATE_LIMIT_COMPANY_PER_MINUTE: maxOfCompany,
    } = config
    const requestsOfUser = limit(maxRequests, ({ caller }) => `requests:${caller?.userId}`)
    const ofUser = limit(maxOfUser, ({ caller }) => `user:${caller?.userId}`)
    const ofCompany = limit(maxOfCompany, ({ caller }) => `company:${caller?.companyId}`)
    // An IPv6 network of 64 bits counts as one address.
    const ofAddress = limit(
      config.RATE_LIMIT_IP_PER_MINUTE,
      ({ raw }) => `address:${normalizeIP(clientAddress.of(raw))}`,
    )

    app.decorate('limitRequests', async (request: FastifyRequest, reply: FastifyReply) => {
      const requests = await requestsOfUser(request)
      announce(reply, 'requests', maxRequests, requests)
      refuseAbove(requests)
    })
    app.decorate('limitVerifications', async (request: FastifyRequest, reply: FastifyReply) => {
      const user = await ofUser(request)
      announce(reply, 'user', maxOfUser, user)
      // A user at the limit does not use up the company's.
      refuseAbove(user)
      const company = await ofCompany(request)
      announce(reply, 'company', maxOfCompany, company)
      refuseAbove(company)
    })
    app.decorate('limitFailures', async (request: FastifyRequest) => {
      refuseAbove(await ofAddress(request))
    })
  },
  { name: 'rate-limits', fastify: '5.x', dependencies: ['problem-details', 'shared-state'] },
)

/** The plugin's decorator belongs to one store, so each store gets a scope of its own. */
async function limiterFactory(app: FastifyInstance, store: RateLimitPluginOptions) {
  let factory: FastifyInstance['createRateLimit'] | undefined
  await app.register(async (scope) => {
    await scope.register(rateLimit, { global: false, ...store })
    factory = scope.createRateLimit
  })
  return factory as FastifyInstance['createRateLimit']
}

/** The plugin's own counts by the wall clock: after a jump back it locks users out for as long. */
function localStore(monotonicNow: () => number) {
  return class LocalStore {
    readonly #counter = createRateCounter({ windowMs, maxKeys: maxCounted, monotonicNow })

    incr(key: string, done: (error: null, result: { current: number; ttl: number }) => void): void {
      done(null, this.#counter.count(key))
    }

    child(): LocalStore {
      return new LocalStore()
    }
  }
}

function refuseAbove({ isExceeded, ttlInSeconds }: Result): void {
  if (isExceeded) throw new Problem('rate-limited', { retryAfterSeconds: withinWindow(ttlInSeconds) })
}

/** https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ */
function announce(reply: FastifyReply, name: string, max: number, { remaining, ttlInSeconds }: Result): void {
  append(reply, 'ratelimit-policy', `"${name}";q=${max};w=${windowMs / 1000}`)
  append(reply, 'ratelimit', `"${name}";r=${remaining};t=${withinWindow(ttlInSeconds)}`)
}

function append(reply: FastifyReply, field: string, item: string): void {
  const items = reply.getHeader(field)
  reply.header(field, items === undefined ? item : `${items}, ${item}`)
}

function withinWindow(seconds: number): number {
  return Math.min(Math.max(seconds, 1), windowMs / 1000)
}
