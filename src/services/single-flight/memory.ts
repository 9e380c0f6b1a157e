import { LRUCache } from 'lru-cache'
import { type Clock, inTime } from '../../clock.js'
import { Abandoned } from '../../problems/abandoned.js'
import { Problem } from '../../problems/problem.js'
import type { RunOptions, SharedResult, SingleFlight, Work } from './single-flight.js'

export interface MemorySingleFlightOptions<T> {
  /** If there are more results, the least recently used one is dropped. */
  readonly maxStored: number
  readonly clock: Clock
  /** Single flight across replicas. It is used if this process has no result and no work in flight. */
  readonly replicaWide?: SingleFlight<T> | undefined
}

interface InFlight<T> {
  readonly result: Promise<SharedResult<T>>
  readonly deadlineMs: number
  /** One for each request that waits. */
  readonly waiting: Pick<RunOptions<T>, 'isAbandoned'>[]
}

/** Single flight within this process, and across replicas if there is a replica-wide store. */
export function createMemorySingleFlight<T extends object>({
  maxStored,
  clock,
  replicaWide,
}: MemorySingleFlightOptions<T>): SingleFlight<T> {
  const stored = new LRUCache<string, T>({
    max: maxStored,
    ttlResolution: 0,
    perf: { now: clock.monotonicNow },
  })
  const inFlight = new Map<string, InFlight<T>>()

  async function start(
    key: string,
    work: Work<T>,
    options: RunOptions<T>,
    waiting: InFlight<T>['waiting'],
  ): Promise<SharedResult<T>> {
    try {
      const result: SharedResult<T> = replicaWide
        ? await replicaWide.run(key, work, options)
        : { origin: 'own', value: await work(options.isAbandoned) }
      const { value, ttlMs = Number.POSITIVE_INFINITY } = result
      const ttl = Math.floor(Math.min(options.lifetimeMs(value), ttlMs))
      if (ttl > 0) stored.set(key, value, { ttl })
      return result
    } finally {
      inFlight.delete(key)
      // V8 collects the former tables of a Map late. They must not keep whole requests in memory.
      waiting.length = 0
    }
  }

  /** The work of another request may have a later deadline than this request, which has waited before. */
  async function untilDeadline(
    { result, deadlineMs }: InFlight<T>,
    options: RunOptions<T>,
  ): Promise<SharedResult<T>> {
    if (options.deadlineMs >= deadlineMs) return result
    const late: SharedResult<T> = { origin: 'shared', value: options.unknownResult('late') }
    return inTime(clock, result, options.deadlineMs - clock.monotonicNow(), late)
  }

  function run(key: string, work: Work<T>, options: RunOptions<T>): Promise<SharedResult<T>> {
    const value = stored.get(key)
    if (value !== undefined && options.lifetimeMs(value) > 0 && options.accepts(value)) {
      return Promise.resolve({ origin: 'stored', value })
    }
    const other = inFlight.get(key)
    if (other === undefined) {
      const waiting: InFlight<T>['waiting'] = [options]
      const isAbandoned = () => waiting.every((request) => request.isAbandoned())
      const result = start(key, work, { ...options, isAbandoned }, waiting)
      inFlight.set(key, { result, waiting, deadlineMs: options.deadlineMs })
      return result
    }
    if (options.mode === 'once') return Promise.reject(new Problem('idempotency-conflict'))
    other.waiting.push(options)
    return untilDeadline(other, options).then(
      ({ value }) => ({ origin: 'shared', value }),
      (error) => {
        // This request came after the work had been abandoned.
        if (error instanceof Abandoned && !options.isAbandoned()) return run(key, work, options)
        throw error
      },
    )
  }

  return {
    run,
    async settled() {
      await Promise.allSettled([...inFlight.values()].map(({ result }) => result))
      await replicaWide?.settled()
    },
  }
}
