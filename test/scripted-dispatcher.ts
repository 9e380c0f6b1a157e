import { Dispatcher } from 'undici'

/** One request that a service has handed to undici. The test decides what undici reports about it. */
export interface DispatchedRequest {
  readonly method: string
  readonly path: string
  readonly origin: string
  readonly headers: Readonly<Record<string, string>>
  // biome-ignore lint/suspicious/noExplicitAny: tests read whatever was sent
  readonly body: any
  /** The connection stands, and undici is about to send. The service may stop it. */
  begin(): void
  /** The head of a response, for example an interim one. */
  head(status: number, headers?: Readonly<Record<string, string>>): void
  /** A whole response, in chunks of a few bytes. Begins to send first, if the request does not yet. */
  respond(status: number, body?: unknown, headers?: Readonly<Record<string, string>>): void
  /** The connection breaks, or was never there. */
  fail(error: Error): void
  /** Why the service has stopped the request. */
  stoppedBy(): Error | undefined
}

const json = { 'content-type': 'application/json' }

/** In the place of undici: requests go nowhere, and a script responds to them. No sockets, so a test can move the time. */
export class ScriptedDispatcher extends Dispatcher {
  readonly requests: DispatchedRequest[] = []

  /** @param script called for each request. It may also leave it pending. */
  constructor(public script: (request: DispatchedRequest) => void = () => {}) {
    super()
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    let state: 'connecting' | 'sending' | 'ended' = 'connecting'
    let stopped: Error | undefined
    const end = (error: Error) => {
      if (state === 'ended') return
      state = 'ended'
      handler.onResponseError?.(controller, error)
    }
    const controller = {
      aborted: false,
      paused: false,
      reason: null,
      pause: () => {},
      resume: () => {},
      abort: (error: Error) => {
        stopped = error
        end(error)
      },
    }
    const begin = () => {
      if (state !== 'connecting') return
      state = 'sending'
      handler.onRequestStart?.(controller, {})
    }
    const request: DispatchedRequest = {
      method: options.method,
      path: options.path,
      origin: String(options.origin),
      headers: options.headers as Readonly<Record<string, string>>,
      body: JSON.parse(String(options.body)),
      begin,
      head: (status, headers = json) => handler.onResponseStart?.(controller, status, headers),
      respond(status, body = '', headers = json) {
        begin()
        if (state === 'ended') return
        handler.onResponseStart?.(controller, status, headers)
        const bytes = Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
        for (let from = 0; from < bytes.length; from += 7)
          handler.onResponseData?.(controller, bytes.subarray(from, from + 7))
        state = 'ended'
        handler.onResponseEnd?.(controller, {})
      },
      fail: end,
      stoppedBy: () => stopped,
    }
    this.requests.push(request)
    this.script(request)
    return true
  }
}
