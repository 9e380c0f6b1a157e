import { LRUCache } from 'lru-cache'
import { Problem } from '../problems.js'

/** A result, and where it comes from: made for this request, by an equal one in flight, or by one before. */
export interface Landing<T> {
  readonly origin: 'own' | 'joined' | 'stored'
  readonly value: T
}

export interface Flight<T> {
  /** For how many milliseconds from now a result answers equal requests; if it is not positive, none. */
  readonly lifetimeMs: (value: T) => number
  /** What to do while an equal request is in flight; refusing throws `idempotency-conflict`. */
  readonly whenBusy: 'join' | 'refuse'
}

/**
 * Where requests that are equal, and so have the same key, share one piece of work and its result. Failures are
 * shared by those in flight together and not kept.
 */
export interface Flights<T> {
  /** @throws what `work` throws; Problem `idempotency-conflict` */
  run(key: string, work: () => Promise<T>, flight: Flight<T>): Promise<Landing<T>>
}

export interface MemoryFlightsOptions<T> {
  readonly maxStored: number
  /** Milliseconds of a clock that never goes back. */
  readonly monotonicNow: () => number
  /** Asked when there is nothing here: the flights of all replicas. */
  readonly beyond?: Flights<T> | undefined
}

/** Within this process, and beyond it if there is more. */
export function createMemoryFlights<T extends object>(options: MemoryFlightsOptions<T>) {
  const { maxStored, monotonicNow, beyond } = options
  const stored = new LRUCache<string, T>({ max: maxStored, ttlResolution: 0, perf: { now: monotonicNow } })
  const inFlight = new Map<string, Promise<Landing<T>>>()

  async function fly(key: string, work: () => Promise<T>, flight: Flight<T>): Promise<Landing<T>> {
    try {
      const landing: Landing<T> = beyond
        ? await beyond.run(key, work, flight)
        : { origin: 'own', value: await work() }
      const ttl = Math.floor(flight.lifetimeMs(landing.value))
      if (ttl > 0) stored.set(key, landing.value, { ttl })
      return landing
    } finally {
      inFlight.delete(key)
    }
  }

  const flights: Flights<T> = {
    run(key, work, flight) {
      const value = stored.get(key)
      if (value !== undefined) return Promise.resolve({ origin: 'stored', value })
      const other = inFlight.get(key)
      if (other === undefined) {
        const own = fly(key, work, flight)
        inFlight.set(key, own)
        return own
      }
      if (flight.whenBusy === 'refuse') return Promise.reject(new Problem('idempotency-conflict'))
      return other.then(({ value }) => ({ origin: 'joined', value }))
    },
  }
  return {
    ...flights,
    /** Resolves when nothing is in flight any more: those who asked may have hung up long before. */
    async settled(): Promise<void> {
      await Promise.allSettled(inFlight.values())
    },
  }
}
