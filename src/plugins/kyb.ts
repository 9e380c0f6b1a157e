import fp from 'fastify-plugin'
import { createClientIdentity } from '../services/kyb/client-identity.js'
import { createSessionPolicy, parsePolicy } from '../services/kyb/session-policy.js'
import { createTokenIssuer, type Result, type TokenIssuer } from '../services/kyb/token-issuer.js'
import { createStateCipher } from '../services/single-flight/encryption.js'
import { createMemorySingleFlight } from '../services/single-flight/memory.js'
import { createRedisSingleFlight } from '../services/single-flight/redis.js'

declare module 'fastify' {
  interface FastifyInstance {
    tokenIssuer: TokenIssuer
  }
}

/** iDenfy accepts 10,000 requests an hour. Each has up to two results, which are kept for an hour at most. */
const maxStoredResults = 20_000
/** Maps the values of `REDIS_REQUIRED`. */
const sharedStateRequiredFor = { false: 'none', keys: 'keys', true: 'all' } as const

/** Builds the KYB services. */
export const kyb = fp(
  async (app) => {
    const { config, clock } = app
    const policy = await app.reload('policy', config.readPolicy, (text) =>
      createSessionPolicy(parsePolicy(text)),
    )
    const identify = await app.reload(
      'identity-key',
      async () => config.KYB_IDENTITY_KEY && (await config.readSecret('KYB_IDENTITY_KEY')),
      (key) =>
        createClientIdentity({ clientId: config.KYB_CLIENT_ID, externalRef: config.KYB_EXTERNAL_REF }, key),
    )
    const singleFlight = createMemorySingleFlight<Result>({
      maxStored: maxStoredResults,
      clock,
      replicaWide: app.redis
        ? createRedisSingleFlight({
            redis: app.redis,
            cipher: (
              await app.reload(
                'state-key',
                async () => (await config.readSecret('STATE_ENCRYPTION_KEY')).split(','),
                createStateCipher,
              )
            ).value,
            clock,
          })
        : undefined,
    })
    app.addHook('onClose', async () => singleFlight.settled())

    app.decorate(
      'tokenIssuer',
      createTokenIssuer({
        policy: policy.value,
        identify: (caller, requestId) => identify.value()(caller, requestId),
        idenfy: app.idenfy,
        singleFlight,
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
        clock,
        onIssued: (origin) => app.metrics.kybTokens.inc({ origin }),
      }),
    )
  },
  { name: 'kyb', fastify: '5.x', dependencies: ['idenfy', 'metrics', 'config-reload', 'redis'] },
)
