import type { Socket } from 'node:net'
import type { Dispatcher } from 'undici'
import { type Connect, EgressProxyError } from '../../src/services/idenfy/connector.js'
import type { Standby, StandbyCallback } from '../../src/services/idenfy/standby.js'
import { IdleConnection, type IdleLimits } from './idle-connection.js'
import { type Network, randomOf } from './network.js'
import { epochMs, type Process } from './process.js'
import type { VirtualTime } from './virtual-time.js'

/** How connecting to iDenfy fails. */
export const connectFaults = [
  'refused',
  'connect-hangs',
  'proxy-refuses',
  'proxy-hangs',
  'untrusted',
] as const
/** What iDenfy does with a request instead of responding 201. */
export const responseFaults = [
  'slow',
  'hangs',
  'hangs-after-creating',
  'error',
  'error-after-creating',
  'rate-limited',
  'garbage-after-creating',
] as const
export type IdenfyFault = (typeof connectFaults)[number] | (typeof responseFaults)[number]

/** A verification that iDenfy has opened. */
export interface Verification {
  readonly tokenString: string
  readonly clientId: string
  /** The id of the request for which it was opened. */
  readonly externalRef: string
  readonly expiresAtMs: number
}

interface PostBody {
  readonly clientId: string
  readonly externalRef: string
  readonly lifetime?: number
}

/** iDenfy: whom it lets in, what it opens, and how it fails. */
export function createIdenfy(time: VirtualTime, seed: number) {
  const opened = new Map<string, Verification>()
  const accepted = new Set<string>()
  let fault: IdenfyFault | undefined
  /** How much longer than usual a response takes. */
  let slowMs = 0
  let posts = 0

  function open({ clientId, externalRef, lifetime = 3600 }: PostBody): Verification {
    const tokenString = `token-${opened.size}`
    const expiresAtMs = time.now() + lifetime * 1000
    const verification = { tokenString, clientId, externalRef, expiresAtMs }
    opened.set(tokenString, verification)
    return verification
  }

  return {
    opened,
    fault: (): IdenfyFault | undefined => fault,
    setFault(value: IdenfyFault | undefined, slowerMs = 0): void {
      fault = value
      slowMs = slowerMs
    },
    accept: (authorization: string): void => void accepted.add(authorization),
    refuse: (authorization: string): void => void accepted.delete(authorization),
    /** Handles a POST. It never responds if `respond` is not called. */
    handle(body: PostBody, authorization: string, respond: (response: Response) => void): void {
      posts += 1
      const workMs = slowMs + 20 + 200 * randomOf(seed, 77, posts)
      const after = (delayMs: number, response: () => Response) =>
        void time.after(delayMs, () => respond(response()))
      const created = () => json(201, tokenOf(open(body), body))
      if (!accepted.has(authorization)) {
        after(workMs, () => json(401, { identifier: 'UNAUTHORIZED' }))
        return
      }
      switch (fault) {
        case 'hangs':
          break
        case 'hangs-after-creating':
          open(body)
          break
        case 'slow':
          after(workMs + 1_000, created)
          break
        case 'error':
          after(workMs, () => json(500, { identifier: 'INTERNAL_ERROR' }))
          break
        case 'rate-limited':
          after(workMs, () => json(429, { identifier: 'TOO_MANY_REQUESTS' }, { 'retry-after': '1' }))
          break
        case 'error-after-creating':
          after(workMs, () => {
            open(body)
            return json(502, {})
          })
          break
        case 'garbage-after-creating':
          after(workMs, () => {
            open(body)
            return { status: 200, headers: { 'content-type': 'text/html' }, text: '<html>' }
          })
          break
        default:
          after(workMs, created)
      }
    },
  }
}

export type Idenfy = ReturnType<typeof createIdenfy>

interface Response {
  readonly status: number
  readonly headers: Record<string, string>
  readonly text: string
}

const json = (status: number, body: unknown, headers: Record<string, string> = {}): Response => ({
  status,
  headers: { 'content-type': 'application/json', ...headers },
  text: JSON.stringify(body),
})

const tokenOf = ({ tokenString, expiresAtMs }: Verification, { clientId, externalRef }: PostBody) => ({
  tokenType: 'FORM',
  tokenString,
  expiration: new Date(epochMs + expiresAtMs).toISOString(),
  isValid: true,
  clientId,
  externalRef,
  companyId: null,
})

export interface DispatcherOptions {
  readonly idenfy: Idenfy
  readonly process: Process
  readonly network: Network
  readonly time: VirtualTime
  readonly connectTimeoutMs: number
  readonly idleLimits: IdleLimits
  /** Creates what stands by. */
  readonly createStandby: (connect: Connect) => Standby | undefined
  /** Called when a POST begins to be sent. */
  readonly onPost: (
    requestId: string,
    lifetimeSeconds: number,
    authorization: string,
    isOnDeadConnection: boolean,
  ) => void
}

/** How long undici keeps a connection that the server does not limit. */
const keepAliveMs = 4_000
const never = Number.POSITIVE_INFINITY

/** undici's pool and what stands by for it, with the network, an egress proxy and iDenfy behind them. */
export function createSimulatedDispatcher(options: DispatcherOptions) {
  const { idenfy, process, network, time, connectTimeoutMs, idleLimits, onPost } = options
  const { clock } = process
  const standby = options.createStandby(open)
  /** Until when each idle connection is kept. */
  let idleUntilMs: number[] = []

  function open(
    _target: unknown,
    callback: Parameters<Connect>[1],
    { isBackground = false } = {},
  ): () => void {
    const fault = connectFaults.find((name) => name === idenfy.fault())
    let isSettled = false
    const settle = (act: () => void) => () => {
      if (isSettled) return
      isSettled = true
      clock.clearTimeout(timer)
      act()
    }
    const isProxy = fault === 'proxy-refuses' || fault === 'proxy-hangs'
    const fail = (code: string) => {
      const error = Object.assign(new Error(code), { code })
      callback(isProxy ? new EgressProxyError(error) : error, null)
    }
    const timer = clock.setTimeout(
      settle(() => fail('UND_ERR_CONNECT_TIMEOUT')),
      connectTimeoutMs,
    )
    const reset = () => process.deliver(settle(() => fail('ECONNRESET')))
    const codes = { refused: 'ECONNREFUSED', 'proxy-refuses': 'PROXY_502', untrusted: 'CERT_HAS_EXPIRED' }
    function accept(): void {
      if (fault === 'connect-hangs' || fault === 'proxy-hangs') return
      network.send(isBackground ? 'standby-response' : 'idenfy-response', answer, reset)
    }
    function answer(): void {
      const limits = isBackground ? idleLimits : { closedAfterMs: never, forgottenAfterMs: never }
      const socket = new IdleConnection({ time, network, process, limits }) as unknown as Socket
      process.deliver(
        settle(() => (fault ? fail(codes[fault as keyof typeof codes]) : callback(null, socket))),
      )
    }
    network.send(isBackground ? 'standby-request' : 'idenfy-request', accept, reset)
    return settle(() => fail('given up'))
  }

  function connect(
    onConnected: (connection?: IdleConnection) => void,
    onFailure: (error: Error) => void,
  ): void {
    idleUntilMs = idleUntilMs.filter((endMs) => endMs > clock.monotonicNow())
    if (idleUntilMs.pop() !== undefined) {
      onConnected()
      return
    }
    const callback: StandbyCallback = (...[error, socket]) => {
      if (error) onFailure(error)
      else onConnected(socket as unknown as IdleConnection)
    }
    if (standby) standby.connect(callback)
    else open(undefined, callback)
  }

  function dispatch(request: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    const { authorization = '' } = request.headers as Record<string, string>
    const body = JSON.parse(String(request.body)) as PostBody
    let isDone = false
    let isSent = false
    const controller = {
      abort(reason: Error) {
        if (isDone) return
        isDone = true
        // A connection whose request was not sent is kept.
        if (!isSent) idleUntilMs.push(clock.monotonicNow() + keepAliveMs)
        handler.onResponseError?.(controller, reason)
      },
    } as unknown as Dispatcher.DispatchController
    const fail = (error: Error) => {
      if (isDone) return
      isDone = true
      handler.onResponseError?.(controller, error)
    }
    const reset = () =>
      process.deliver(() => fail(Object.assign(new Error('other side closed'), { code: 'UND_ERR_SOCKET' })))

    function read({ status, headers, text }: Response): void {
      if (isDone) return
      isDone = true
      idleUntilMs.push(clock.monotonicNow() + keepAliveMs)
      handler.onResponseStart?.(controller, status, headers)
      handler.onResponseData?.(controller, Buffer.from(text))
      handler.onResponseEnd?.(controller, {})
    }
    connect((connection) => {
      handler.onRequestStart?.(controller, {})
      if (isDone) return
      isSent = true
      onPost(body.externalRef, body.lifetime ?? 0, authorization, connection?.isDead() === true)
      const respond = (response: Response) =>
        void network.send('idenfy-response', () => process.deliver(() => read(response)), reset)
      network.send('idenfy-request', () => idenfy.handle(body, authorization, respond), reset)
    }, fail)
    return true
  }

  return { standby, dispatch }
}
