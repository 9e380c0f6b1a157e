import type { Clock, Timer } from '../../clock.js'

/**
 * Rejects with a `TimeoutError` after `timeoutMs`, even if `work` ignores its signal: undici ignores it while it connects.
 */
export async function withTimeout<T>(
  work: (signal: AbortSignal) => Promise<T>,
  timeoutMs: number,
  clock: Clock,
): Promise<T> {
  const controller = new AbortController()
  let timer: Timer | undefined
  const timeout = new Promise<never>((_resolve, reject) => {
    timer = clock.setTimeout(() => {
      const error = new DOMException(`Not done within ${timeoutMs} ms`, 'TimeoutError')
      controller.abort(error)
      reject(error)
    }, timeoutMs)
  })
  try {
    return await Promise.race([work(controller.signal), timeout])
  } finally {
    clock.clearTimeout(timer)
  }
}
