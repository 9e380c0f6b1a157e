import { createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import selfsigned from 'selfsigned'
import type { Test } from 'tap'
import { listen } from './ports.js'

/** A POST that has arrived in full. */
export interface Arrival {
  readonly head: string
  // biome-ignore lint/suspicious/noExplicitAny: tests read whatever arrived
  readonly body: any
  /** How many came before. */
  readonly index: number
}

/** What happens once a POST is there: bytes to write, or anything done to the socket. */
export type Script = string | ((socket: Socket, arrival: Arrival) => void)

export interface FaultServerOptions {
  readonly tls?: { readonly key: string; readonly cert: string; readonly maxVersion?: 'TLSv1.1' }
  readonly host?: string
}

/** A peer in the place of iDenfy that speaks bytes, so that it can fail in any way at any moment. */
export async function startFaultServer(
  t: Test,
  script: Script,
  { tls, host = '127.0.0.1' }: FaultServerOptions = {},
) {
  const arrivals: Arrival[] = []
  const sockets = new Set<Socket>()
  const peer = {
    /** Changes what happens from now on. */
    script,
    arrivals,
    url: '',
    connections: 0,
  }

  function serve(socket: Socket): void {
    peer.connections += 1
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    let received = ''
    socket.setEncoding('utf8').on('data', (text) => {
      received += text
      const headEnd = received.indexOf('\r\n\r\n')
      const length = Number(/content-length: (\d+)/i.exec(received)?.[1])
      if (headEnd < 0 || received.length < headEnd + 4 + length) return
      const arrival = {
        head: received.slice(0, headEnd),
        body: JSON.parse(received.slice(headEnd + 4, headEnd + 4 + length)),
        index: arrivals.length,
      }
      received = received.slice(headEnd + 4 + length)
      arrivals.push(arrival)
      if (typeof peer.script === 'string') socket.write(peer.script)
      else peer.script(socket, arrival)
    })
  }

  const server: Server = tls
    ? createTlsServer(
        { ...tls, ...(tls.maxVersion && { minVersion: tls.maxVersion, ciphers: 'ALL:@SECLEVEL=0' }) },
        serve,
      )
    : createServer(serve)
  server.on('tlsClientError', () => {})
  const destroySockets = () => {
    for (const socket of sockets) socket.destroy()
  }
  const port = await listen(t, server, host)
  t.teardown(destroySockets)
  peer.url = `${tls ? 'https' : 'http'}://${host}:${port}`
  return Object.assign(peer, {
    /** No process listens any more. */
    vanish: () => {
      server.close()
      destroySockets()
    },
    comeBack: () => server.listening || server.listen(port, host),
  })
}

/** The bytes of a response. */
export function httpResponse(
  statusLine: string,
  body: unknown = '',
  headers: Record<string, string> = {},
): string {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const fields = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text), ...headers }
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${statusLine}\r\n${lines.join('')}\r\n${text}`
}

/** A token as short as iDenfy can make it, for a day to come. */
export const goodToken = { tokenString: 'T0ken', expiration: '2099-01-01T00:00:00Z' }
export const created = httpResponse('201 Created', goodToken)

export const day = 24 * 60 * 60 * 1000

/** A self-signed certificate for this host name. */
export async function certificate(name: string, from = Date.now() - day, to = Date.now() + day) {
  const { private: key, cert } = await selfsigned.generate([{ name: 'commonName', value: name }], {
    notBeforeDate: new Date(from),
    notAfterDate: new Date(to),
    extensions: [{ name: 'subjectAltName', altNames: [{ type: 2, value: name }] }],
  })
  return { key, cert }
}
