import { randomUUID } from 'node:crypto'
import type { Server } from 'node:http'
import { type FastifyBaseLogger, type FastifyHttpOptions, LogController } from 'fastify'
import type { Logger } from 'pino'

/** Limits on what one client can make the server store or wait for. */
export interface Limits {
  readonly bodyBytes: number
  readonly headerBytes: number
  readonly connections: number
  /** Until the last header byte has arrived. */
  readonly headersTimeoutMs: number
  /** Until the last body byte has arrived. */
  readonly requestTimeoutMs: number
  /** How often Node checks the two timeouts. A connection can exceed them by this time. */
  readonly timeoutCheckMs: number
  readonly eventLoopDelayMs: number
}

export const defaultLimits: Limits = {
  bodyBytes: 4096,
  headerBytes: 16 * 1024,
  connections: 5000,
  headersTimeoutMs: 5000,
  requestTimeoutMs: 10_000,
  timeoutCheckMs: 1000,
  eventLoopDelayMs: 500,
}

/** How every server of this process parses, validates and limits requests. */
export function serverOptions(logger: Logger, limits: Limits): FastifyHttpOptions<Server> {
  return {
    loggerInstance: logger as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    genReqId: () => randomUUID(),
    // Fastify's defaults strip unknown properties, coerce types and stop at the first fault.
    ajv: {
      customOptions: { removeAdditional: false, coerceTypes: false, useDefaults: false, allErrors: true },
    },
    bodyLimit: limits.bodyBytes,
    requestTimeout: limits.requestTimeoutMs,
    http: {
      maxHeaderSize: limits.headerBytes,
      headersTimeout: limits.headersTimeoutMs,
      connectionsCheckingInterval: limits.timeoutCheckMs,
      // Node would refuse without a problem document. The strict-requests plugin checks instead.
      requireHostHeader: false,
    },
    // The graceful-shutdown plugin responds with a problem document instead.
    return503OnClosing: false,
    exposeHeadRoutes: false,
  }
}
