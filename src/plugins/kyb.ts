import fp from 'fastify-plugin'
import type { Config } from '../config.js'
import { createBulkhead } from '../services/bulkhead.js'
import { createCircuitBreaker } from '../services/circuit-breaker.js'
import { createClientIdentity } from '../services/client-identity.js'
import { createMemoryFlights } from '../services/flights.js'
import { createIdenfyClient } from '../services/idenfy/client.js'
import { createConnections } from '../services/idenfy/connections.js'
import { createCredentials } from '../services/idenfy/credentials.js'
import { createReliableClient, isOutage } from '../services/idenfy/reliable-client.js'
import { createKybTokens, type KybTokens, type MintedToken } from '../services/kyb-tokens.js'
import { createRedisFlights } from '../services/redis-flights.js'
import { createRetryBudget } from '../services/retry-budget.js'
import { createSessionPolicy } from '../services/session-policy.js'
import { createStateCipher } from '../services/state-cipher.js'

declare module 'fastify' {
  interface FastifyInstance {
    kybTokens: KybTokens
  }
}

export interface KybOptions {
  readonly config: Config
  readonly now: () => number
  readonly monotonicNow: () => number
}

const maxQueueWaitMs = 500
const maxStoredTokens = 10_000
/** What a replica may take beyond the deadline of its call before another one takes over. */
const leaseSlackMs = 2_000

/** Builds the KYB services and owns the connections to iDenfy. */
export const kyb = fp<KybOptions>(
  async (app, { config, now, monotonicNow }) => {
    const { metrics, log } = app
    const dispatcher = createConnections({
      origin: config.IDENFY_BASE_URL,
      maxConnections: config.IDENFY_MAX_IN_FLIGHT,
      connectTimeoutMs: config.IDENFY_CONNECT_TIMEOUT_MS,
      phaseTimeoutMs: config.IDENFY_TIMEOUT_MS,
      extraCa: config.idenfyCa,
      proxyUrl: config.IDENFY_PROXY_URL,
    })
    const bulkhead = createBulkhead({ maxInFlight: config.IDENFY_MAX_IN_FLIGHT, maxWaitMs: maxQueueWaitMs })
    const breaker = createCircuitBreaker({ isOutage, monotonicNow })
    metrics.observe('idenfy_in_flight', 'POSTs to iDenfy in flight', bulkhead.inFlight)
    metrics.observe('idenfy_waiting', 'Requests that wait for a POST to iDenfy', bulkhead.waiting)
    metrics.observe('idenfy_circuit_open', 'Whether the circuit breaker keeps requests from iDenfy', () =>
      Number(breaker.isOpen()),
    )

    const idenfy = createReliableClient({
      client: createIdenfyClient({
        dispatcher,
        origin: config.IDENFY_BASE_URL,
        credentials: createCredentials(
          () => ({
            apiKey: config.readSecret('IDENFY_API_KEY'),
            apiSecret: config.readSecret('IDENFY_API_SECRET'),
          }),
          (err) => log.error({ err }, 'the new iDenfy credentials cannot be used, the old ones stay'),
        ),
        now,
        onDrift: (upstreamStatus) => {
          metrics.idenfyDrifts.inc()
          log.warn({ event: 'idenfy-contract-drift', upstreamStatus }, 'a token came with another status')
        },
      }),
      breaker,
      bulkhead,
      budget: createRetryBudget(),
      timeoutMs: config.IDENFY_TIMEOUT_MS,
      monotonicNow,
      onAttempt: (outcome) => metrics.idenfyRequests.inc({ outcome }),
      onRetry: (reason, granted) => metrics.idenfyRetries.inc({ reason, granted: String(granted) }),
      logger: log,
    })

    const flights = createMemoryFlights<MintedToken>({
      maxStored: maxStoredTokens,
      monotonicNow,
      beyond: app.sharedRedis
        ? createRedisFlights({
            shared: app.sharedRedis,
            cipher: createStateCipher(String(config.STATE_ENCRYPTION_KEY).split(',')),
            leaseMs: config.IDENFY_TIMEOUT_MS + leaseSlackMs,
          })
        : undefined,
    })
    app.addHook('onClose', async () => {
      await flights.settled()
      await dispatcher.close()
    })

    app.decorate(
      'kybTokens',
      createKybTokens({
        policy: createSessionPolicy(config.sessionPolicy),
        identify: createClientIdentity(
          { clientId: config.KYB_CLIENT_ID, externalRef: config.KYB_EXTERNAL_REF },
          config.KYB_IDENTITY_KEY,
        ),
        idenfy,
        flights,
        scope: [
          config.IDENFY_BASE_URL,
          config.IDENFY_ENVIRONMENT,
          config.AUTH_ISSUER,
          config.KYB_CLIENT_ID,
          config.KYB_EXTERNAL_REF,
        ],
        replayMs: config.KYB_REPLAY_SECONDS * 1000,
        uiUrl: config.IDENFY_UI_URL,
        now,
        onIssued: (origin) => metrics.kybTokens.inc({ origin }),
      }),
    )
  },
  { name: 'kyb', fastify: '5.x', dependencies: ['metrics', 'shared-state'] },
)
