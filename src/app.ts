import { randomUUID } from 'node:crypto'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify, {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyServerOptions,
  LogController,
} from 'fastify'
import type { Logger } from 'pino'
import type { Config } from './config.js'
import { accessLog } from './plugins/access-log.js'
import { authentication } from './plugins/authentication.js'
import { draining } from './plugins/draining.js'
import { kyb } from './plugins/kyb.js'
import { onClientError, onFrameworkError, problemDetails } from './plugins/problem-details.js'
import { managementRoutes } from './routes/management.js'
import { kybTokenRoute } from './routes/onboarding/kyb-token.js'

export interface AppDependencies {
  readonly logger: Logger
  /** Wall clock, milliseconds since the epoch. */
  readonly now?: () => number
}

const maxBodyBytes = 4096

/** Builds the public application; whoever calls it listens and closes. */
export async function buildApp(config: Config, { logger, now = Date.now }: AppDependencies) {
  const app = Fastify({
    ...serverOptions(logger),
    bodyLimit: maxBodyBytes,
  }).withTypeProvider<TypeBoxTypeProvider>()
  app.removeContentTypeParser('text/plain')

  await app.register(problemDetails)
  await app.register(accessLog)
  await app.register(draining)
  await app.register(authentication, { config, now })
  await app.register(kyb, { config, now })

  await app.register(async (guarded) => {
    guarded.addHook('onRequest', guarded.authenticate)
    await guarded.register(kybTokenRoute)
  })
  return app
}

/** Builds the application of the management listener, which answers for `app`. */
export async function buildManagementApp(app: FastifyInstance, { logger }: AppDependencies) {
  const management = Fastify(serverOptions(logger))
  await management.register(problemDetails)
  await management.register(managementRoutes, {
    isDraining: () => app.isDraining(),
    hasSigningKeys: () => app.hasSigningKeys(),
  })
  return management
}

function serverOptions(logger: Logger): FastifyServerOptions {
  return {
    loggerInstance: logger as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    genReqId: () => randomUUID(),
    // Fastify's defaults strip unknown properties, coerce types and stop at the first fault.
    ajv: {
      customOptions: { removeAdditional: false, coerceTypes: false, useDefaults: false, allErrors: true },
    },
    frameworkErrors: onFrameworkError,
    clientErrorHandler: onClientError,
    // The draining plugin answers in the shape of all other errors.
    return503OnClosing: false,
    exposeHeadRoutes: false,
  }
}
