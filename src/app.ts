import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify, { type FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import { type Clock, systemClock } from './clock.js'
import type { Config } from './config/config.js'
import { withTraceId } from './observability/trace-context.js'
import { accessLog, onClientError, onFrameworkError } from './plugins/access-log.js'
import { authentication } from './plugins/authentication.js'
import { configReload } from './plugins/config-reload.js'
import { connections } from './plugins/connections.js'
import { cors } from './plugins/cors.js'
import { gracefulShutdown } from './plugins/graceful-shutdown.js'
import { idenfy } from './plugins/idenfy.js'
import { idenfyConnections } from './plugins/idenfy-connections.js'
import { kyb } from './plugins/kyb.js'
import { loadShedding } from './plugins/load-shedding.js'
import { type MetricsOptions, metrics } from './plugins/metrics.js'
import { openapi } from './plugins/openapi.js'
import { problemDetails, refuseOnSocket, sendProblem } from './plugins/problem-details.js'
import { rateLimits } from './plugins/rate-limits.js'
import { redis } from './plugins/redis.js'
import { createRequestId, requestIds } from './plugins/request-ids.js'
import { strictRequests } from './plugins/strict-requests.js'
import { documentationRoutes } from './routes/documentation.js'
import { managementRoutes } from './routes/management.js'
import { kybTokenRoute } from './routes/onboarding/kyb-token.js'
import { defaultLimits, type Limits, serverOptions } from './server-options.js'

declare module 'fastify' {
  interface FastifyInstance {
    config: Config
    clock: Clock
  }
}

export interface AppDependencies {
  readonly logger: Logger
  readonly clock?: Clock
  /** Where the log goes, for its metrics. */
  readonly logOutput?: MetricsOptions['logOutput']
  readonly limits?: Partial<Limits>
}

/** Builds the public application. The caller listens and closes. */
export async function buildApp(config: Config, dependencies: AppDependencies) {
  const {
    logger,
    clock = systemClock,
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

  app.decorate('config', config)
  app.decorate('clock', clock)
  await app.register(problemDetails)
  await app.register(connections)
  await app.register(requestIds)
  await app.register(metrics, { logOutput })
  await app.register(accessLog)
  await app.register(gracefulShutdown)
  await app.register(idenfyConnections)
  await app.register(cors)
  await app.register(loadShedding, { maxEventLoopDelayMs: limits.eventLoopDelayMs })
  await app.register(strictRequests)
  await app.register(redis)
  await app.register(rateLimits)
  await app.register(authentication)
  await app.register(configReload)
  await app.register(idenfy)
  await app.register(kyb)

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

/** Builds the application of the management listener, which reports on `app`. */
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
    isDraining: () => app.draining.aborted,
    hasSigningKeys: () => app.hasSigningKeys(),
    idenfyWarmUp: () => app.idenfyWarmUp(),
    registry: app.metrics.registry,
  })
  return management
}
