import fp from 'fastify-plugin'
import { createReloading, type Reloading } from '../services/reloading.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** A value of the configuration that follows its file, with `make` applied; `what` names it for metrics and log. */
    reload<Source, Value>(
      what: 'credentials' | 'identity-key' | 'policy' | 'state-key',
      read: () => Source,
      make: (source: Source) => Value,
    ): Reloading<Value>
  }
}

const everyMs = 1_000

/** Secrets and policy change without a restart. */
export const reloads = fp(
  async (app) => {
    const all: { check(): void }[] = []
    const failing: Record<string, () => number> = {}
    app.metrics.observeEach(
      'reload_failing',
      'Whether a file cannot be used as it is now, so that an older value is in use',
      'what',
      failing,
    )
    app.decorate('reload', (what, read, make) => {
      const reloading = createReloading({
        read,
        make,
        onChange: () => {
          app.metrics.reloads.inc({ what, outcome: 'taken' })
          app.log.info({ what }, 'reloaded')
        },
        onFault: ({ message: fault }) => {
          app.metrics.reloads.inc({ what, outcome: 'refused' })
          app.log.error({ what, fault }, 'a new value cannot be used, the old one stays')
        },
      })
      all.push(reloading)
      failing[what] = () => Number(reloading.isFailing())
      return reloading
    })

    let timer: NodeJS.Timeout | undefined
    app.addHook('onReady', async () => {
      timer = setInterval(() => {
        for (const reloading of all) reloading.check()
      }, everyMs).unref()
    })
    app.addHook('onClose', async () => clearInterval(timer))
  },
  { name: 'reloads', fastify: '5.x', dependencies: ['metrics'] },
)
