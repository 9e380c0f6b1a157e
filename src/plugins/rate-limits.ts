import rateLimit from '@fastify/rate-limit'
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

export const rateLimits = fp<{ config: Config }>(
  async (app, { config }) => {
    await app.register(rateLimit, { global: false, cache: 10_000 })
    const limit = (max: number, keyGenerator?: (request: FastifyRequest) => string): Limit =>
      app.createRateLimit({ max, timeWindow: windowMs, ...(keyGenerator && { keyGenerator }) })

    const ofUser = limit(config.RATE_LIMIT_USER_PER_MINUTE, ({ caller }) => String(caller?.userId))
    const ofCompany = limit(config.RATE_LIMIT_COMPANY_PER_MINUTE, ({ caller }) => String(caller?.companyId))
    const ofAddress = limit(config.RATE_LIMIT_IP_PER_MINUTE)

    app.decorate('limitCaller', async (request: FastifyRequest, reply: FastifyReply) => {
      const user = (await ofUser(request)) as Result
      // A user at the limit does not use up the company's.
      const limits: Record<string, Result> = user.isExceeded
        ? { user }
        : { user, company: (await ofCompany(request)) as Result }
      announce(reply, limits)
      Object.values(limits).forEach(refuseAbove)
    })
    app.decorate('limitFailures', async (request: FastifyRequest) => {
      refuseAbove((await ofAddress(request)) as Result)
    })
  },
  { name: 'rate-limits', fastify: '5.x', dependencies: ['problem-details'] },
)

function refuseAbove({ isExceeded, ttlInSeconds }: Result): void {
  if (isExceeded) throw new Problem('rate-limited', { retryAfterSeconds: Math.max(ttlInSeconds, 1) })
}

/** https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ */
function announce(reply: FastifyReply, limits: Record<string, Result>): void {
  const items = Object.entries(limits)
  reply.headers({
    'ratelimit-policy': items.map(([name, { max }]) => `"${name}";q=${max};w=${windowMs / 1000}`).join(', '),
    ratelimit: items
      .map(([name, { remaining, ttlInSeconds }]) => `"${name}";r=${remaining};t=${ttlInSeconds}`)
      .join(', '),
  })
}
