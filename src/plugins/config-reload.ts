import fp from 'fastify-plugin'
import { createReloadable, type Reloadable } from '../services/reload/reloadable.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** Creates a value with `make`, and again when its file changes. `what` is its name in metrics and log. */
    reload<Source, Value>(
      what: 'credentials' | 'identity-key' | 'policy' | 'state-key',
      read: () => Promise<Source>,
      make: (source: Source) => Value,
    ): Promise<Reloadable<Value>>
    /** Whether a file system does not respond. The process cannot exit by itself then. */
    isReadingHung(): boolean
  }
}

const everyMs = 1_000
/** A file system that does not respond for this long is reported. */
const maxReadMs = 5_000

/** Reloads secrets and policy without a restart. */
export const configReload = fp(
  async (app) => {
    const all = new Map<string, Reloadable<unknown>>()
    const failing: Record<string, () => number> = {}
    /** What is being read now. One file at a time: files that hang must not block all of Node's I/O threads. */
    let reading: string | undefined
    let hangsForMs = 0
    /** If one file hangs, no file is read. All of them may have changed. */
    const isHanging = () => reading !== undefined && hangsForMs >= maxReadMs
    app.decorate('isReadingHung', () => reading !== undefined && hangsForMs > 0)
    app.metrics.gaugeByLabel(
      'reload_failing',
      'Whether a file cannot be used as it is now, so that an older value is in use',
      'what',
      failing,
    )
    app.decorate('reload', async (what, read, make) => {
      const reloading = await createReloadable({
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
        clock: app.clock,
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
  { name: 'config-reload', fastify: '5.x', dependencies: ['metrics'] },
)
