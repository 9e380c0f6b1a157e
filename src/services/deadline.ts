import { EventEmitter } from 'node:events'

/** Why {@link withDeadline} gave up. */
export class DeadlineExceeded extends Error {
  override readonly name = 'TimeoutError'
}

/**
 * Runs something that heeds an abort signal, and is done with it at the deadline whether it heeds it or not:
 * undici does so only once a connection stands.
 *
 * The signal is an emitter, which undici takes too. `AbortSignal.timeout` cost 13 µs a call on a 16 µs request,
 * an `AbortController` 10, this costs 2.
 *
 * @throws DeadlineExceeded, or what `run` throws
 */
export function withDeadline<T>(timeoutMs: number, run: (signal: EventEmitter) => Promise<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const signal = new EventEmitter()
    const timer = setTimeout(() => {
      reject(new DeadlineExceeded())
      signal.emit('abort')
    }, timeoutMs)
    run(signal)
      .then(resolve, reject)
      .finally(() => clearTimeout(timer))
  })
}
