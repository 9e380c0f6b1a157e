export interface Clock {
  /** Wall clock, milliseconds since the epoch. It can jump. */
  readonly now: () => number
  /** Milliseconds of a clock that never goes back. It may stand still while the machine is suspended. */
  readonly monotonicNow: () => number
}

export const systemClock: Clock = { now: Date.now, monotonicNow: () => performance.now() }
