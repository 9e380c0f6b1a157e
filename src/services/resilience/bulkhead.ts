import PQueue from 'p-queue'
import type { Clock } from '../../clock.js'
import { Problem } from '../../problems/problem.js'

export interface BulkheadOptions {
  /** Calls at the same time. As many again may wait. */
  readonly maxInFlight: number
  readonly clock: Clock
}

/** A bulkhead limits calls in flight, so that a slow provider cannot fill this process with waiting requests. */
export function createBulkhead({ maxInFlight, clock }: BulkheadOptions) {
  const queue = new PQueue({ concurrency: maxInFlight })

  return {
    /**
     * @param maxWaitMs how long the call may wait before `work` begins
     * @throws Problem `overloaded`, or what `work` throws
     */
    run<T>(work: () => Promise<T>, maxWaitMs: number): Promise<T> {
      if (queue.pending < maxInFlight) return queue.add(work)
      if (queue.size >= maxInFlight) return Promise.reject(new Problem('overloaded'))
      const waiting = new AbortController()
      const timer = clock.setTimeout(() => waiting.abort(new Problem('overloaded')), maxWaitMs)
      const begin = () => {
        clock.clearTimeout(timer)
        return work()
      }
      return queue.add(begin, { signal: waiting.signal })
    },
    inFlight: (): number => queue.pending,
    waiting: (): number => queue.size,
  }
}

export type Bulkhead = ReturnType<typeof createBulkhead>
