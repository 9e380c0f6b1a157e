import { randomUUID } from 'node:crypto'
import type { Server } from 'node:http'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify, {
  type FastifyBaseLogger,
  type FastifyHttpOptions,
  type FastifyInstance,
  LogController,
} from 'fastify'
import type { Logger } from 'pino'
import type { Config } from './config/config.js'
import { withTraceId } from './observability/trace-context.js'
import { accessLog, onClientError, onFrameworkError } from './plugins/access-log.js'
import { authentication } from './plugins/authentication.js'
import { reloads } from './plugins/config-reload.js'
import { connections } from './plugins/connections.js'
import { browsers } from './plugins/cors.js'
import { draining } from './plugins/graceful-shutdown.js'
import { idenfy } from './plugins/idenfy.js'
import { kyb } from './plugins/kyb.js'
import { overload } from './plugins/load-shedding.js'
import { type MetricsOptions, metrics } from './plugins/metrics.js'
import { openapi } from './plugins/openapi.js'
import { problemDetails, refuseOnSocket, sendProblem } from './plugins/problem-details.js'
import { rateLimits } from './plugins/rate-limits.js'
import { sharedState } from './plugins/redis.js'
import { createRequestId, requestIds } from './plugins/request-ids.js'
import { strictRequests } from './plugins/strict-requests.js'
import { documentationRoutes } from './routes/documentation.js'
import { managementRoutes } from './routes/management.js'
import { kybTokenRoute } from './routes/onboarding/kyb-token.js'

export interface AppDependencies {
  readonly logger: Logger
  /** Wall clock, milliseconds since the epoch. */
  readonly now?: () => number
  /** Milliseconds of a clock that never goes back. */
  readonly monotonicNow?: () => number
  /** Where the log goes, for its metrics. */
  readonly logOutput?: MetricsOptions['logOutput']
  readonly limits?: Partial<Limits>
}

/** Bounds on what a client can make the server hold or wait for. */
export interface Limits {
  readonly bodyBytes: number
  readonly headerBytes: number
  readonly connections: number
  /** Until the last header byte has arrived. */
  readonly headersTimeoutMs: number
  /** Until the last body byte has arrived. */
  readonly requestTimeoutMs: number
  /** How often Node looks at the two timeouts; a connection can outlive them by so much. */
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

/** Builds the public application; whoever calls it listens and closes. */
export async function buildApp(config: Config, dependencies: AppDependencies) {
  const {
    logger,
    now = Date.now,
    monotonicNow = () => performance.now(),
    logOutput = { droppedLines: () => 0, isFailing: () => false },
  } = dependencies
  const limits = { ...defaultLimits, ...dependencies.limits }
  const app = Fastify({
    ...serverOptions(logger, limits),
    keepAliveTimeout: config.KEEP_ALIVE_TIMEOUT_MS,
    genReqId: createRequestId(config.TRUST_PROXY),
    childLoggerFactory: withTraceId,
    frameworkErrors: onFrameworkError,
    clientErrorHandler: onClientError,
  }).withTypeProvider<TypeBoxTypeProvider>()
  app.server.maxConnections = limits.connections

  await app.register(problemDetails)
  await app.register(connections)
  await app.register(requestIds)
  await app.register(metrics, { config, logOutput })
  await app.register(accessLog, { monotonicNow })
  await app.register(browsers, { origins: config.CORS_ORIGINS ?? [] })
  await app.register(draining)
  await app.register(overload, { maxEventLoopDelayMs: limits.eventLoopDelayMs })
  await app.register(strictRequests)
  await app.register(sharedState, { config })
  await app.register(rateLimits, { config, monotonicNow })
  await app.register(authentication, { config, now, monotonicNow })
  await app.register(reloads)
  await app.register(idenfy, { config, now, monotonicNow })
  await app.register(kyb, { config, now, monotonicNow })

  if (config.DOCS) {
    await app.register(openapi)
    await app.register(documentationRoutes)
  }
  await app.register(async (guarded) => {
    guarded.addHook('onRequest', guarded.authenticate)
    guarded.addHook('onRequest', guarded.limitRequests)
    await guarded.register(kybTokenRoute)
  })
  return app
}

/** Builds the application of the management listener, which answers for `app`. */
export async function buildManagementApp(app: FastifyInstance, { logger }: AppDependencies) {
  const management = Fastify({
    ...serverOptions(logger, defaultLimits),
    frameworkErrors: sendProblem,
    clientErrorHandler: refuseOnSocket,
  })
  await management.register(problemDetails)
  await management.register(connections)
  await management.register(requestIds)
  await management.register(managementRoutes, {
    isDraining: () => app.isDraining(),
    hasSigningKeys: () => app.hasSigningKeys(),
    registry: app.metrics.registry,
  })
  return management
}

/**
 * Listens on an address. `::` takes IPv4 too, and where there is no IPv6 it means `0.0.0.0`: that is Node's default.
 * `localhost` is one address, because the second server that Fastify would start has none of the above.
 */
export async function listen(app: FastifyInstance, host: string, port: number): Promise<void> {
  await app.listen({ host: { '::': '', localhost: '127.0.0.1' }[host] ?? host, port })
}

/** How every server of this process parses, validates and bounds what comes in. */
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
      // Node's own refusal is no problem+json; the strict-requests plugin looks.
      requireHostHeader: false,
    },
    // The draining plugin answers in the shape of all other errors.
    return503OnClosing: false,
    exposeHeadRoutes: false,
  }
}
