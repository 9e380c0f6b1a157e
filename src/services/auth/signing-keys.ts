import { setTimeout as delay } from 'node:timers/promises'
import { type CryptoKey, createLocalJWKSet, errors, type JWTHeaderParameters } from 'jose'
import { Problem } from '../../problems/problem.js'
import { invalidToken } from './access-token.js'
import { fetchKeySet, type KeySetSource } from './fetch-key-set.js'
import { type IgnoredKey, lintKeySet } from './key-set.js'
import { inTime } from './with-timeout.js'

/** A key withdrawn by the provider is used for at most this long, while the provider is up. */
const maxAgeMs = 5 * 60_000
/** From this age on the set is refreshed in the background, so that no request has to wait for it. */
const refreshAfterMs = 4 * 60_000
/** How long the last good set is used while no other can be fetched. */
const maxStaleMs = 24 * 60 * 60_000
const firstRetryMs = 1_000
const maxRetryMs = 60_000
/** Fetches for unknown keys: a few at once, then one per interval. Tokens with made-up key ids cause no more than that. */
const unknownKeyBurst = 5
const maxRememberedKids = 1_000

export interface SigningKeysOptions extends KeySetSource {
  /** Accepted signature algorithms. */
  readonly algorithms: readonly string[]
  /** How long a fetch may take, which is how long a request may wait for one. */
  readonly fetchTimeoutMs: number
  /** From one fetch for an unknown key to the next, after the first few. */
  readonly unknownKeyIntervalMs: number
  readonly onFetchFailed: (error: unknown) => void
  /** Told of the members of a set that are not used, once for each different list. */
  readonly onKeysIgnored: (ignored: readonly IgnoredKey[]) => void
  /** Wall clock, milliseconds since the epoch. It goes on while the machine is suspended. */
  readonly now: () => number
  /** Milliseconds of a clock that never goes back. */
  readonly monotonicNow: () => number
  /** From 0 to 1: spreads the retries of several instances. */
  readonly random?: () => number
}

interface FetchedSet {
  /** The number of the fetch that brought it. */
  readonly number: number
  /** When that fetch began: what the provider has changed since then is not in it. */
  readonly monotonicAt: number
  readonly wallAt: number
  readonly find: ReturnType<typeof createLocalJWKSet>
  /** The keys that tokens were checked with. */
  readonly used: Set<CryptoKey>
  readonly kids: ReadonlySet<string | undefined>
  /** Those of the set before. What is not in `kids` any more was withdrawn. */
  readonly kidsBefore: ReadonlySet<string | undefined>
  /** Key ids that were looked for, and that it does not have. */
  readonly missing: Set<string>
}

/**
 * The identity provider's public keys (JWKS, RFC 7517). One fetch at a time; the last good set goes on working
 * while the provider is down. jose's `createRemoteJWKSet` is not used because it has no back-off after a failed
 * fetch, drops good keys once they are stale and reads responses of any length.
 */
export function createSigningKeys(options: SigningKeysOptions) {
  const {
    algorithms,
    fetchTimeoutMs,
    unknownKeyIntervalMs,
    onFetchFailed,
    onKeysIgnored,
    now,
    monotonicNow,
    random = Math.random,
  } = options
  let current: FetchedSet | undefined
  let fetches = 0
  let fetching: Promise<void> | undefined
  let scheduled: Promise<void> | undefined
  let failures = 0
  let nextFetchAt = Number.NEGATIVE_INFINITY
  /** When the burst for unknown keys is complete again. */
  let unknownKeyDebtUntil = Number.NEGATIVE_INFINITY
  let lastSuccessAt = monotonicNow()
  let lastIgnored = '[]'

  async function fetchSet(): Promise<void> {
    fetches += 1
    const begun = { number: fetches, monotonicAt: monotonicNow(), wallAt: now() }
    try {
      const text = await inTime((signal) => fetchKeySet(options, signal), fetchTimeoutMs)
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
      nextFetchAt = monotonicNow() + backoffMs * (0.5 + random() / 2)
      failures += 1
      onFetchFailed(error)
    }
  }

  const isBackingOff = () => failures > 0 && monotonicNow() < nextFetchAt

  /** Starts or joins a fetch; undefined when it is too early for one. The promise never rejects. */
  function fetchNow(): Promise<void> | undefined {
    if (!fetching && !isBackingOff()) {
      fetching = fetchSet().finally(() => {
        fetching = undefined
      })
    }
    return fetching
  }

  /** Joins a fetch, or starts one as soon as that is allowed for an unknown key; undefined while fetches fail. */
  function fetchForUnknownKey(): Promise<void> | undefined {
    if (fetching) return fetching
    if (isBackingOff()) return undefined
    scheduled ??= takeTurn().then(() => {
      scheduled = undefined
      return fetchNow()
    })
    return scheduled
  }

  /** How long the next fetch for an unknown key has to wait. */
  const turnInMs = () =>
    Math.max(0, unknownKeyDebtUntil - monotonicNow() - (unknownKeyBurst - 1) * unknownKeyIntervalMs)

  async function takeTurn(): Promise<void> {
    const waitMs = turnInMs()
    if (waitMs > 0) await delay(waitMs)
    const debtMs = Math.max(0, unknownKeyDebtUntil - monotonicNow()) + unknownKeyIntervalMs
    unknownKeyDebtUntil = monotonicNow() + Math.min(debtMs, unknownKeyBurst * unknownKeyIntervalMs)
  }

  /** By the clock that has gone further: the monotonic one stands still while a machine is suspended. */
  const ageMs = ({ monotonicAt, wallAt }: FetchedSet) =>
    Math.max(monotonicNow() - monotonicAt, now() - wallAt)

  function usable(): FetchedSet | undefined {
    return current && ageMs(current) <= maxStaleMs ? current : undefined
  }

  /** What to wait for before the set may be used; undefined if it is fresh, or no other can be fetched now. */
  function freshen(): Promise<void> | undefined {
    if (current && ageMs(current) < maxAgeMs) return undefined
    return fetchNow()
  }

  /**
   * Fetches a newer set, unless the one in use was fetched after `since`: then it returns false, because a key that is
   * missing from it does not exist.
   *
   * @throws Problem `auth-keys-unavailable` when that is not possible
   */
  async function renew(since: number, kid?: string): Promise<boolean> {
    const before = usable()
    if (!before) throw new Problem('auth-keys-unavailable')
    if (before.number > since) {
      if (kid !== undefined && before.missing.size < maxRememberedKids) before.missing.add(kid)
      return false
    }
    if (kid !== undefined && isKnownToBeGone(before, kid)) return false
    await fetchForUnknownKey()
    if (current === before) throw new Problem('auth-keys-unavailable')
    return true
  }

  /** Spares a fetch, or the wait for one, where the one before has just told. */
  function isKnownToBeGone(set: FetchedSet, kid: string): boolean {
    if (failures > 0) return false
    const wasJustWithdrawn = set.kidsBefore.has(kid) && monotonicNow() - lastSuccessAt < unknownKeyIntervalMs
    return wasJustWithdrawn || (turnInMs() > 0 && set.missing.has(kid))
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
    /** Fetches begun so far: to be asked when a token arrives, see {@link renew}. */
    fetches: () => fetches,
    freshen,
    /** Whether tokens that were checked with this key may still be accepted. */
    has: (key: CryptoKey): boolean => usable()?.used.has(key) === true,
    /**
     * Finds the key of a token that arrived after `since` fetches had begun.
     *
     * @throws Problem `auth-keys-unavailable`, or `invalid-token` if there is no such key
     */
    async resolve(header: JWTHeaderParameters, since: number): Promise<CryptoKey> {
      await freshen()
      for (;;) {
        const key = await find(header)
        if (key) return key
        if (!(await renew(since, header.kid))) throw invalidToken('unknown-key')
      }
    },
    renew,
    /** To be called often: keeps the set fresh while there are no requests. */
    refreshIfDue(): void {
      if (!current || ageMs(current) >= refreshAfterMs) fetchNow()
    },
    /** Seconds since the last successful fetch, or since the start if there was none. */
    async ageSeconds(): Promise<number> {
      await freshen()
      return (monotonicNow() - lastSuccessAt) / 1000
    },
    /** Whether tokens can be checked. */
    async isReady(): Promise<boolean> {
      if (!usable()) await freshen()
      return usable() !== undefined
    },
  }
}

export type SigningKeys = ReturnType<typeof createSigningKeys>
