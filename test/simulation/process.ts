import type { Clock, Timer } from '../../src/clock.js'
import type { Event, VirtualTime } from './virtual-time.js'

/** The wall clock when a simulation begins. */
export const epochMs = Date.UTC(2030, 0, 1)

interface PendingTimer extends Timer {
  readonly dueMs: number
  readonly callback: () => void
  event: Event | undefined
}

export interface ProcessOptions {
  readonly time: VirtualTime
  /** How many milliseconds its monotonic clock counts in one. */
  readonly rate: number
  /** How far its wall clock is ahead when it starts. */
  readonly aheadMs: number
}

/**
 * One process of the operating system, with its clocks and its timers. It can be stopped (SIGSTOP), suspended with its
 * machine, and killed. Until it continues, nothing happens in it, and what arrives waits.
 */
export function createProcess({ time, rate, aheadMs }: ProcessOptions) {
  const timers = new Set<PendingTimer>()
  const arrived: (() => void)[] = []
  let state: 'running' | 'stopped' | 'suspended' | 'killed' = 'running'
  /** What the monotonic clock showed at a moment. */
  let mark = { atMs: time.now(), monotonicMs: 1 }
  let wallAheadMs = aheadMs

  const monotonicNow = (): number =>
    mark.monotonicMs + (state === 'suspended' ? 0 : (time.now() - mark.atMs) * rate)

  function schedule(timer: PendingTimer): void {
    timer.event = time.after((timer.dueMs - monotonicNow()) / rate, () => {
      timers.delete(timer)
      time.run(timer.callback)
    })
  }

  const clock: Clock = {
    now: () => Math.floor(epochMs + time.now() + wallAheadMs),
    monotonicNow,
    setTimeout(callback, delayMs) {
      // As Node: at least one millisecond, and one for what is no number.
      const dueMs = monotonicNow() + (delayMs >= 1 ? delayMs : 1)
      const timer: PendingTimer = { dueMs, callback, event: undefined, unref: () => timer }
      timers.add(timer)
      schedule(timer)
      return timer
    },
    clearTimeout(timer) {
      const pending = timer as PendingTimer | undefined
      if (!pending || !timers.delete(pending)) return
      if (pending.event) pending.event.isCancelled = true
    },
    setImmediate(callback) {
      time.after(0, () => deliver(callback))
    },
  }

  function freeze(next: 'stopped' | 'suspended' | 'killed'): void {
    const monotonicMs = monotonicNow()
    mark = { atMs: time.now(), monotonicMs }
    state = next
    for (const { event } of timers) if (event) event.isCancelled = true
  }

  /** Runs it in this process: now, when it continues, or never. */
  function deliver(callback: () => void): void {
    if (state === 'running') time.run(callback)
    else if (state !== 'killed') arrived.push(callback)
  }

  return {
    clock,
    startedAtMs: time.now(),
    deliver,
    isAlive: (): boolean => state !== 'killed',
    isRunning: (): boolean => state === 'running',
    isFrozen: (): boolean => state === 'stopped' || state === 'suspended',
    pendingTimers: (): number => timers.size,
    wallAheadMs: (): number => wallAheadMs,
    setWallClock(jumpMs: number): void {
      wallAheadMs += jumpMs
    },
    /** @param suspended whether the monotonic clock stands still as well */
    stop(suspended: boolean): void {
      if (state === 'running') freeze(suspended ? 'suspended' : 'stopped')
    },
    /** @param timersFirst whether overdue timers come before what has arrived. Both happen */
    continue(timersFirst: boolean): void {
      if (state !== 'stopped' && state !== 'suspended') return
      mark = { atMs: time.now(), monotonicMs: monotonicNow() }
      state = 'running'
      const waiting = arrived.splice(0)
      const readAll = () => {
        for (const callback of waiting) time.after(0, () => deliver(callback))
      }
      if (!timersFirst) readAll()
      for (const timer of [...timers].sort((a, b) => a.dueMs - b.dueMs)) schedule(timer)
      if (timersFirst) readAll()
    },
    kill(): void {
      freeze('killed')
      timers.clear()
      arrived.length = 0
    },
  }
}

export type Process = ReturnType<typeof createProcess>
