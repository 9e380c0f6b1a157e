import { hash } from 'node:crypto'
import rateLimit, { type RateLimitPluginOptions } from '@fastify/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from '../config.js'
import { Problem } from '../problems.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** An `onRequest` hook for guarded scopes, after authentication: so many requests of a user and of a company. */
    limitCaller(request: FastifyRequest, reply: FastifyReply): Promise<void>
    /** Counts a failed authentication against the address; good credentials from there are not affected. */
    limitFailures(request: FastifyRequest): Promise<void>
  }
}

type Limit = ReturnType<FastifyInstance['createRateLimit']>
type Result = Extract<Awaited<ReturnType<Limit>>, { isAllowed: false }>

const windowMs = 60_000
/** Who is counted within this process; of more the longest absent is forgotten. */
const maxCounted = 10_000
const nameSpace = 'onboarding-bff:rate:'

/** Counted by all replicas together while Redis is there, else by each for itself. */
export const rateLimits = fp<{ config: Config }>(
  async (app, { config }) => {
    const { sharedRedis } = app
    const local = await limiterFactory(app, {})
    const shared = sharedRedis && (await limiterFactory(app, { redis: sharedRedis.client, nameSpace }))
    const limit = (max: number, keyOf?: (request: FastifyRequest) => string): Limit => {
      // The plugin passes its own `cache` on to no limiter.
      const options = { max, timeWindow: windowMs, cache: maxCounted }
      const alone = local({ ...options, ...(keyOf && { keyGenerator: keyOf }) })
      if (!shared) return alone
      // Hashed for the same reason as the keys of tokens. An address has no such key, and so never the same.
      const hashed = keyOf && ((request: FastifyRequest) => hash('sha256', keyOf(request), 'base64url'))
      const together = shared({ ...options, ...(hashed && { keyGenerator: hashed }) })
      return (request) => sharedRedis.run(() => together(request)).catch(() => alone(request))
    }

    const ofUser = limit(config.RATE_LIMIT_USER_PER_MINUTE, ({ caller }) => `user:${caller?.userId}`)
    const ofCompany = limit(
      config.RATE_LIMIT_COMPANY_PER_MINUTE,
      ({ caller }) => `company:${caller?.companyId}`,
    )
    const ofAddress = limit(config.RATE_LIMIT_IP_PER_MINUTE)

    const userPolicy = policyItem('user', config.RATE_LIMIT_USER_PER_MINUTE)
    const policies = `${userPolicy}, ${policyItem('company', config.RATE_LIMIT_COMPANY_PER_MINUTE)}`

    app.decorate('limitCaller', async (request: FastifyRequest, reply: FastifyReply) => {
      const user = (await ofUser(request)) as Result
      const userState = stateItem('user', user)
      // A user at the limit does not use up the company's.
      if (user.isExceeded) announce(reply, userPolicy, userState)
      refuseAbove(user)
      const company = (await ofCompany(request)) as Result
      announce(reply, policies, `${userState}, ${stateItem('company', company)}`)
      refuseAbove(company)
    })
    app.decorate('limitFailures', async (request: FastifyRequest) => {
      refuseAbove((await ofAddress(request)) as Result)
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

function refuseAbove({ isExceeded, ttlInSeconds }: Result): void {
  if (isExceeded) throw new Problem('rate-limited', { retryAfterSeconds: Math.max(ttlInSeconds, 1) })
}

/** https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ */
function announce(reply: FastifyReply, policy: string, state: string): void {
  reply.header('ratelimit-policy', policy).header('ratelimit', state)
}

function policyItem(name: string, max: number): string {
  return `"${name}";q=${max};w=${windowMs / 1000}`
}

function stateItem(name: string, { remaining, ttlInSeconds }: Result): string {
  return `"${name}";r=${remaining};t=${ttlInSeconds}`
}
