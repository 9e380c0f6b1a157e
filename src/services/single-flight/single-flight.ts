/** A result, and where it comes from: this request, an identical one in flight, or an earlier one. */
export interface SharedResult<T> {
  readonly origin: 'own' | 'shared' | 'stored'
  readonly value: T
  /** How long the replica-wide store keeps the value. */
  readonly ttlMs?: number
}

/** How one request takes part in the work under its key. */
export interface RunOptions<T> {
  /**
   * `share`: a request waits for an identical one in flight and shares its result.
   *
   * `once`: the work is done at most once under this key, whatever its outcome. A request that finds it in flight is
   * refused with `idempotency-conflict`. If the outcome is not known, the result is {@link unknownResult}.
   */
  readonly mode: 'share' | 'once'
  /** For how many milliseconds from now a value may be handed out, by the wall clock of this process. */
  readonly lifetimeMs: (value: T) => number
  /** Whether this request may get a stored value. */
  readonly accepts: (value: T) => boolean
  /** When this request must have its result, in milliseconds of the monotonic clock. */
  readonly deadlineMs: number
  /** Whether the client of this request has disconnected. */
  readonly isAbandoned: () => boolean
  /** Whether this replica may work without the replica-wide store. If not, it throws `state-unavailable`. */
  readonly mayRunAlone: boolean
  /** The value for work whose result is not known: the deadline passed, or the replica that did the work is gone. */
  readonly unknownResult: (reason: 'late' | 'owner-lost') => T
}

/**
 * Does the work. `isAbandoned` says whether the client of every waiting request has disconnected. If nothing has been
 * sent by then, the work sends nothing and throws `Abandoned`.
 */
export type Work<T> = (isAbandoned: () => boolean) => Promise<T>

/**
 * Single flight: identical requests have the same key, and share one piece of work and its result. Requests that wait
 * together also share the error that the work throws. An error is not stored.
 */
export interface SingleFlight<T> {
  /** @throws what `work` throws; Problem `idempotency-conflict` or `state-unavailable`; Abandoned */
  run(key: string, work: Work<T>, options: RunOptions<T>): Promise<SharedResult<T>>
  /** Resolves when no work is in flight. Clients may have disconnected long before. */
  settled(): Promise<void>
}
