import type { IncomingMessage } from 'node:http'
import type { FastifyBaseLogger } from 'fastify'

/** https://www.w3.org/TR/trace-context/#traceparent-header. Later versions may add fields at the end. */
const traceparent =
  /^(?!ff|00-.{53})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-|$)/

/** For Fastify's `childLoggerFactory`: every log line of a request has its trace id. It is not sent to iDenfy. */
export function withTraceId(
  logger: FastifyBaseLogger,
  bindings: object,
  options: object,
  { headers }: IncomingMessage,
): FastifyBaseLogger {
  const [, traceId] = traceparent.exec(headers.traceparent?.toString() ?? '') ?? []
  return logger.child(traceId === undefined ? bindings : { ...bindings, traceId }, options)
}
