import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { Abandoned } from '../../problems/abandoned.js'
import type { ProblemCode } from '../../problems/catalog.js'
import { Problem, type ProblemOptions } from '../../problems/problem.js'
import type { StateCipher } from './encryption.js'
import type { Flight, Flights, Landing } from './memory.js'
import { RedisUnavailable, type SharedRedis } from './redis-connection.js'

const pollMs = 50
/** What a replica may take beyond the deadline of its work to write down how that ended. */
const leaseSlackMs = 2_000
/** How long a lease that has run out is remembered: the work may have been done, and its result is not known. */
const ownerLostMs = { join: 5_000, once: 60 * 60_000 }
/** How long those who waited can read how a flight ended whose result is not kept. */
const endedMs = 2_000
const firstRetryMs = 100

/*
 * A key holds one of
 *   L<owner>   a lease. It lives for as long as the lease and `ownerLostMs`: in the latter time its owner is lost
 *   E<sealed>  work that has ended without a result to keep: for those who waited; the key is free for the next request
 *   S<sealed>  a stored result, for all
 */
const claimScript = `
  local held = redis.call('GET', KEYS[1])
  if held and held ~= ARGV[3] and string.sub(held, 1, 1) ~= 'E' then
    return { held, redis.call('PTTL', KEYS[1]) }
  end
  redis.call('SET', KEYS[1], 'L' .. ARGV[1], 'PX', ARGV[2])
  return false`

/** Not over the lease of another, who came after this one's lease was over. */
const publishScript = `
  local held = redis.call('GET', KEYS[1])
  if held and held ~= 'L' .. ARGV[1] then return 0 end
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1`

type Ending<T> = { readonly value: T } | { readonly failure: Failure } | { readonly abandoned: true }
type Failure = { readonly code: ProblemCode } & Pick<ProblemOptions, 'retryAfterSeconds'>

export interface RedisFlightsOptions {
  readonly shared: SharedRedis
  /** The cipher as it is now: keys are rotated. */
  readonly cipher: () => StateCipher
  /** Milliseconds of a clock that never goes back. */
  readonly monotonicNow: () => number
}

/**
 * Across replicas. One of them does the work under a lease, the others wait for its result until their own deadlines.
 * No replica does work that another may have done: if the owner of a lease is lost, the result is unknown.
 */
export function createRedisFlights<T>({ shared, cipher, monotonicNow }: RedisFlightsOptions): Flights<T> {
  const publishing = new Set<Promise<void>>()
  let isClosing = false

  const evaluate = (script: string, key: string, ...args: (string | number)[]) =>
    shared.run(() => shared.client.eval(script, 1, key, ...args))

  const seal = (key: string, ending: Ending<T>): string => cipher().seal(JSON.stringify(ending), key)
  const open = (key: string, sealed: string): Ending<T> | undefined => {
    const text = cipher().open(sealed, key)
    return text === undefined ? undefined : JSON.parse(text)
  }

  async function publish(key: string, owner: string, ending: Ending<T>, lifetimeMs: number): Promise<void> {
    const [kind, ttlMs] = lifetimeMs > 0 ? ['S', lifetimeMs] : ['E', endedMs]
    await evaluate(publishScript, key, owner, kind + seal(key, ending), Math.ceil(ttlMs))
  }

  /** Tries until the lease is over: until then others wait for it, and from then on they take the result for unknown. */
  async function publishAgain(once: () => Promise<void>, leaseEndsAt: number): Promise<void> {
    for (let waitMs = firstRetryMs; !isClosing && monotonicNow() + waitMs < leaseEndsAt; waitMs *= 2) {
      await delay(waitMs)
      const isPublished = await once().then(
        () => true,
        () => false,
      )
      if (isPublished) return
    }
  }

  /** Waits for the first try only, so that a client that comes back at once finds the result. */
  async function publishInTime(once: () => Promise<void>, leaseEndsAt: number): Promise<void> {
    await once().catch(() => {
      const again = publishAgain(once, leaseEndsAt).finally(() => publishing.delete(again))
      publishing.add(again)
    })
  }

  /** @returns what the owner of the lease came to; undefined when it gave the work up and the key is free */
  async function waitFor(
    key: string,
    lease: string,
    leaseMs: number,
    flight: Flight<T>,
  ): Promise<Landing<T> | undefined> {
    const joined = (value: T): Landing<T> => ({ origin: 'joined', value })
    let current = lease
    let leaseEndsAt = monotonicNow() + leaseMs
    for (;;) {
      await delay(Math.min(pollMs, Math.max(flight.deadline - monotonicNow(), 0)))
      if (flight.isAbandoned()) throw new Abandoned()
      if (monotonicNow() >= flight.deadline) return joined(flight.unknown('late'))
      // While Redis is unavailable nothing is known, and the owner may well be at work.
      const held = await shared.run(() => shared.client.get(key)).catch(() => current)
      if (held === current) {
        if (monotonicNow() >= leaseEndsAt) return joined(flight.unknown('owner-lost'))
      } else if (held?.startsWith('L')) {
        // The first owner gave up, and another one took over between two looks.
        current = held
        leaseEndsAt = Number.POSITIVE_INFINITY
      } else {
        const ending = held === null ? undefined : open(key, held.slice(1))
        if (!ending) return joined(flight.unknown('owner-lost'))
        if ('abandoned' in ending) return undefined
        if ('failure' in ending) throw problemOf(ending.failure)
        return joined(ending.value)
      }
    }
  }

  /** @returns the result that there is, or undefined when this replica has the lease */
  async function claim(key: string, owner: string, flight: Flight<T>): Promise<Landing<T> | undefined> {
    const lostMs = ownerLostMs[flight.kind]
    const stored = (value: T, ttlMs: number): Landing<T> => ({ origin: 'stored', value, ttlMs })
    let replaceable = ''
    for (;;) {
      const leaseMs = Math.ceil(flight.deadline - monotonicNow() + leaseSlackMs)
      const answer = await evaluate(claimScript, key, owner, leaseMs + lostMs, replaceable)
      if (answer === null) return undefined
      const [held, ttlMs] = answer as [string, number]
      const leftMs = ttlMs - lostMs
      if (held.startsWith('L') && leftMs > 0) {
        if (flight.kind === 'once') throw conflict(leftMs)
        const result = await waitFor(key, held, leftMs, flight)
        if (result) return result
        continue
      }
      const ending = held.startsWith('S') ? open(key, held.slice(1)) : undefined
      const value = ending && 'value' in ending ? ending.value : undefined
      if (value !== undefined && flight.lifetimeMs(value) > 0 && flight.accepts(value))
        return stored(value, ttlMs)
      // A lost owner, or a result that cannot be read: someone has done this work, or may have.
      const isTrace = held.startsWith('L') || value === undefined
      const unknown = flight.unknown('owner-lost')
      if (isTrace && (flight.kind === 'once' || (held.startsWith('L') && flight.accepts(unknown)))) {
        return stored(unknown, ttlMs)
      }
      replaceable = held
    }
  }

  /** @returns undefined when this replica is to do the work */
  async function claimIfPossible(key: string, owner: string, flight: Flight<T>) {
    try {
      return await claim(key, owner, flight)
    } catch (error) {
      if (error instanceof Problem || error instanceof Abandoned) throw error
      if (flight.mayRunAlone) return undefined
      if (!(error instanceof RedisUnavailable)) {
        // Redis may have written the lease although its response did not come in time.
        const release = () => publish(key, owner, { abandoned: true }, 0)
        await publishInTime(release, flight.deadline + leaseSlackMs)
      }
      throw new Problem('state-unavailable', { cause: error })
    }
  }

  return {
    async run(key, work, flight): Promise<Landing<T>> {
      const owner = randomUUID()
      const other = await claimIfPossible(key, owner, flight)
      if (other) return other
      const leaseEndsAt = flight.deadline + leaseSlackMs
      try {
        const value = await work(flight.isAbandoned)
        await publishInTime(() => publish(key, owner, { value }, flight.lifetimeMs(value)), leaseEndsAt)
        return { origin: 'own', value }
      } catch (error) {
        await publishInTime(() => publish(key, owner, endingOf(error), 0), leaseEndsAt)
        throw error
      }
    },
    async settled() {
      isClosing = true
      const lastTriesMs = 1_000
      await Promise.race([Promise.all(publishing), delay(lastTriesMs, undefined, { ref: false })])
    },
  }
}

function conflict(leaseLeftMs: number): Problem {
  return new Problem('idempotency-conflict', {
    retryAfterSeconds: Math.max(Math.ceil(leaseLeftMs / 1000), 1),
  })
}

/** An error that is no problem is a fault of ours. */
function endingOf(error: unknown): { failure: Failure } | { abandoned: true } {
  if (error instanceof Abandoned) return { abandoned: true }
  if (!(error instanceof Problem)) return { failure: { code: 'internal-error' } }
  const { retryAfterSeconds } = error.options
  return { failure: { code: error.code, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) } }
}

function problemOf({ code, ...options }: Failure): Problem {
  return new Problem(code, { ...options, diagnosis: { reason: 'shared-result' } })
}
