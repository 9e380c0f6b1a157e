import { LRUCache } from 'lru-cache'
import type { Clock } from '../../clock.js'

export interface FixedWindowCounterOptions {
  readonly windowMs: number
  /** If there are more keys, the least recently used one is dropped. */
  readonly maxKeys: number
  readonly clock: Clock
}

/** Counts events per key in fixed windows. A window begins with the first event of its key. */
export function createFixedWindowCounter({ windowMs, maxKeys, clock }: FixedWindowCounterOptions) {
  const windows = new LRUCache<string, { current: number; endsAtMs: number }>({ max: maxKeys })

  return {
    /** Counts an event. @returns the events in this window, and the milliseconds until it ends */
    count(key: string): { current: number; ttl: number } {
      const now = clock.monotonicNow()
      let window = windows.get(key)
      if (!window || window.endsAtMs <= now) {
        window = { current: 0, endsAtMs: now + windowMs }
        windows.set(key, window)
      }
      window.current += 1
      return { current: window.current, ttl: window.endsAtMs - now }
    },
  }
}
