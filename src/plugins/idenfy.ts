import fp from 'fastify-plugin'
import { basicAuthorization, createIdenfyClient } from '../services/idenfy/client.js'
import { createConnections } from '../services/idenfy/connections.js'
import {
  classifyFailure,
  createResilientClient,
  type ResilientClient,
} from '../services/idenfy/resilient-client.js'
import { createBulkhead } from '../services/resilience/bulkhead.js'
import { createCircuitBreaker } from '../services/resilience/circuit-breaker.js'
import { createRetryBudget } from '../services/resilience/retry-budget.js'
import { version } from '../version.js'

declare module 'fastify' {
  interface FastifyInstance {
    idenfy: ResilientClient
  }
}

const userAgent = `onboarding-bff/${version}`

/** Builds the client of iDenfy's API, and owns its connections. */
export const idenfy = fp(
  async (app) => {
    const { metrics, config, clock } = app
    const dispatcher = createConnections({
      origin: config.IDENFY_BASE_URL,
      maxConnections: config.IDENFY_MAX_IN_FLIGHT,
      connectTimeoutMs: config.IDENFY_CONNECT_TIMEOUT_MS,
      extraCa: config.idenfyCa,
      proxyUrl: config.IDENFY_PROXY_URL,
      userAgent,
    })
    // Nothing is in flight any more: the kyb plugin closes before this one and waits for it.
    app.addHook('onClose', async () => dispatcher.destroy())

    const authorization = await app.reload(
      'credentials',
      async () => ({
        apiKey: await config.readSecret('IDENFY_API_KEY'),
        apiSecret: await config.readSecret('IDENFY_API_SECRET'),
      }),
      basicAuthorization,
    )
    const bulkhead = createBulkhead({ maxInFlight: config.IDENFY_MAX_IN_FLIGHT, clock })
    const breaker = createCircuitBreaker({ classify: classifyFailure, clock })
    metrics.gauge(
      'idenfy_credentials_generation',
      'Pairs of key and secret used so far',
      authorization.generation,
    )
    metrics.gauge('idenfy_in_flight', 'POSTs to iDenfy in flight', bulkhead.inFlight)
    metrics.gauge('idenfy_waiting', 'Requests that wait for a POST to iDenfy', bulkhead.waiting)
    metrics.gauge('idenfy_circuit_open', 'Whether the circuit breaker refuses calls to iDenfy', () =>
      Number(breaker.isOpen()),
    )

    app.decorate(
      'idenfy',
      createResilientClient({
        client: createIdenfyClient({
          dispatcher,
          origin: config.IDENFY_BASE_URL,
          authorization,
          userAgent,
          clock,
          onDrift: (upstreamStatus, log) => {
            metrics.idenfyDrifts.inc()
            log.warn({ event: 'idenfy-contract-drift', upstreamStatus }, 'a token came with another status')
          },
        }),
        breaker,
        bulkhead,
        budget: createRetryBudget(),
        timeoutMs: config.IDENFY_TIMEOUT_MS,
        clock,
        onAttempt: (outcome, durationMs, failureClass) => {
          metrics.idenfyRequests.inc({ outcome })
          if (failureClass) metrics.idenfyFailures.inc({ class: failureClass })
          metrics.idenfySeconds.observe(durationMs / 1000)
        },
        onRetry: (reason, granted) => metrics.idenfyRetries.inc({ reason, granted: String(granted) }),
      }),
    )
  },
  { name: 'idenfy', fastify: '5.x', dependencies: ['metrics', 'config-reload'] },
)
