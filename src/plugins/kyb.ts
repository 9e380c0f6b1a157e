import fp from 'fastify-plugin'
import type { Config } from '../config/config.js'
import { createClientIdentity } from '../services/kyb/client-identity.js'
import { createSessionPolicy, parsePolicy } from '../services/kyb/session-policy.js'
import { createKybTokens, type KybTokens, type Result } from '../services/kyb/token-issuer.js'
import { createStateCipher } from '../services/single-flight/encryption.js'
import { createMemoryFlights } from '../services/single-flight/memory.js'
import { createRedisFlights } from '../services/single-flight/redis.js'

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

/** iDenfy accepts 10,000 requests an hour. Each leaves up to two results, which are kept for an hour at most. */
const maxStoredResults = 20_000
/** What `REDIS_REQUIRED` says. A single replica has no state to share. */
const sharedStateRequiredFor = { false: 'none', keys: 'keys', true: 'all' } as const

/** Builds the KYB services. */
export const kyb = fp<KybOptions>(
  async (app, { config, now, monotonicNow }) => {
    const policy = await app.reload('policy', config.readPolicy, (text) =>
      createSessionPolicy(parsePolicy(text)),
    )
    const identify = await app.reload(
      'identity-key',
      async () => config.KYB_IDENTITY_KEY && (await config.readSecret('KYB_IDENTITY_KEY')),
      (key) =>
        createClientIdentity({ clientId: config.KYB_CLIENT_ID, externalRef: config.KYB_EXTERNAL_REF }, key),
    )
    const flights = createMemoryFlights<Result>({
      maxStored: maxStoredResults,
      monotonicNow,
      beyond: app.sharedRedis
        ? createRedisFlights({
            shared: app.sharedRedis,
            cipher: (
              await app.reload(
                'state-key',
                async () => (await config.readSecret('STATE_ENCRYPTION_KEY')).split(','),
                createStateCipher,
              )
            ).value,
            monotonicNow,
          })
        : undefined,
    })
    app.addHook('onClose', async () => flights.settled())

    app.decorate(
      'kybTokens',
      createKybTokens({
        policy: policy.value,
        identify: (caller, requestId) => identify.value()(caller, requestId),
        idenfy: app.idenfy,
        flights,
        scope: [
          config.IDENFY_BASE_URL,
          config.IDENFY_ENVIRONMENT,
          config.AUTH_ISSUER,
          config.KYB_CLIENT_ID,
          config.KYB_EXTERNAL_REF,
        ],
        replayMs: config.KYB_REPLAY_SECONDS * 1000,
        sharedStateRequiredFor:
          sharedStateRequiredFor[config.REDIS_REQUIRED as keyof typeof sharedStateRequiredFor],
        timeoutMs: config.IDENFY_TIMEOUT_MS,
        uiUrl: config.IDENFY_UI_URL,
        now,
        monotonicNow,
        onIssued: (origin) => app.metrics.kybTokens.inc({ origin }),
      }),
    )
  },
  { name: 'kyb', fastify: '5.x', dependencies: ['idenfy', 'metrics', 'reloads', 'shared-state'] },
)
