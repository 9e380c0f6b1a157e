import { type CryptoKey, createLocalJWKSet, errors, type JWTHeaderParameters } from 'jose'
import { type Clock, sleep } from '../../clock.js'
import { Problem } from '../../problems/problem.js'
import { invalidToken } from './access-token.js'
import { type IgnoredKey, lintKeySet } from './key-set.js'
import { withTimeout } from './with-timeout.js'

/** While the provider is up, a key that it has withdrawn is used for at most this long. */
const maxAgeMs = 5 * 60_000
/** From this age the set is refreshed in the background, so that no request waits for it. */
const refreshAfterMs = 4 * 60_000
/** How long the last good set is used while no newer set can be fetched. */
const maxStaleMs = 24 * 60 * 60_000
const firstRetryMs = 1_000
const maxRetryMs = 60_000
/** Token bucket for fetches for unknown keys. Tokens with invented key ids cannot cause more fetches than this. */
const unknownKeyBurst = 5
const maxMissingKids = 1_000

export interface SigningKeysOptions {
  /** Fetches the text of the key set. Throws if there is none. */
  readonly fetchKeySet: (signal: AbortSignal) => Promise<string>
  /** Accepted signature algorithms. */
  readonly algorithms: readonly string[]
  /** How long a fetch may take, which is how long a request may wait for one. */
  readonly fetchTimeoutMs: number
  /** From one fetch for an unknown key to the next, after the first few. */
  readonly unknownKeyIntervalMs: number
  readonly onFetchFailed: (error: unknown) => void
  /** Called with the members of a set that are not used, once for each different list. */
  readonly onKeysIgnored: (ignored: readonly IgnoredKey[]) => void
  readonly clock: Clock
  /** From 0 to 1: spreads the retries of several instances. */
  readonly random?: () => number
}

interface FetchedSet {
  /** The number of the fetch that returned it. */
  readonly number: number
  /** When that fetch began. It lacks changes that the provider made later. */
  readonly monotonicAt: number
  readonly wallAt: number
  readonly find: ReturnType<typeof createLocalJWKSet>
  /** The keys that signatures were checked with. */
  readonly used: Set<CryptoKey>
  readonly kids: ReadonlySet<string | undefined>
  /** Key ids of the previous set. Those missing from `kids` were withdrawn. */
  readonly kidsBefore: ReadonlySet<string | undefined>
  /** Key ids that were requested and are not in the set. */
  readonly missing: Set<string>
}

/**
 * The identity provider's public keys (JWKS, RFC 7517). There is one fetch at a time. The last good set stays in use while
 * the provider is down. jose's `createRemoteJWKSet` has no back-off after a failed fetch, drops good keys when they are
 * stale, and reads responses of any length.
 */
export function createSigningKeys(options: SigningKeysOptions) {
  const {
    fetchKeySet,
    algorithms,
    fetchTimeoutMs,
    unknownKeyIntervalMs,
    onFetchFailed,
    onKeysIgnored,
    clock,
    random = Math.random,
  } = options
  const { now, monotonicNow } = clock
  let current: FetchedSet | undefined
  let fetches = 0
  let fetching: Promise<void> | undefined
  let scheduled: Promise<void> | undefined
  let failures = 0
  let backOff = { monotonicAt: 0, wallAt: 0, forMs: 0 }
  /** When the token bucket for unknown keys is full again. */
  let bucketFullAtMs = Number.NEGATIVE_INFINITY
  let lastSuccessAt = monotonicNow()
  let lastIgnored = '[]'

  async function fetchSet(): Promise<void> {
    fetches += 1
    const begun = { number: fetches, monotonicAt: monotonicNow(), wallAt: now() }
    try {
      const text = await withTimeout(fetchKeySet, fetchTimeoutMs, clock)
      const { keys, ignored } = await lintKeySet(text, algorithms)
      current = {
        ...begun,
        find: createLocalJWKSet({ keys }),
        used: new Set(),
        kids: new Set(keys.map(({ kid }) => kid)),
        kidsBefore: current?.kids ?? new Set(),
        missing: new Set(),
      }
      failures = 0
      lastSuccessAt = monotonicNow()
      if (JSON.stringify(ignored) !== lastIgnored) onKeysIgnored(ignored)
      lastIgnored = JSON.stringify(ignored)
    } catch (error) {
      const backoffMs = Math.min(firstRetryMs * 2 ** failures, maxRetryMs)
      backOff = { monotonicAt: monotonicNow(), wallAt: now(), forMs: backoffMs * (0.5 + random() / 2) }
      failures += 1
      onFetchFailed(error)
    }
  }

  const isBackingOff = () => failures > 0 && ageMs(backOff) < backOff.forMs

  /** Starts or joins a fetch; undefined during back-off. The promise never rejects. */
  function fetchNow(): Promise<void> | undefined {
    if (!fetching && !isBackingOff()) {
      fetching = fetchSet().finally(() => {
        fetching = undefined
      })
    }
    return fetching
  }

  /** Joins a fetch, or starts one as soon as the token bucket allows; undefined during back-off. */
  function fetchForUnknownKey(): Promise<void> | undefined {
    if (fetching) return fetching
    if (isBackingOff()) return undefined
    scheduled ??= takeFromBucket().then(() => {
      scheduled = undefined
      return fetchNow()
    })
    return scheduled
  }

  /** How long the next fetch for an unknown key must wait. */
  const bucketWaitMs = () =>
    Math.max(0, bucketFullAtMs - monotonicNow() - (unknownKeyBurst - 1) * unknownKeyIntervalMs)

  async function takeFromBucket(): Promise<void> {
    const waitMs = bucketWaitMs()
    if (waitMs > 0) await sleep(clock, waitMs)
    const refillMs = Math.max(0, bucketFullAtMs - monotonicNow()) + unknownKeyIntervalMs
    bucketFullAtMs = monotonicNow() + Math.min(refillMs, unknownKeyBurst * unknownKeyIntervalMs)
  }

  /** By the clock that has advanced more: the monotonic one stands still while the machine is suspended. */
  const ageMs = ({ monotonicAt, wallAt }: Pick<FetchedSet, 'monotonicAt' | 'wallAt'>) =>
    Math.max(monotonicNow() - monotonicAt, now() - wallAt)

  function usable(): FetchedSet | undefined {
    return current && ageMs(current) <= maxStaleMs ? current : undefined
  }

  /** A promise to await before the set may be used; undefined if the set is fresh, or during back-off. */
  function refreshIfStale(): Promise<void> | undefined {
    if (current && ageMs(current) < maxAgeMs) return undefined
    return fetchNow()
  }

  /**
   * Fetches a newer set. If the set in use was fetched after `since`, it returns false instead: a key that is missing from
   * that set does not exist.
   *
   * @throws Problem `auth-keys-unavailable` if no newer set can be fetched
   */
  async function refetch(since: number, kid?: string): Promise<boolean> {
    const before = usable()
    if (!before) throw new Problem('auth-keys-unavailable')
    if (before.number > since) {
      if (kid !== undefined && before.missing.size < maxMissingKids) before.missing.add(kid)
      return false
    }
    if (kid !== undefined && isKnownToBeGone(before, kid)) return false
    await fetchForUnknownKey()
    if (current === before) throw new Problem('auth-keys-unavailable')
    return true
  }

  /** Avoids a fetch, or the wait for one, if the previous fetch has just shown that the key does not exist. */
  function isKnownToBeGone(set: FetchedSet, kid: string): boolean {
    if (failures > 0) return false
    const wasJustWithdrawn = set.kidsBefore.has(kid) && monotonicNow() - lastSuccessAt < unknownKeyIntervalMs
    return wasJustWithdrawn || (bucketWaitMs() > 0 && set.missing.has(kid))
  }

  async function find(header: JWTHeaderParameters): Promise<CryptoKey | undefined> {
    const set = usable()
    if (!set) throw new Problem('auth-keys-unavailable')
    try {
      const key = await set.find(header)
      set.used.add(key)
      return key
    } catch (error) {
      if (error instanceof errors.JWKSNoMatchingKey) return undefined
      throw invalidToken('ambiguous-key', error)
    }
  }

  return {
    /** Number of fetches begun so far. Call it when a token arrives, see {@link refetch}. */
    fetches: () => fetches,
    refreshIfStale,
    /** Whether tokens that were checked with this key may still be accepted. */
    has: (key: CryptoKey): boolean => usable()?.used.has(key) === true,
    /**
     * Finds the key of a token that arrived after `since` fetches had begun.
     *
     * @throws Problem `auth-keys-unavailable`, or `invalid-token` if there is no such key
     */
    async resolve(header: JWTHeaderParameters, since: number): Promise<CryptoKey> {
      await refreshIfStale()
      for (;;) {
        const key = await find(header)
        if (key) return key
        if (!(await refetch(since, header.kid))) throw invalidToken('unknown-key')
      }
    },
    refetch,
    /** Keeps the set fresh while there are no requests. Call it often. */
    refreshIfDue(): void {
      if (!current || ageMs(current) >= refreshAfterMs) fetchNow()
    },
    /** Seconds since the last successful fetch, or since the start without one. */
    async ageSeconds(): Promise<number> {
      await refreshIfStale()
      return (monotonicNow() - lastSuccessAt) / 1000
    },
    /** Whether tokens can be checked. */
    async isReady(): Promise<boolean> {
      if (!usable()) await refreshIfStale()
      return usable() !== undefined
    },
  }
}

export type SigningKeys = ReturnType<typeof createSigningKeys>
