import { type ClientRequest, request as requestOverHttp } from 'node:http'
import { request as requestOverTls } from 'node:https'
import type { Socket } from 'node:net'
import type { ConnectionOptions as TlsOptions } from 'node:tls'
import { buildConnector, errors } from 'undici'

/** The egress proxy cannot be reached or refuses. It has the code and the message of its cause. */
export class EgressProxyError extends Error {
  override readonly name = 'EgressProxyError'
  readonly code: string | undefined

  constructor(cause: NodeJS.ErrnoException) {
    super(cause.message, { cause })
    this.code = cause.code
  }
}

export interface ConnectorOptions {
  /** For all steps before a request can be sent: DNS, TCP, TLS to the proxy, CONNECT, TLS to the origin. */
  readonly timeoutMs: number
  /** For the origin, and for a proxy with an https: URL. `lookup` is also used without TLS. */
  readonly tls: TlsOptions
  /** An egress proxy that supports CONNECT (RFC 9110, section 9.3.6). */
  readonly proxyUrl?: string | undefined
  readonly userAgent: string
}

type BuiltConnector = (...parameters: Parameters<buildConnector.connector>) => Socket
type Closable = { destroy(): unknown }

export interface ConnectOptions {
  /** The process may exit while it connects, and while the connection is open. `socket.ref()` ends that. */
  readonly isBackground?: boolean
}

/** @returns a function that gives up connecting. Then the callback gets an error */
export type Connect = (
  target: buildConnector.Options,
  callback: buildConnector.Callback,
  options?: ConnectOptions,
) => () => void

/**
 * Opens the connections of an undici pool, directly or through an egress proxy, within one time limit. Each one resolves
 * the host name again.
 *
 * undici's own limit has a resolution of half a second and does not cover CONNECT. Its ProxyAgent reconnects endlessly
 * when a proxy closes the connection during CONNECT (https://github.com/nodejs/undici/issues/3897).
 */
export function createConnector(options: ConnectorOptions): Connect {
  const { timeoutMs, tls } = options
  // Without its timer. The function returns the socket, although its type does not say so.
  const connect = buildConnector({ ...tls, timeout: 0 } as buildConnector.BuildOptions) as BuiltConnector
  const openTunnel = options.proxyUrl && createTunnelOpener(new URL(options.proxyUrl), options)

  return (target, callback, { isBackground = false } = {}) => {
    const opened: Closable[] = []
    let isSettled = false
    function settle(...[error, socket]: Parameters<buildConnector.Callback>): void {
      if (isSettled) return
      isSettled = true
      clearTimeout(timer)
      if (error) {
        for (const closable of opened) closable.destroy()
        callback(error, null)
      } else callback(null, socket)
    }
    let isAtProxy = openTunnel !== undefined
    const timer = setTimeout(() => {
      const late = new errors.ConnectTimeoutError('Connecting took too long')
      settle(isAtProxy ? new EgressProxyError(late) : late, null)
    }, timeoutMs)
    if (isBackground) timer.unref()
    const prepare = (socket: Socket) => (isBackground ? socket.unref() : socket)
    const giveUp = () => settle(new Error('Given up'), null)

    if (!openTunnel) {
      opened.push(prepare(connect(target, settle)))
      return giveUp
    }
    const onTunnel = (tunnel: Socket) => {
      isAtProxy = false
      opened.push(tunnel)
      if (target.protocol === 'https:')
        opened.push(prepare(connect({ ...target, httpSocket: tunnel }, settle)))
      else settle(null, tunnel)
    }
    opened.push(
      openTunnel(authorityOf(target), onTunnel, (error) => settle(new EgressProxyError(error), null)).on(
        'socket',
        prepare,
      ),
    )
    return giveUp
  }
}

function createTunnelOpener(proxy: URL, { tls, userAgent }: ConnectorOptions) {
  const credentials = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`
  const authorization = `Basic ${Buffer.from(credentials).toString('base64')}`
  const request = proxy.protocol === 'https:' ? requestOverTls : requestOverHttp
  const headers = {
    'user-agent': userAgent,
    ...(proxy.username && { 'proxy-authorization': authorization }),
  }

  return (
    authority: string,
    onTunnel: (tunnel: Socket) => void,
    onError: (error: Error) => void,
  ): ClientRequest =>
    request({
      ...tls,
      host: proxy.hostname.replace(/^\[|\]$/g, ''),
      port: proxy.port || (proxy.protocol === 'https:' ? 443 : 80),
      method: 'CONNECT',
      path: authority,
      headers: { ...headers, host: authority },
      agent: false,
    })
      .on('error', onError)
      .on('connect', ({ statusCode = 0 }, socket: Socket) => {
        socket.on('error', () => {})
        if (statusCode >= 200 && statusCode < 300) onTunnel(socket)
        else {
          socket.destroy()
          onError(refusedByProxy(statusCode))
        }
      })
      .end()
}

function authorityOf({ hostname, port, protocol }: buildConnector.Options): string {
  const host = hostname.includes(':') ? `[${hostname}]` : hostname
  return `${host}:${port || (protocol === 'https:' ? 443 : 80)}`
}

/** Has a code of its own: after an error with one of undici's socket codes, undici would reconnect endlessly. */
function refusedByProxy(statusCode: number): Error {
  return Object.assign(new Error('The proxy refused'), { code: `PROXY_${statusCode}`, syscall: 'connect' })
}
