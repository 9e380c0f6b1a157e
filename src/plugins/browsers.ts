import cors from '@fastify/cors'
import fp from 'fastify-plugin'

export interface BrowsersOptions {
  /** Exact origins whose pages may call; none by default. */
  readonly origins: readonly string[]
}

const preflightMaxAgeSeconds = 7200

/** What Helmet would set, less what means nothing for an API; Helmet puts the same texts together for every answer. */
const securityHeaders = {
  'content-security-policy': "default-src 'none';frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'strict-transport-security': 'max-age=31536000; includeSubDomains',
  'x-content-type-options': 'nosniff',
}

/** What browsers need: security headers, and CORS without cookies. */
export const browsers = fp<BrowsersOptions>(
  async (app, { origins }) => {
    app.addHook('onRequest', (_request, reply, done) => {
      reply.headers(securityHeaders)
      done()
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
