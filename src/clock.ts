/** A timer of {@link Clock}. */
export interface Timer {
  /** The process may exit although the timer is pending. */
  unref(): unknown
}

/** Time as the services see it. The simulation replaces it, so services use no other clock and no other timers. */
export interface Clock {
  /** Wall clock, milliseconds since the epoch. It can jump. */
  readonly now: () => number
  /** Milliseconds of a clock that never goes back. It may stand still while the machine is suspended. */
  readonly monotonicNow: () => number
  readonly setTimeout: (callback: () => void, delayMs: number) => Timer
  readonly clearTimeout: (timer: Timer | undefined) => void
  readonly setImmediate: (callback: () => void) => void
}

export const systemClock: Clock = {
  now: Date.now,
  monotonicNow: () => performance.now(),
  // Node warns of a negative delay.
  setTimeout: (callback, delayMs) => setTimeout(callback, Math.max(delayMs, 0)),
  clearTimeout: (timer) => clearTimeout(timer as NodeJS.Timeout | undefined),
  setImmediate: (callback) => void setImmediate(callback),
}

/**
 * Starts to measure. By the clock that has advanced more: the monotonic one may stand still while the machine is
 * suspended.
 *
 * @returns how many milliseconds have passed
 */
export function startStopwatch({ now, monotonicNow }: Clock): () => number {
  const wallMs = now()
  const monotonicMs = monotonicNow()
  return () => Math.max(monotonicNow() - monotonicMs, now() - wallMs)
}

/** Resolves after `delayMs`. */
export function sleep({ setTimeout }: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => void setTimeout(resolve, delayMs))
}

/** @returns what a promise resolves to, or `late` if that takes longer than `maxMs` */
export async function inTime<T>(clock: Clock, promise: Promise<T>, maxMs: number, late: T): Promise<T> {
  let timer: Timer | undefined
  const isLate = new Promise<T>((resolve) => {
    timer = clock.setTimeout(() => resolve(late), maxMs)
  })
  try {
    return await Promise.race([promise, isLate])
  } finally {
    clock.clearTimeout(timer)
  }
}
