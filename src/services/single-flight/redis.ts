import { randomUUID } from 'node:crypto'
import { type Clock, inTime, sleep } from '../../clock.js'
import { Abandoned } from '../../problems/abandoned.js'
import type { ProblemCode } from '../../problems/catalog.js'
import { Problem, type ProblemOptions } from '../../problems/problem.js'
import type { StateCipher } from './encryption.js'
import { type RedisConnection, RedisUnavailable } from './redis-connection.js'
import type { RunOptions, SharedResult, SingleFlight } from './single-flight.js'

const pollMs = 50
/** How long after the deadline of its work a replica may still store the result. */
const leaseSlackMs = 2_000
/** How long an expired lease stays visible. Its owner may have done the work, and the result is not known. */
const ownerLostMs = { share: 5_000, once: 60 * 60_000 }
/** How long waiting replicas can read an outcome that is not kept as a result. */
const endedMs = 2_000
const firstRetryMs = 100

/*
 * A key holds one of
 *   L<owner>       a lease. It lives for the lease time plus `ownerLostMs`. In that last part its owner is lost
 *   E<ciphertext>  an outcome without a result to keep. Waiting replicas read it. The next request may take the key
 *   S<ciphertext>  a stored result for all requests
 */
export const claimScript = `
  local current = redis.call('GET', KEYS[1])
  if current and current ~= ARGV[3] and string.sub(current, 1, 1) ~= 'E' then
    return { current, redis.call('PTTL', KEYS[1]) }
  end
  redis.call('SET', KEYS[1], 'L' .. ARGV[1], 'PX', ARGV[2])
  return false`

/** Never replaces the lease of another replica, which took the key after this lease had expired. */
export const publishScript = `
  local current = redis.call('GET', KEYS[1])
  if current and current ~= 'L' .. ARGV[1] then return 0 end
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1`

type Outcome<T> = { readonly value: T } | { readonly failure: Failure } | { readonly abandoned: true }
/** With the owner of the lease that it ended. Older versions of this service did not write the owner. */
type Written<T> = Outcome<T> & { readonly owner?: string }
type Failure = { readonly code: ProblemCode } & Pick<ProblemOptions, 'retryAfterSeconds'>

/** One attempt of this replica to take a key. */
interface Claim {
  readonly key: string
  readonly owner: string
  /** What the lease replaced, and when that would have expired. */
  replaced?: { readonly text: string; readonly endsAtMs: number }
}

export interface RedisSingleFlightOptions {
  readonly redis: RedisConnection
  /** Returns the current cipher, because keys are rotated. */
  readonly cipher: () => StateCipher
  readonly clock: Clock
}

/**
 * Single flight across replicas. One replica takes a lease and does the work. The others wait for its result until
 * their own deadlines. No replica does work that another may have done: if the owner of a lease is lost, the result is
 * unknown.
 */
export function createRedisSingleFlight<T>({
  redis,
  cipher,
  clock,
}: RedisSingleFlightOptions): SingleFlight<T> {
  const publishing = new Set<Promise<void>>()
  let isClosing = false

  const evaluate = (script: string, key: string, ...args: (string | number)[]) =>
    redis.run(() => redis.client.eval(script, 1, key, ...args))

  const encrypt = (key: string, outcome: Written<T>): string => cipher().encrypt(JSON.stringify(outcome), key)
  const decrypt = (key: string, ciphertext: string): Written<T> | undefined => {
    const text = cipher().decrypt(ciphertext, key)
    return text === undefined ? undefined : JSON.parse(text)
  }

  async function publish({ key, owner }: Claim, outcome: Outcome<T>, lifetimeMs: number): Promise<void> {
    const [kind, ttlMs] = lifetimeMs > 0 ? ['S', lifetimeMs] : ['E', endedMs]
    await evaluate(publishScript, key, owner, kind + encrypt(key, { ...outcome, owner }), Math.ceil(ttlMs))
  }

  /** Ends a lease under which nothing was opened. What it took the place of is valid again: an outcome may be unknown. */
  async function release(claim: Claim, outcome: Outcome<T>): Promise<void> {
    const { key, owner, replaced } = claim
    const leftMs = replaced ? Math.ceil(replaced.endsAtMs - clock.monotonicNow()) : 0
    if (replaced && leftMs > 0) await evaluate(publishScript, key, owner, replaced.text, leftMs)
    else await publish(claim, outcome, 0)
  }

  /** Retries until the lease expires. Other replicas wait until then, and later treat the result as unknown. */
  async function retryPublishing(publishOnce: () => Promise<void>, leaseEndsAtMs: number): Promise<void> {
    for (
      let waitMs = firstRetryMs;
      !isClosing && clock.monotonicNow() + waitMs < leaseEndsAtMs;
      waitMs *= 2
    ) {
      await sleep(clock, waitMs)
      const isPublished = await publishOnce().then(
        () => true,
        () => false,
      )
      if (isPublished) return
    }
  }

  /**
   * Waits for the first try only, and not past the deadline. A client that comes back at once then finds the result, or
   * the lease.
   */
  async function publishWithRetries(publishOnce: () => Promise<void>, deadlineMs: number): Promise<void> {
    const first = publishOnce()
    const all = first
      .catch(() => retryPublishing(publishOnce, deadlineMs + leaseSlackMs))
      .finally(() => publishing.delete(all))
    publishing.add(all)
    const isPublished = first.catch(() => {})
    await inTime(clock, isPublished, deadlineMs - clock.monotonicNow(), undefined)
  }

  /** @returns the result of the lease's owner; undefined if the key has something else by now, or is free */
  async function waitForOwner(
    key: string,
    lease: string,
    leaseMs: number,
    options: RunOptions<T>,
  ): Promise<SharedResult<T> | undefined> {
    const shared = (value: T): SharedResult<T> => ({ origin: 'shared', value })
    const leaseEndsAtMs = clock.monotonicNow() + leaseMs
    for (;;) {
      await sleep(clock, Math.min(pollMs, Math.max(options.deadlineMs - clock.monotonicNow(), 0)))
      if (options.isAbandoned()) throw new Abandoned()
      if (clock.monotonicNow() >= options.deadlineMs) return shared(options.unknownResult('late'))
      // While Redis is unavailable the owner may still be working.
      const reading = redis.run(() => redis.client.get(key)).catch(() => lease)
      const current = await inTime(clock, reading, options.deadlineMs - clock.monotonicNow(), lease)
      if (current === lease) {
        if (clock.monotonicNow() >= leaseEndsAtMs) return shared(options.unknownResult('owner-lost'))
        continue
      }
      // The owner opened nothing, and another replica took the key between two polls, or an older lease is back.
      if (current?.startsWith('L')) return undefined
      const outcome = current === null ? undefined : decrypt(key, current.slice(1))
      if (!outcome) return shared(options.unknownResult('owner-lost'))
      if ('abandoned' in outcome) return undefined
      if ('failure' in outcome) throw problemOf(outcome.failure)
      const isPutBack = isOfOther(outcome, lease) && !options.accepts(outcome.value)
      return isPutBack ? undefined : shared(outcome.value)
    }
  }

  /** @returns the existing result, or undefined if this replica now has the lease */
  async function take(claim: Claim, options: RunOptions<T>): Promise<SharedResult<T> | undefined> {
    const { key, owner } = claim
    const lostMs = ownerLostMs[options.mode]
    const stored = (value: T, ttlMs: number): SharedResult<T> => ({ origin: 'stored', value, ttlMs })
    for (;;) {
      const leaseMs = Math.ceil(options.deadlineMs - clock.monotonicNow() + leaseSlackMs)
      const reply = await evaluate(claimScript, key, owner, leaseMs + lostMs, claim.replaced?.text ?? '')
      if (reply === null) return undefined
      const [current, ttlMs] = reply as [string, number]
      const leaseLeftMs = ttlMs - lostMs
      if (current.startsWith('L') && leaseLeftMs > 0) {
        if (options.mode === 'once') throw conflict(leaseLeftMs)
        const result = await waitForOwner(key, current, leaseLeftMs, options)
        if (result) return result
        continue
      }
      const outcome = current.startsWith('S') ? decrypt(key, current.slice(1)) : undefined
      const value = outcome && 'value' in outcome ? outcome.value : undefined
      // Redis keeps it for as long as it may be handed out. The clock of this replica may be wrong.
      if (value !== undefined && options.accepts(value)) return stored(value, ttlMs)
      // The owner is lost, or the result cannot be read. In both cases the work may have been done.
      const mayBeDone = current.startsWith('L') || value === undefined
      const unknown = options.unknownResult('owner-lost')
      if (mayBeDone && (options.mode === 'once' || (current.startsWith('L') && options.accepts(unknown)))) {
        return stored(unknown, ttlMs)
      }
      claim.replaced = { text: current, endsAtMs: clock.monotonicNow() + ttlMs }
    }
  }

  /** @returns undefined if this replica must do the work */
  async function takeIfPossible(claim: Claim, options: RunOptions<T>) {
    try {
      return await take(claim, options)
    } catch (error) {
      if (error instanceof Problem || error instanceof Abandoned) throw error
      if (options.mayRunAlone) return undefined
      if (!(error instanceof RedisUnavailable)) {
        // Redis may have written the lease although its response was late.
        await publishWithRetries(() => release(claim, { abandoned: true }), options.deadlineMs)
      }
      throw new Problem('state-unavailable', { cause: error })
    }
  }

  return {
    async run(key, work, options): Promise<SharedResult<T>> {
      const claim: Claim = { key, owner: randomUUID() }
      const existing = await takeIfPossible(claim, options)
      if (existing) return existing
      const { deadlineMs } = options
      try {
        const value = await work(options.isAbandoned)
        await publishWithRetries(() => publish(claim, { value }, options.lifetimeMs(value)), deadlineMs)
        return { origin: 'own', value }
      } catch (error) {
        await publishWithRetries(() => release(claim, outcomeOf(error)), deadlineMs)
        throw error
      }
    },
    async settled() {
      isClosing = true
      const lastTriesMs = 1_000
      const all = Promise.all(publishing).then(() => {})
      await inTime(clock, all, lastTriesMs, undefined)
    },
  }
}

/** Whether it ended another lease: the owner of this lease opened nothing, and may have put an older outcome back. */
function isOfOther({ owner }: { readonly owner?: string }, lease: string): boolean {
  return owner !== undefined && lease !== `L${owner}`
}

function conflict(leaseLeftMs: number): Problem {
  return new Problem('idempotency-conflict', {
    retryAfterSeconds: Math.max(Math.ceil(leaseLeftMs / 1000), 1),
  })
}

/** An error that is not a Problem is a fault of this service. */
function outcomeOf(error: unknown): { failure: Failure } | { abandoned: true } {
  if (error instanceof Abandoned) return { abandoned: true }
  if (!(error instanceof Problem)) return { failure: { code: 'internal-error' } }
  const { retryAfterSeconds } = error.options
  return { failure: { code: error.code, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) } }
}

function problemOf({ code, ...options }: Failure): Problem {
  return new Problem(code, { ...options, diagnosis: { reason: 'shared-result' } })
}
