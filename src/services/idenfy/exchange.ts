import type { Dispatcher } from 'undici'
import { Abandoned } from '../../problems/abandoned.js'

/** The response, or the moment to send the request, did not come in time. */
export class DeadlineExceeded extends Error {
  override readonly name = 'TimeoutError'
}

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
}

export interface ExchangeOptions {
  /** When the last byte of the response must be there. Milliseconds of `monotonicNow`, as is `sendBefore`. */
  readonly deadline: number
  /** A request that cannot be sent before this moment is not sent. */
  readonly sendBefore: number
  readonly monotonicNow: () => number
  /** Whether no one waits for the response any more. Such a request is not sent; once it is sent, it goes on. */
  readonly isAbandoned: () => boolean
  /**
   * Makes the error of a failure. Until undici has begun to send, the peer cannot have seen the request; from then
   * on a failure leaves open what became of it.
   */
  readonly onFailure: (cause: Error, isSent: boolean) => Error
}

/**
 * One request and its whole answer, in time or not at all.
 *
 * By undici's `dispatch`, which tells when sending begins, and can be given up without an abort signal and read
 * without a stream: `request` with both costs 7 µs more, a tenth of a whole request.
 *
 * @throws what `onFailure` makes
 */
export function exchange(
  dispatcher: Dispatcher,
  request: Dispatcher.DispatchOptions,
  { deadline, sendBefore, monotonicNow, isAbandoned, onFailure }: ExchangeOptions,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let sending: Dispatcher.DispatchController | undefined
    let hasFailed = false
    let isLastTimer = false
    let status = 0
    let headers: Answer['headers'] = {}

    function fail(cause: Error): void {
      hasFailed = true
      clearTimeout(timer)
      reject(onFailure(cause, sending !== undefined))
    }
    function onTimeout(): void {
      // While undici still connects there is nothing to abort, and no one should wait for that.
      if (!sending) fail(new DeadlineExceeded())
      else if (isLastTimer) sending.abort(new DeadlineExceeded())
      else {
        isLastTimer = true
        // By the clock, because this process may have been stopped. A clock that stands still must not add time.
        timer = setTimeout(onTimeout, Math.min(deadline - sendBefore, deadline - monotonicNow()))
      }
    }
    let timer = setTimeout(onTimeout, sendBefore - monotonicNow())

    dispatcher.dispatch(request, {
      onRequestStart(controller) {
        // The clock is asked again: a process that was stopped for a while gets here before its timers.
        if (hasFailed || monotonicNow() >= sendBefore) controller.abort(new DeadlineExceeded())
        else if (isAbandoned()) controller.abort(new Abandoned())
        else sending = controller
      },
      // Once more for every interim answer.
      onResponseStart(_controller, statusCode, fields) {
        status = statusCode
        headers = fields
      },
      onResponseData(_controller, chunk) {
        chunks.push(chunk)
      },
      onResponseEnd() {
        clearTimeout(timer)
        resolve({ status, headers, text: Buffer.concat(chunks).toString() })
      },
      onResponseError(_controller, cause) {
        fail(cause)
      },
    })
  })
}
