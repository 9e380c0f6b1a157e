import cors from '@fastify/cors'
import helmet from '@fastify/helmet'
import fp from 'fastify-plugin'

export interface BrowsersOptions {
  /** Exact origins whose pages may call; none by default. */
  readonly origins: readonly string[]
}

const preflightMaxAgeSeconds = 7200

/** What browsers need: security headers, of those that mean something for an API, and CORS without cookies. */
export const browsers = fp<BrowsersOptions>(
  async (app, { origins }) => {
    await app.register(helmet, {
      contentSecurityPolicy: {
        useDefaults: false,
        directives: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] },
      },
      crossOriginOpenerPolicy: false,
      originAgentCluster: false,
      xDnsPrefetchControl: false,
      xDownloadOptions: false,
      xFrameOptions: false,
      xPermittedCrossDomainPolicies: false,
      xXssProtection: false,
    })
    if (origins.length === 0) return
    await app.register(cors, {
      origin: [...origins],
      methods: ['POST'],
      allowedHeaders: ['Authorization', 'Content-Type', 'Idempotency-Key', 'X-Company-Id'],
      exposedHeaders: ['Idempotency-Replayed', 'RateLimit', 'RateLimit-Policy', 'Retry-After'],
      maxAge: preflightMaxAgeSeconds,
    })
  },
  { name: 'browsers', fastify: '5.x' },
)
