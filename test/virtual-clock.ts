import { setImmediate as turn } from 'node:timers/promises'
import type { Clock } from '../src/clock.js'

/** A clock for services, with timers. Both stand still until the test moves them. */
export function createVirtualClock(startedAtMs = Date.parse('2026-11-23T12:00:00Z')) {
  // Not 0: lru-cache takes that for no time at all.
  let elapsedMs = 1
  let wallClockMs = startedAtMs
  const timers = new Set<{ readonly dueMs: number; readonly callback: () => void }>()

  const clock: Clock = {
    now: () => wallClockMs,
    monotonicNow: () => elapsedMs,
    setTimeout(callback, delayMs) {
      const timer = { dueMs: elapsedMs + delayMs, callback, unref: () => timer }
      timers.add(timer)
      return timer
    },
    clearTimeout: (timer) => void timers.delete(timer as never),
    setImmediate: (callback) => void setImmediate(callback),
  }

  /** Time passes, but no timer fires: as in a process that was stopped. */
  function skip(milliseconds: number): void {
    elapsedMs += milliseconds
    wallClockMs += milliseconds
  }

  return {
    clock,
    skip,
    /** Time passes. Timers fire in their order, and what waits for them goes on. */
    async pass(milliseconds: number): Promise<void> {
      const endMs = elapsedMs + milliseconds
      for (;;) {
        await turn()
        const [next] = [...timers].filter(({ dueMs }) => dueMs <= endMs).sort((a, b) => a.dueMs - b.dueMs)
        if (!next) break
        skip(Math.max(next.dueMs - elapsedMs, 0))
        timers.delete(next)
        next.callback()
      }
      skip(endMs - elapsedMs)
    },
    /** Moves the wall clock alone. */
    setWallClock: (milliseconds: number) => {
      wallClockMs = milliseconds
    },
    pendingTimers: () => timers.size,
    /** How long until the next timer fires. */
    nextTimerMs: () => Math.min(...[...timers].map(({ dueMs }) => dueMs)) - elapsedMs,
  }
}
