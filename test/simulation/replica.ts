import { createAccessTokenVerifier } from '../../src/services/auth/access-token-verifier.js'
import type { Caller } from '../../src/services/auth/caller.js'
import { createCallerResolver } from '../../src/services/auth/caller.js'
import { createSigningKeys } from '../../src/services/auth/signing-keys.js'
import {
  basicAuthorization,
  createIdenfyClient,
  type IdenfyClient,
} from '../../src/services/idenfy/client.js'
import { classifyFailure, createResilientClient } from '../../src/services/idenfy/resilient-client.js'
import { createStandby } from '../../src/services/idenfy/standby.js'
import { createClientIdentity } from '../../src/services/kyb/client-identity.js'
import { createSessionPolicy, parsePolicy } from '../../src/services/kyb/session-policy.js'
import { createTokenIssuer, type Result } from '../../src/services/kyb/token-issuer.js'
import { createReloadable } from '../../src/services/reload/reloadable.js'
import { createBulkhead } from '../../src/services/resilience/bulkhead.js'
import { createCircuitBreaker } from '../../src/services/resilience/circuit-breaker.js'
import { createRetryBudget } from '../../src/services/resilience/retry-budget.js'
import { createStateCipher } from '../../src/services/single-flight/encryption.js'
import { createMemorySingleFlight } from '../../src/services/single-flight/memory.js'
import { createRedisSingleFlight } from '../../src/services/single-flight/redis.js'
import { createRedisConnection } from '../../src/services/single-flight/redis-connection.js'
import type { Files } from './files.js'
import { createSimulatedDispatcher, type DispatcherOptions, type Idenfy } from './idenfy.js'
import { audience, type IdentityProvider, issuer } from './identity-provider.js'
import { type Network, randomOf } from './network.js'
import type { Process } from './process.js'
import { createRedisClient } from './redis-client.js'
import type { RedisServer } from './redis-server.js'
import type { Scenario } from './scenario.js'
import type { VirtualTime } from './virtual-time.js'

const connectTimeoutMs = 1_000
const tickMs = 1_000
const commandTimeoutMs = 80
const never = Number.POSITIVE_INFINITY
const cipher = createStateCipher([Buffer.alloc(32, 'k').toString('base64')])

export interface ReplicaOptions {
  readonly scenario: Scenario
  readonly process: Process
  readonly time: VirtualTime
  readonly network: Network
  readonly idenfy: Idenfy
  readonly provider: IdentityProvider
  readonly redis: RedisServer | undefined
  readonly files: Files
  readonly onPost: DispatcherOptions['onPost']
  /** Called for each call of iDenfy. What it returns is called when the call ends, without an error after a token. */
  readonly onAttempt: (isProbe: boolean) => (requestId: string, error: unknown) => void
  readonly onKeyFetchFailed: () => void
  readonly note: (text: () => string) => void
}

export interface OnboardingRequest {
  readonly id: string
  readonly accessToken: string
  readonly locale: 'lt' | 'en'
  readonly idempotencyKey: string | undefined
  readonly isAbandoned: () => boolean
}

/** The services of one instance, put together as the plugins do. Only what they reach outside of the process differs. */
export async function startReplica(options: ReplicaOptions) {
  const { scenario, process, network, provider, files, note, onAttempt } = options
  const { clock } = process
  const { timeoutMs, maxInFlight } = scenario
  let drawn = 0
  const random = () => {
    drawn += 1
    return randomOf(scenario.seed, 31, drawn)
  }
  const log = { info: () => {}, warn: () => {} }

  const signingKeys = createSigningKeys({
    fetchKeySet: () => provider.fetchFor(process, network),
    algorithms: ['EdDSA'],
    fetchTimeoutMs: Math.min(2_000, timeoutMs / 2),
    unknownKeyIntervalMs: Math.min(1_000, (timeoutMs * 3) / 8),
    onFetchFailed: options.onKeyFetchFailed,
    onKeysIgnored: () => {},
    clock,
    random,
  })
  const verify = createAccessTokenVerifier({
    signingKeys,
    issuer,
    audience,
    algorithms: ['EdDSA'],
    tokenTypes: ['at+jwt'],
    clockToleranceSeconds: 5,
    maxLifetimeSeconds: 31_536_000,
    timeoutMs: (timeoutMs * 3) / 4,
    clock,
  })
  const resolveCaller = createCallerResolver({ userClaim: 'sub', companyClaim: 'company' })

  const watched = { onChange: () => {}, onFault: () => {}, clock }
  const credentials = await createReloadable({
    ...watched,
    read: files.readCredentials,
    make: basicAuthorization,
  })
  const policy = await createReloadable({
    ...watched,
    read: files.readPolicy,
    make: (text) => createSessionPolicy(parsePolicy(text)),
  })

  const redis =
    options.redis &&
    createRedisConnection({
      redis: createRedisClient(options.redis, process, network),
      credentials: [],
      database: 0,
      commandTimeoutMs,
      onChange: (isUp) => note(() => `counts Redis as ${isUp ? 'up' : 'down'}`),
      onFailure: ({ cause }) => note(() => `Redis failed: ${cause}`),
      clock,
    })
  const singleFlight = createMemorySingleFlight<Result>({
    maxStored: 100,
    clock,
    replicaWide: redis && createRedisSingleFlight({ redis, cipher: () => cipher, clock }),
  })

  const { path } = scenario
  const { standby, dispatch } = createSimulatedDispatcher({
    ...options,
    connectTimeoutMs,
    idleLimits: path ?? { closedAfterMs: never, forgottenAfterMs: never },
    createStandby: (connect) =>
      path &&
      createStandby({
        connect,
        target: { hostname: 'idenfy.example', protocol: 'https:', port: '' },
        maxAgeMs: path.standbyMaxAgeMs,
        clock,
        random,
        onReplaced: (reason) => note(() => `standby connection replaced: ${reason}`),
        onUnavailable: ({ message }) => note(() => `no standby connection: ${message}`),
        onAvailable: () => note(() => 'a standby connection again'),
      }),
  })
  standby?.open()
  const client = createIdenfyClient({
    dispatcher: { dispatch },
    origin: 'https://idenfy.example',
    authorization: credentials,
    userAgent: 'simulation',
    clock,
    onIdleLimit: () => {},
    onDrift: () => {},
  })
  const observed: IdenfyClient = {
    async createKybToken(request, limits) {
      const end = onAttempt(breaker.isOpen())
      try {
        const token = await client.createKybToken(request, limits)
        end(String(request.externalRef), undefined)
        return token
      } catch (error) {
        end(String(request.externalRef), error)
        throw error
      }
    },
  }
  const bulkhead = createBulkhead({ maxInFlight, clock })
  const breaker = createCircuitBreaker({ classify: classifyFailure, clock })
  const issuerOfTokens = createTokenIssuer({
    policy: policy.value,
    identify: createClientIdentity({ clientId: '{companyId}:{userId}', externalRef: '{requestId}' }),
    idenfy: createResilientClient({
      client: observed,
      breaker,
      bulkhead,
      budget: createRetryBudget(),
      timeoutMs,
      clock,
      random,
      onAttempt: (outcome) => {
        note(() => `POST ended: ${outcome}`)
        if (outcome === 'provider-timeout') standby?.replace()
      },
      onRetry: (reason, granted) => note(() => `retry ${granted ? '' : 'not '}granted: ${reason}`),
    }),
    singleFlight,
    scope: ['simulation'],
    replayMs: scenario.replayMs,
    sharedStateRequiredFor: scenario.required,
    timeoutMs,
    uiUrl: 'https://form.example/',
    clock,
    onIssued: () => {},
  })

  function tick(): void {
    signingKeys.refreshIfDue()
    credentials.check()
    policy.check()
    clock.setTimeout(tick, tickMs)
  }
  tick()
  // It listens only then.
  await redis?.connect()

  return {
    process,
    policy,
    credentials,
    breaker,
    bulkhead,
    redis,
    singleFlight,
    standby,
    /** `POST /onboarding/kyb-token`. */
    async handle(request: OnboardingRequest) {
      const begin = clock.monotonicNow()
      const caller: Caller = resolveCaller(await verify(request.accessToken))
      const admit = async (): Promise<void> => {
        // As the rate limits count.
        if (redis)
          await redis.run(() => redis.client.incr(`onboarding-bff:rate:${caller.userId}`)).catch(() => {})
      }
      return issuerOfTokens.issue({
        caller,
        requestedSession: { locale: request.locale },
        requestId: request.id,
        log,
        idempotencyKey: request.idempotencyKey,
        waitedMs: clock.monotonicNow() - begin,
        isAbandoned: request.isAbandoned,
        admit,
      })
    },
  }
}

export type Replica = Awaited<ReturnType<typeof startReplica>>
