import fp from 'fastify-plugin'
import { createReloading, type Reloading } from '../services/reload/reloadable.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** A value of the configuration that follows its file, with `make` applied; `what` names it for metrics and log. */
    reload<Source, Value>(
      what: 'credentials' | 'identity-key' | 'policy' | 'state-key',
      read: () => Promise<Source>,
      make: (source: Source) => Value,
    ): Promise<Reloading<Value>>
    /** Whether a file system does not respond, so that the process cannot exit by itself. */
    isReadingHung(): boolean
  }
}

const everyMs = 1_000
/** After so long a file system that does not respond is reported. */
const maxReadMs = 5_000

/** Secrets and policy change without a restart. */
export const reloads = fp(
  async (app) => {
    const all = new Map<string, Reloading<unknown>>()
    const failing: Record<string, () => number> = {}
    /** What is being read. One file at a time: one that hangs must not take all the threads that Node reads with. */
    let reading: string | undefined
    let hangsForMs = 0
    /** Nothing is read then: all files may have changed without notice. */
    const isHanging = () => reading !== undefined && hangsForMs >= maxReadMs
    app.decorate('isReadingHung', () => reading !== undefined && hangsForMs > 0)
    app.metrics.observeEach(
      'reload_failing',
      'Whether a file cannot be used as it is now, so that an older value is in use',
      'what',
      failing,
    )
    app.decorate('reload', async (what, read, make) => {
      const reloading = await createReloading({
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
      all.set(what, reloading)
      failing[what] = () => Number(reloading.isFailing() || isHanging())
      return reloading
    })

    async function checkAll(): Promise<void> {
      for (const [what, reloading] of all) {
        reading = what
        hangsForMs = 0
        await reloading.check()
      }
      reading = undefined
    }

    let timer: NodeJS.Timeout | undefined
    app.addHook('onReady', async () => {
      timer = setInterval(() => {
        if (reading === undefined) return void checkAll()
        hangsForMs += everyMs
        if (hangsForMs === maxReadMs)
          app.log.error({ what: reading }, 'a file cannot be read: the file system hangs')
      }, everyMs).unref()
    })
    app.addHook('onClose', async () => clearInterval(timer))
  },
  { name: 'reloads', fastify: '5.x', dependencies: ['metrics'] },
)
