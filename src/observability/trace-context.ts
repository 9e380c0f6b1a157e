import type { IncomingMessage } from 'node:http'
import type { FastifyBaseLogger } from 'fastify'

/** https://www.w3.org/TR/trace-context/#traceparent-header; a version to come may have more at its end. */
const traceparent =
  /^(?!ff|00-.{53})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-|$)/

/** For Fastify's `childLoggerFactory`: every line of a request bears the trace it belongs to. iDenfy is not told. */
export function withTraceId(
  logger: FastifyBaseLogger,
  bindings: object,
  options: object,
  { headers }: IncomingMessage,
): FastifyBaseLogger {
  const [, traceId] = traceparent.exec(headers.traceparent?.toString() ?? '') ?? []
  return logger.child(traceId === undefined ? bindings : { ...bindings, traceId }, options)
}
