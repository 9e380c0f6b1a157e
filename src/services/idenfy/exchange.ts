import type { Dispatcher } from 'undici'

/** No answer came in time. */
export class DeadlineExceeded extends Error {
  override readonly name = 'TimeoutError'
}

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
}

export interface ExchangeOptions {
  /** From now to the last byte of the answer. */
  readonly timeoutMs: number
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
  { timeoutMs, onFailure }: ExchangeOptions,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let sending: Dispatcher.DispatchController | undefined
    let late: DeadlineExceeded | undefined
    let status = 0
    let headers: Answer['headers'] = {}

    function fail(cause: Error): void {
      clearTimeout(timer)
      reject(onFailure(cause, sending !== undefined))
    }
    const timer = setTimeout(() => {
      late = new DeadlineExceeded()
      // While undici still connects there is nothing to abort, and nobody should wait for that.
      if (sending) sending.abort(late)
      else fail(late)
    }, timeoutMs)

    dispatcher.dispatch(request, {
      onRequestStart(controller) {
        if (late) controller.abort(late)
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
