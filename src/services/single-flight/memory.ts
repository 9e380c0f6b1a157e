import { LRUCache } from 'lru-cache'
import { Abandoned } from '../../problems/abandoned.js'
import { Problem } from '../../problems/problem.js'

/** A result, and where it comes from: made for this request, by an identical one in flight, or by one before. */
export interface Landing<T> {
  readonly origin: 'own' | 'joined' | 'stored'
  readonly value: T
  /** How long another store than this process keeps the value. */
  readonly ttlMs?: number
}

/** What one request wants of the work under its key. */
export interface Flight<T> {
  /**
   * `join`: a request waits for an identical one in flight, and shares its result.
   *
   * `once`: the work is done at most once under this key, whatever became of it. A request that finds it in flight is
   * refused with `idempotency-conflict`. If nothing is known of how it ended, the result is {@link unknown}.
   */
  readonly kind: 'join' | 'once'
  /** For how many milliseconds from now a value may be handed out. Asked again whenever a stored value is read. */
  readonly lifetimeMs: (value: T) => number
  /** Whether a stored value will do for this request. */
  readonly accepts: (value: T) => boolean
  /** When this request must have its result, in milliseconds of the monotonic clock. */
  readonly deadline: number
  /** Whether the client of this request has disconnected. */
  readonly isAbandoned: () => boolean
  /** Whether this replica may do the work although it cannot ask the others. Without it, `state-unavailable`. */
  readonly mayRunAlone: boolean
  /** The value for work whose result is not known: it did not come before the deadline, or its replica is gone. */
  readonly unknown: (reason: 'late' | 'owner-lost') => T
}

/**
 * Does the work. `isAbandoned` says whether every request that waits for it has gone: what has not been sent by then
 * is not sent, and the work throws `Abandoned`.
 */
export type Work<T> = (isAbandoned: () => boolean) => Promise<T>

/**
 * Where identical requests, which have the same key, share one piece of work and its result. What the work throws is
 * shared by those in flight together and not kept.
 */
export interface Flights<T> {
  /** @throws what `work` throws; Problem `idempotency-conflict` or `state-unavailable`; Abandoned */
  run(key: string, work: Work<T>, flight: Flight<T>): Promise<Landing<T>>
  /** Resolves when nothing is in flight any more: the clients may have disconnected long before. */
  settled(): Promise<void>
}

export interface MemoryFlightsOptions<T> {
  readonly maxStored: number
  /** Milliseconds of a clock that never goes back. */
  readonly monotonicNow: () => number
  /** Asked when there is nothing here: the flights of all replicas. */
  readonly beyond?: Flights<T> | undefined
}

interface InFlight<T> {
  readonly landing: Promise<Landing<T>>
  readonly deadline: number
  /** One for each request that waits. */
  readonly waiting: Pick<Flight<T>, 'isAbandoned'>[]
}

/** Within this process, and beyond it if there is more. */
export function createMemoryFlights<T extends object>(options: MemoryFlightsOptions<T>): Flights<T> {
  const { maxStored, monotonicNow, beyond } = options
  const stored = new LRUCache<string, T>({ max: maxStored, ttlResolution: 0, perf: { now: monotonicNow } })
  const inFlight = new Map<string, InFlight<T>>()

  async function fly(
    key: string,
    work: Work<T>,
    flight: Flight<T>,
    waiting: InFlight<T>['waiting'],
  ): Promise<Landing<T>> {
    try {
      const landing: Landing<T> = beyond
        ? await beyond.run(key, work, flight)
        : { origin: 'own', value: await work(flight.isAbandoned) }
      const { value, ttlMs = Number.POSITIVE_INFINITY } = landing
      const ttl = Math.floor(Math.min(flight.lifetimeMs(value), ttlMs))
      if (ttl > 0) stored.set(key, value, { ttl })
      return landing
    } finally {
      inFlight.delete(key)
      // A Map leaves chains of former tables behind, which V8 collects late. They must not hold whole requests.
      waiting.length = 0
    }
  }

  /** The work of another request may have more time than this one, which spent some before. */
  async function inTime({ landing, deadline }: InFlight<T>, flight: Flight<T>): Promise<Landing<T>> {
    if (flight.deadline >= deadline) return landing
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<Landing<T>>((resolve) => {
      const value = flight.unknown('late')
      timer = setTimeout(resolve, flight.deadline - monotonicNow(), { origin: 'joined', value })
    })
    return Promise.race([landing, late]).finally(() => clearTimeout(timer))
  }

  function run(key: string, work: Work<T>, flight: Flight<T>): Promise<Landing<T>> {
    const value = stored.get(key)
    if (value !== undefined && flight.lifetimeMs(value) > 0 && flight.accepts(value)) {
      return Promise.resolve({ origin: 'stored', value })
    }
    const other = inFlight.get(key)
    if (other === undefined) {
      const waiting: InFlight<T>['waiting'] = [flight]
      const isAbandoned = () => waiting.every((other) => other.isAbandoned())
      const landing = fly(key, work, { ...flight, isAbandoned }, waiting)
      inFlight.set(key, { landing, waiting, deadline: flight.deadline })
      return landing
    }
    if (flight.kind === 'once') return Promise.reject(new Problem('idempotency-conflict'))
    other.waiting.push(flight)
    return inTime(other, flight).then(
      ({ value }) => ({ origin: 'joined', value }),
      (error) => {
        // This request came after the work had been given up.
        if (error instanceof Abandoned && !flight.isAbandoned()) return run(key, work, flight)
        throw error
      },
    )
  }

  return {
    run,
    async settled() {
      await Promise.allSettled([...inFlight.values()].map(({ landing }) => landing))
      await beyond?.settled()
    },
  }
}
