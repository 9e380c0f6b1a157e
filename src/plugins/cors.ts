import fp from 'fastify-plugin'
import { Problem } from '../problems/problem.js'
import { createOriginMatcher } from '../services/http/origins.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** The fields that every response to a browser has, given the `Origin` of the request. */
    browserFields(origin: string | undefined): Readonly<Record<string, string>>
  }
}

export interface BrowsersOptions {
  /** Origins whose pages may call, some with a wildcard; none by default. */
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

const ownRequestHeaders = ['Authorization', 'Content-Type', 'Idempotency-Key', 'X-Company-Id', 'X-Request-Id']
/** What tracing and monitoring scripts add to the requests of a page. Not allowed, they would break every one of them. */
const tracingRequestHeaders = [
  ...['traceparent', 'tracestate', 'baggage', 'sentry-trace', 'newrelic', 'elastic-apm-traceparent'],
  ...['b3', 'X-B3-TraceId', 'X-B3-SpanId', 'X-B3-ParentSpanId', 'X-B3-Sampled', 'X-B3-Flags'],
  ...['x-datadog-origin', 'x-datadog-parent-id', 'x-datadog-sampling-priority', 'x-datadog-trace-id'],
  ...['x-datadog-tags', 'uber-trace-id', 'X-Amzn-Trace-Id', 'X-Cloud-Trace-Context', 'Request-Id'],
  ...['Request-Context', 'x-dtc', 'X-INSTANA-T', 'X-INSTANA-S', 'X-INSTANA-L'],
]
const exposedHeaders = [
  'Idempotency-Replayed',
  'RateLimit',
  'RateLimit-Policy',
  'Retry-After',
  'X-Request-Id',
]

const preflightFields = {
  'access-control-allow-methods': 'POST',
  'access-control-allow-headers': [...ownRequestHeaders, ...tracingRequestHeaders].join(', '),
  'access-control-max-age': String(preflightMaxAgeSeconds),
  // Safari waits for a body without it.
  'content-length': '0',
}

/**
 * What browsers need: security headers, and CORS without cookies. Not with @fastify/cors: responses on a bare socket need
 * the same fields.
 */
export const browsers = fp<BrowsersOptions>(
  async (app, { origins }) => {
    const isAllowed = createOriginMatcher(origins)
    const sharedFields = { ...securityHeaders, ...(origins.length > 0 && { vary: 'Origin' }) }
    const browserFields = (origin: string | undefined) =>
      origin === undefined || !isAllowed(origin)
        ? sharedFields
        : {
            ...sharedFields,
            'access-control-allow-origin': origin,
            'access-control-expose-headers': exposedHeaders.join(', '),
          }

    app.decorate('browserFields', browserFields)
    app.addHook('onRequest', (request, reply, done) => {
      const { origin } = request.headers
      reply.headers(browserFields(origin))
      const isPreflight =
        request.method === 'OPTIONS' &&
        origin !== undefined &&
        request.headers['access-control-request-method'] !== undefined
      if (origins.length === 0 || !isPreflight) return done()
      if (!isAllowed(origin)) return done(new Problem('preflight-refused'))
      reply.code(204).headers(preflightFields).send()
    })
  },
  { name: 'browsers', fastify: '5.x', dependencies: ['problem-details'] },
)
