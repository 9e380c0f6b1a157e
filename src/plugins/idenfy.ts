import fp from 'fastify-plugin'
import type { Config } from '../config/config.js'
import { basicAuthorization, createIdenfyClient } from '../services/idenfy/client.js'
import { createConnections } from '../services/idenfy/connections.js'
import {
  classifyFailure,
  createReliableClient,
  type ReliableClient,
} from '../services/idenfy/resilient-client.js'
import { createBulkhead } from '../services/resilience/bulkhead.js'
import { createCircuitBreaker } from '../services/resilience/circuit-breaker.js'
import { createRetryBudget } from '../services/resilience/retry-budget.js'
import { version } from '../version.js'

declare module 'fastify' {
  interface FastifyInstance {
    idenfy: ReliableClient
  }
}

export interface IdenfyOptions {
  readonly config: Config
  readonly now: () => number
  readonly monotonicNow: () => number
}

const userAgent = `onboarding-bff/${version}`

/** iDenfy's API: owns the connections. */
export const idenfy = fp<IdenfyOptions>(
  async (app, { config, now, monotonicNow }) => {
    const { metrics } = app
    const dispatcher = createConnections({
      origin: config.IDENFY_BASE_URL,
      maxConnections: config.IDENFY_MAX_IN_FLIGHT,
      // A connection that stands later is of no use to the request that it was opened for.
      connectTimeoutMs: Math.min(config.IDENFY_CONNECT_TIMEOUT_MS, config.IDENFY_TIMEOUT_MS),
      extraCa: config.idenfyCa,
      proxyUrl: config.IDENFY_PROXY_URL,
      userAgent,
    })
    // Nothing is in flight any more: the KYB plugin, which closes before this one, has waited for it.
    app.addHook('onClose', async () => dispatcher.destroy())

    const authorization = await app.reload(
      'credentials',
      async () => ({
        apiKey: await config.readSecret('IDENFY_API_KEY'),
        apiSecret: await config.readSecret('IDENFY_API_SECRET'),
      }),
      basicAuthorization,
    )
    const bulkhead = createBulkhead({ maxInFlight: config.IDENFY_MAX_IN_FLIGHT })
    const breaker = createCircuitBreaker({ classify: classifyFailure, monotonicNow })
    metrics.observe(
      'idenfy_credentials_generation',
      'Pairs of key and secret used so far',
      authorization.generation,
    )
    metrics.observe('idenfy_in_flight', 'POSTs to iDenfy in flight', bulkhead.inFlight)
    metrics.observe('idenfy_waiting', 'Requests that wait for a POST to iDenfy', bulkhead.waiting)
    metrics.observe('idenfy_circuit_open', 'Whether the circuit breaker keeps requests from iDenfy', () =>
      Number(breaker.isOpen()),
    )

    app.decorate(
      'idenfy',
      createReliableClient({
        client: createIdenfyClient({
          dispatcher,
          origin: config.IDENFY_BASE_URL,
          authorization,
          userAgent,
          now,
          monotonicNow,
          onDrift: (upstreamStatus, log) => {
            metrics.idenfyDrifts.inc()
            log.warn({ event: 'idenfy-contract-drift', upstreamStatus }, 'a token came with another status')
          },
        }),
        breaker,
        bulkhead,
        budget: createRetryBudget(),
        timeoutMs: config.IDENFY_TIMEOUT_MS,
        monotonicNow,
        onAttempt: (outcome, durationMs, failureClass) => {
          metrics.idenfyRequests.inc({ outcome })
          if (failureClass) metrics.idenfyFailures.inc({ class: failureClass })
          metrics.idenfySeconds.observe(durationMs / 1000)
        },
        onRetry: (reason, granted) => metrics.idenfyRetries.inc({ reason, granted: String(granted) }),
      }),
    )
  },
  { name: 'idenfy', fastify: '5.x', dependencies: ['metrics', 'reloads'] },
)
