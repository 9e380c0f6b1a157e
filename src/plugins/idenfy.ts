import fp from 'fastify-plugin'
import { basicAuthorization, createIdenfyClient } from '../services/idenfy/client.js'
import {
  classifyFailure,
  createResilientClient,
  type ResilientClient,
} from '../services/idenfy/resilient-client.js'
import { createBulkhead } from '../services/resilience/bulkhead.js'
import { createCircuitBreaker } from '../services/resilience/circuit-breaker.js'
import { createRetryBudget } from '../services/resilience/retry-budget.js'
import { userAgent } from './idenfy-connections.js'

declare module 'fastify' {
  interface FastifyInstance {
    idenfy: ResilientClient
  }
}

/** Builds the client of iDenfy's API. */
export const idenfy = fp(
  async (app) => {
    const { metrics, config, clock, idenfyConnections } = app
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
          dispatcher: idenfyConnections,
          origin: config.IDENFY_BASE_URL,
          authorization,
          userAgent,
          clock,
          onIdleLimit: (limitMs) => idenfyConnections.standby?.noteIdleLimit(limitMs),
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
          // The connection may be dead. Others may be, too.
          if (outcome === 'provider-timeout') idenfyConnections.renew()
          if (failureClass) metrics.idenfyFailures.inc({ class: failureClass })
          metrics.idenfySeconds.observe(durationMs / 1000)
        },
        onRetry: (reason, granted) => metrics.idenfyRetries.inc({ reason, granted: String(granted) }),
      }),
    )
  },
  { name: 'idenfy', fastify: '5.x', dependencies: ['idenfy-connections', 'metrics', 'config-reload'] },
)
