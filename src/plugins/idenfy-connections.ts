import fp from 'fastify-plugin'
import { inTime } from '../clock.js'
import { createConnections } from '../services/idenfy/connections.js'
import { replaceReasons } from '../services/idenfy/standby.js'
import { version } from '../version.js'

declare module 'fastify' {
  interface FastifyInstance {
    idenfyConnections: ReturnType<typeof createConnections>
    /** Resolves when the first attempt to connect to iDenfy has ended in any way, but soon after the start. */
    idenfyWarmUp(): Promise<void>
  }
}

export const userAgent = `onboarding-bff/${version}`
/** How long the first attempt may delay readiness, counted from its begin. An outage of iDenfy delays it no further. */
const maxWarmUpMs = 500

/** Owns the connections to iDenfy. One of them is opened now, and stands by for the first request. */
export const idenfyConnections = fp(
  async (app) => {
    const { config, clock, metrics } = app
    const standbyTaken = metrics.counter(
      'idenfy_standby_taken_total',
      'Connections to iDenfy that stood by until a request took them',
    )
    const standbyMissed = metrics.counter(
      'idenfy_standby_missed_total',
      'Connections to iDenfy that were opened for a request, because none stood by',
    )
    const standbyReplaced = metrics.counter(
      'idenfy_standby_replaced_total',
      'Standby connections to iDenfy that were replaced before a request took them, by reason',
      { reason: replaceReasons },
    )
    const connections = createConnections({
      origin: config.IDENFY_BASE_URL,
      maxConnections: config.IDENFY_MAX_IN_FLIGHT,
      connectTimeoutMs: config.IDENFY_CONNECT_TIMEOUT_MS,
      maxAgeMs: config.IDENFY_CONNECTION_MAX_AGE_MS,
      standbyMaxAgeMs: config.IDENFY_STANDBY_MAX_AGE_MS,
      extraCa: config.idenfyCa,
      proxyUrl: config.IDENFY_PROXY_URL,
      userAgent,
      clock,
      onConnected: (isStandby) => (isStandby ? standbyTaken : standbyMissed).inc(),
      onReplaced: (reason) => standbyReplaced.inc({ reason }),
      onUnavailable: (err) => app.log.warn({ err }, 'no connection to iDenfy stands by'),
      onAvailable: () => app.log.info('a connection to iDenfy stands by again'),
    })
    const { standby } = connections
    metrics.gauge('idenfy_standby_ready', 'Whether a connection to iDenfy stands by', () =>
      Number(standby?.isReady() ?? false),
    )

    app.decorate('idenfyConnections', connections)
    standby?.open()
    const warmUp = standby && inTime(clock, standby.firstAttempt, maxWarmUpMs, undefined)
    app.decorate('idenfyWarmUp', async () => warmUp)
    app.draining.addEventListener('abort', () => standby?.close(), { once: true })
    // Nothing is in flight any more: the kyb plugin closes before this one and waits for it.
    app.addHook('onClose', connections.destroy)
  },
  { name: 'idenfy-connections', fastify: '5.x', dependencies: ['metrics', 'graceful-shutdown'] },
)
