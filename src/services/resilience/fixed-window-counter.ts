import { LRUCache } from 'lru-cache'

export interface RateCounterOptions {
  readonly windowMs: number
  /** Of more keys the longest absent is forgotten. */
  readonly maxKeys: number
  /** Milliseconds of a clock that never goes back. */
  readonly monotonicNow: () => number
}

/** Counts in fixed windows, each of which begins with the first event of a key. */
export function createRateCounter({ windowMs, maxKeys, monotonicNow }: RateCounterOptions) {
  const windows = new LRUCache<string, { current: number; endsAtMs: number }>({ max: maxKeys })

  return {
    /** Counts an event: how many there were in this window, and for how many milliseconds it lasts. */
    count(key: string): { current: number; ttl: number } {
      const now = monotonicNow()
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
