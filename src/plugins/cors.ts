import fp from 'fastify-plugin'
import { Problem } from '../problems/problem.js'
import { createOriginMatcher } from '../services/http/origins.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** The security and CORS headers of a response, for the `Origin` of the request. */
    browserHeaders(origin: string | undefined): Readonly<Record<string, string>>
  }
}

const preflightMaxAgeSeconds = 7200

/** Helmet's headers, without those that have no meaning for an API. Helmet would build the same texts for every response. */
const securityHeaders = {
  'content-security-policy': "default-src 'none';frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'strict-transport-security': 'max-age=31536000; includeSubDomains',
  'x-content-type-options': 'nosniff',
}

const ownRequestHeaders = ['Authorization', 'Content-Type', 'Idempotency-Key', 'X-Company-Id', 'X-Request-Id']
/** Headers that tracing and monitoring scripts add to requests. A preflight that does not allow them fails. */
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
  // Without it Safari waits for a body.
  'content-length': '0',
}

/**
 * CORS without cookies, and security headers. Not @fastify/cors, because responses on a bare socket need the same
 * headers.
 */
export const cors = fp(
  async (app) => {
    const { CORS_ORIGINS: origins = [] } = app.config
    const isAllowed = createOriginMatcher(origins)
    const sharedFields = { ...securityHeaders, ...(origins.length > 0 && { vary: 'Origin' }) }
    const browserHeaders = (origin: string | undefined) =>
      origin === undefined || !isAllowed(origin)
        ? sharedFields
        : {
            ...sharedFields,
            'access-control-allow-origin': origin,
            'access-control-expose-headers': exposedHeaders.join(', '),
          }

    app.decorate('browserHeaders', browserHeaders)
    app.addHook('onRequest', (request, reply, done) => {
      const { origin } = request.headers
      reply.headers(browserHeaders(origin))
      const isPreflight =
        request.method === 'OPTIONS' &&
        origin !== undefined &&
        request.headers['access-control-request-method'] !== undefined
      if (origins.length === 0 || !isPreflight) return done()
      if (!isAllowed(origin)) return done(new Problem('preflight-refused'))
      // A request will follow.
      app.idenfyConnections.standby?.prepare()
      reply.code(204).headers(preflightFields).send()
    })
  },
  { name: 'cors', fastify: '5.x', dependencies: ['problem-details', 'idenfy-connections'] },
)
