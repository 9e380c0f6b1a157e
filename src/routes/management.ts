import type { FastifyPluginAsync } from 'fastify'
import type { Registry } from 'prom-client'
import { Problem } from '../problems/problem.js'

export interface ManagementOptions {
  readonly isDraining: () => boolean
  readonly hasSigningKeys: () => Promise<boolean>
  /** Resolves half a second after the start at the latest. */
  readonly idenfyWarmUp: () => Promise<void>
  readonly registry: Registry
}

/** Probes for the orchestrator. An outage of iDenfy does not make an instance unready, because all instances see it. */
export const managementRoutes: FastifyPluginAsync<ManagementOptions> = async (app, options) => {
  // Some monitors probe with HEAD.
  const probe = { exposeHeadRoute: true }
  app.get('/livez', probe, async () => ({ status: 'live' }))

  app.get('/readyz', probe, async () => {
    if (options.isDraining()) throw new Problem('draining')
    if (!(await options.hasSigningKeys())) throw new Problem('auth-keys-unavailable')
    await options.idenfyWarmUp()
    return { status: 'ready' }
  })

  app.get('/metrics', async (_request, reply) => {
    reply.type(options.registry.contentType)
    return options.registry.metrics()
  })
}
