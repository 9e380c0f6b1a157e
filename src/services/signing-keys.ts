import { type CryptoKey, createLocalJWKSet, type JSONWebKeySet, type JWTHeaderParameters } from 'jose'
import { type Dispatcher, request } from 'undici'
import { Problem } from '../problems.js'
import { lintKeySet } from './key-set.js'

/** A key withdrawn by the provider is used for at most this long (with the provider up). */
const maxAgeMs = 5 * 60_000
/** For so long the last good set is used while no other can be fetched. */
const maxStaleMs = 24 * 60 * 60_000
/** Between two fetches for unknown keys, so that tokens with made-up key ids cannot drive traffic to the provider. */
const cooldownMs = 30_000
const firstRetryMs = 1_000
const maxRetryMs = 60_000

export interface SigningKeysOptions {
  readonly url: string
  /** Bounds the size of the answer; closed by whoever made it. */
  readonly dispatcher: Dispatcher
  readonly onFetchFailed: (error: unknown) => void
  /** Milliseconds of a clock that never goes back. */
  readonly monotonicNow?: () => number
  readonly fetchTimeoutMs?: number
  /** From 0 to 1: spreads the retries of several instances. */
  readonly random?: () => number
}

/**
 * The identity provider's public keys (JWKS, RFC 7517). One fetch at a time; the last good set goes on
 * working while the provider is down. jose's `createRemoteJWKSet` is not used because it has no back-off
 * after a failed fetch, drops good keys once they are stale and reads answers of any length.
 */
export function createSigningKeys(options: SigningKeysOptions) {
  const { url, dispatcher, onFetchFailed, fetchTimeoutMs = 2_000, random = Math.random } = options
  const { monotonicNow = () => performance.now() } = options
  let keySet: ReturnType<typeof createLocalJWKSet> | undefined
  let fetching: Promise<void> | undefined
  let failures = 0
  let fetchedAt = Number.NEGATIVE_INFINITY
  let nextFetchAt = Number.NEGATIVE_INFINITY
  let nextFetchForUnknownKeyAt = Number.NEGATIVE_INFINITY

  /** Starts or joins a fetch; undefined when it is too early for one. The promise never rejects. */
  function refresh(): Promise<void> | undefined {
    if (!fetching && monotonicNow() >= nextFetchAt) {
      fetching = fetchKeySet(url, dispatcher, fetchTimeoutMs)
        .then(
          (jwks) => {
            keySet = createLocalJWKSet(jwks)
            failures = 0
            fetchedAt = monotonicNow()
          },
          (error) => {
            const backoffMs = Math.min(firstRetryMs * 2 ** failures, maxRetryMs)
            nextFetchAt = monotonicNow() + backoffMs * (0.5 + random() / 2)
            failures += 1
            onFetchFailed(error)
          },
        )
        .finally(() => {
          fetching = undefined
        })
    }
    return fetching
  }

  /** The first token of a new key brings the key in at once; the next unknown one has to wait. */
  function refreshForUnknownKey(): Promise<void> | undefined {
    if (!fetching && monotonicNow() < nextFetchForUnknownKeyAt) return undefined
    nextFetchForUnknownKeyAt = monotonicNow() + cooldownMs
    return refresh()
  }

  const ageMs = (): number => monotonicNow() - fetchedAt

  function dropOldKeys(): void {
    if (ageMs() > maxStaleMs) keySet = undefined
  }

  /** @throws Problem `auth-keys-unavailable` when there is no usable set */
  async function resolve(header: JWTHeaderParameters): Promise<CryptoKey> {
    dropOldKeys()
    if (!keySet) await refresh()
    if (!keySet) throw new Problem('auth-keys-unavailable')
    if (ageMs() >= maxAgeMs) refresh()
    try {
      return await keySet(header)
    } catch (error) {
      const refreshed = refreshForUnknownKey()
      if (!refreshed) throw error
      await refreshed
      return await keySet(header)
    }
  }

  return {
    resolve,
    /** Seconds since the keys in use were fetched; undefined without keys. */
    ageSeconds(): number | undefined {
      return keySet && ageMs() / 1000
    },
    /** Whether tokens can be checked. Asking starts a fetch when they cannot, so that probes bring the keys in. */
    isReady(): boolean {
      dropOldKeys()
      if (!keySet) refresh()
      return keySet !== undefined
    },
  }
}

export type SigningKeys = ReturnType<typeof createSigningKeys>

async function fetchKeySet(url: string, dispatcher: Dispatcher, timeoutMs: number): Promise<JSONWebKeySet> {
  const { statusCode, body } = await request(url, { dispatcher, signal: AbortSignal.timeout(timeoutMs) })
  const text = await body.text()
  if (statusCode !== 200) throw Object.assign(new Error(`Answer ${statusCode}`), { code: 'jwks-status' })
  return lintKeySet(text)
}
