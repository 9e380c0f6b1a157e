import { Agent } from 'undici'
import type { Clock } from '../../clock.js'
import { type AccessTokenVerifierOptions, createAccessTokenVerifier } from './access-token-verifier.js'
import { type Caller, type CallerOptions, createCallerResolver } from './caller.js'
import { fetchKeySet, maxKeySetBytes } from './fetch-key-set.js'
import { createSigningKeys, type SigningKeysOptions } from './signing-keys.js'

const maxFetchTimeoutMs = 2_000
/** Time between two fetches for unknown keys. */
const maxUnknownKeyIntervalMs = 1_000

/** What is expected of access tokens. The environment variables `AUTH_*` set it. */
export type AuthenticationSettings = Omit<AccessTokenVerifierOptions, 'signingKeys' | 'timeoutMs' | 'clock'> &
  CallerOptions & {
    readonly jwksUrl: string
    /** How long a request may take. A part of it is for authentication, the rest for iDenfy. */
    readonly requestTimeoutMs: number
  }

export interface AuthenticatorOptions extends Pick<SigningKeysOptions, 'onFetchFailed' | 'onKeysIgnored'> {
  readonly userAgent: string
  readonly clock: Clock
}

/** Authenticates callers by their access tokens: signing keys, verification, and the caller in the claims. */
export function createAuthenticator(settings: AuthenticationSettings, options: AuthenticatorOptions) {
  const { jwksUrl: url, requestTimeoutMs, algorithms } = settings
  const { userAgent, clock, onFetchFailed, onKeysIgnored } = options
  const waitMs = (requestTimeoutMs * 3) / 4
  // A fetch takes less than a request waits, so that the request sees its result.
  const fetchTimeoutMs = Math.min(maxFetchTimeoutMs, requestTimeoutMs / 2)
  const dispatcher = new Agent({
    maxResponseSize: maxKeySetBytes,
    connect: { timeout: fetchTimeoutMs },
    // Fetches are minutes apart. The provider would have closed a connection that was kept alive.
    pipelining: 0,
  })
  let isClosing = false
  const signingKeys = createSigningKeys({
    fetchKeySet: (signal) => fetchKeySet({ url, dispatcher, userAgent }, signal),
    algorithms,
    fetchTimeoutMs,
    unknownKeyIntervalMs: Math.min(maxUnknownKeyIntervalMs, waitMs / 2),
    onFetchFailed: (error) => {
      if (!isClosing) onFetchFailed(error)
    },
    onKeysIgnored,
    clock,
  })
  const verify = createAccessTokenVerifier({ ...settings, signingKeys, timeoutMs: waitMs, clock })
  const resolveCaller = createCallerResolver(settings)

  return {
    signingKeys,
    /**
     * @param requestedCompanyId selects one of the companies in the token, as `X-Company-Id` does
     * @throws Problem with a status of 401, 403 or 503
     */
    authenticate: async (accessToken: string, requestedCompanyId?: string): Promise<Caller> =>
      resolveCaller(await verify(accessToken), requestedCompanyId),
    async close(): Promise<void> {
      isClosing = true
      await dispatcher.destroy()
    },
  }
}
