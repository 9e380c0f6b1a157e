import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { createServer, type Socket } from 'node:net'
import { createServer as createTlsServer, type TLSSocket } from 'node:tls'
import t, { type Test } from 'tap'
import {
  type ConnectorOptions,
  createConnector,
  EgressProxyError,
} from '../../../src/services/idenfy/connector.js'
import { certificate } from '../../fault-server.js'
import { listen } from '../../ports.js'
import { inTime } from '../../waiting.js'

const tls = await certificate('localhost')

/** Connects once. All that a server does is over when it has closed what it was sent. */
async function connect(
  t: Test,
  target: { protocol: string; hostname?: string; port: number | string },
  options: Partial<ConnectorOptions> = {},
) {
  const connector = createConnector({ timeoutMs: 10_000, tls: {}, userAgent: 'test/1', ...options })
  const { hostname = 'localhost', port, protocol } = target
  const calls: [error: Error | null, socket: Socket | null][] = []
  const host = hostname
  await inTime(
    new Promise<void>((resolve) => {
      connector({ hostname, host, protocol, port: String(port) }, (...call) => {
        calls.push(call as [Error | null, Socket | null])
        resolve()
      })
    }),
    'the connector to end',
  )
  const [[error, socket]] = calls as [[Error | null, Socket | null]]
  t.teardown(() => {
    socket?.destroy()
    // What is destroyed after a failure may fail once more.
    if (calls.length !== 1) throw new Error(`the callback was called ${calls.length} times`)
  })
  return { error: error as (Error & { code?: string }) | null, socket }
}

/** A server that accepts connections and does nothing, and tells when one is closed. */
async function startSilentServer(t: Test) {
  const accepted: Promise<unknown>[] = []
  const server = createServer((socket) => {
    accepted.push(once(socket.on('error', () => {}).resume(), 'close'))
    t.teardown(() => socket.destroy())
  })
  return { port: await listen(t, server, 'localhost'), accepted }
}

/** A CONNECT proxy. It shows what it is asked for, and gives a tunnel to `end`. */
async function startProxy(
  t: Test,
  end: (client: Socket) => void,
  { status = '200 Connection Established', isTls = false } = {},
) {
  const asked: object[] = []
  const proxy = isTls ? createHttpsServer(tls) : createHttpServer()
  const clients: Socket[] = []
  const left: Promise<unknown>[] = []
  proxy.on('connect', ({ method, url, headers }, client: Socket) => {
    clients.push(client.on('error', () => {}).on('end', () => client.end()))
    left.push(new Promise((resolve) => client.once('close', resolve)))
    t.teardown(() => client.destroy())
    asked.push({ method, url, ...headers })
    client.write(`HTTP/1.1 ${status}\r\n\r\n`)
    end(client)
  })
  return {
    url: `${isTls ? 'https' : 'http'}://localhost:${await listen(t, proxy, 'localhost')}`,
    asked,
    clients,
    left,
  }
}

/** Says hello when it is spoken to. */
const greet = (socket: Socket) => void socket.once('data', () => socket.end('hello'))

/** An iDenfy with TLS that sends a greeting. It listens on no port: connections are handed to it. */
function createOrigin() {
  const origin = createTlsServer(tls, (socket) => greet(socket.on('error', () => {})))
  origin.on('tlsClientError', () => {})
  return (client: Socket) => void origin.emit('connection', client)
}

const read = async (socket: Socket | null) => {
  if (!socket) throw new Error('no socket')
  const chunks: Buffer[] = []
  socket.on('data', (chunk) => chunks.push(chunk)).write('hello?')
  await inTime(once(socket, 'end'), 'the end of the connection')
  return Buffer.concat(chunks).toString()
}

t.test('a connection is made without TLS, and kept open', async (t) => {
  const server = createServer(greet)
  const { error, socket } = await connect(t, {
    protocol: 'http:',
    port: await listen(t, server, 'localhost'),
  })
  t.equal(error, null)
  t.equal(await read(socket), 'hello')
})

t.test('a connection with TLS is made to the holder of the certificate only', async (t) => {
  const port = await listen(t, createServer(createOrigin()), 'localhost')
  const trusted = await connect(t, { protocol: 'https:', port }, { tls: { ca: tls.cert } })
  t.equal(trusted.error, null)
  t.equal((trusted.socket as TLSSocket).authorized, true)
  t.equal(await read(trusted.socket), 'hello')
  const { error, socket } = await connect(t, { protocol: 'https:', port })
  t.match(error, { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' })
  t.equal(socket, null)
})

t.test('a server that refuses is no fault of a proxy', async (t) => {
  // Port 1 is reserved: no process listens there.
  const { error, socket } = await connect(t, { protocol: 'http:', port: 1 })
  t.match(error, { code: 'ECONNREFUSED' })
  t.notOk(error instanceof EgressProxyError)
  t.equal(socket, null)
})

t.test('a TLS handshake that takes too long ends, and leaves no connection', async (t) => {
  const { port, accepted } = await startSilentServer(t)
  const { error, socket } = await connect(t, { protocol: 'https:', port }, { timeoutMs: 300 })
  t.match(error, { code: 'UND_ERR_CONNECT_TIMEOUT', message: 'Connecting took too long' })
  t.notOk(error instanceof EgressProxyError)
  t.equal(socket, null)
  await inTime(Promise.all(accepted), 'the connection to close')
  t.equal(accepted.length, 1)
})

t.test('a proxy is asked for a tunnel to the origin', async (t) => {
  for (const [target, authority] of [
    [{ protocol: 'http:', hostname: 'idenfy.example', port: '' }, 'idenfy.example:80'],
    [{ protocol: 'http:', hostname: 'idenfy.example', port: 8080 }, 'idenfy.example:8080'],
    [{ protocol: 'http:', hostname: '::1', port: '' }, '[::1]:80'],
  ] as const) {
    const { url, asked } = await startProxy(t, (client) => greet(client))
    const { error, socket } = await connect(t, target, { proxyUrl: url })
    t.equal(error, null)
    t.equal(await read(socket), 'hello')
    t.strictSame(asked, [
      { method: 'CONNECT', url: authority, 'user-agent': 'test/1', host: authority, connection: 'close' },
    ])
  }
  const { url, asked } = await startProxy(t, (client) => client.destroy())
  await connect(t, { protocol: 'https:', hostname: 'idenfy.example', port: '' }, { proxyUrl: url })
  t.match(asked, [{ url: 'idenfy.example:443' }])
})

t.test('a proxy gets the credentials of its URL, decoded', async (t) => {
  for (const isTls of [false, true]) {
    const { url, asked } = await startProxy(t, (client) => greet(client), { isTls })
    const proxyUrl = url.replace('//', '//us%40er:p%3Aw@')
    const { socket } = await connect(t, { protocol: 'http:', port: 80 }, { proxyUrl, tls: { ca: tls.cert } })
    t.equal(await read(socket), 'hello')
    t.match(asked, [{ 'proxy-authorization': `Basic ${Buffer.from('us@er:p:w').toString('base64')}` }])
  }
})

t.test('through a tunnel there is TLS with the origin', async (t) => {
  const { url } = await startProxy(t, createOrigin())
  const trusted = await connect(
    t,
    { protocol: 'https:', port: 443 },
    { proxyUrl: url, tls: { ca: tls.cert } },
  )
  t.equal(trusted.error, null)
  t.equal((trusted.socket as TLSSocket).authorized, true)
  t.equal(await read(trusted.socket), 'hello')
  const other = await startProxy(t, createOrigin())
  const { error } = await connect(t, { protocol: 'https:', port: 443 }, { proxyUrl: other.url })
  t.match(error, { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' })
  t.notOk(error instanceof EgressProxyError)
})

t.test('a proxy with TLS must be the proxy', async (t) => {
  const { url, asked } = await startProxy(t, () => {}, { isTls: true })
  const { error } = await connect(t, { protocol: 'http:', port: 80 }, { proxyUrl: url })
  t.match(error, { name: 'EgressProxyError', code: 'DEPTH_ZERO_SELF_SIGNED_CERT' })
  t.equal(asked.length, 0)
})

t.test('any success of CONNECT is a tunnel, and anything else a refusal', async (t) => {
  for (const status of ['200 OK', '204 No', '299 Odd']) {
    const { url } = await startProxy(t, (client) => greet(client), { status })
    const { socket } = await connect(t, { protocol: 'http:', port: 80 }, { proxyUrl: url })
    t.equal(await read(socket), 'hello', status)
  }
  for (const status of ['199 Odd', '300 Odd', '407 No', '502 No']) {
    const { url, left } = await startProxy(t, (client) => client.resume(), { status })
    const { error, socket } = await connect(t, { protocol: 'http:', port: 80 }, { proxyUrl: url })
    const code = `PROXY_${status.slice(0, 3)}`
    t.match(error, {
      name: 'EgressProxyError',
      code,
      message: 'The proxy refused',
      cause: { code, syscall: 'connect' },
    })
    t.ok(error instanceof EgressProxyError)
    t.equal(socket, null)
    await inTime(Promise.all(left), 'the proxy to be left')
  }
})

t.test('a proxy that cannot be reached is named as the reason', async (t) => {
  for (const proxyUrl of ['http://localhost:1', 'http://[::1]:1', 'https://127.0.0.1:1']) {
    const { error, socket } = await connect(t, { protocol: 'http:', port: 80 }, { proxyUrl })
    t.match(error, {
      name: 'EgressProxyError',
      code: 'ECONNREFUSED',
      message: /ECONNREFUSED/,
      cause: { code: 'ECONNREFUSED' },
    })
    t.equal(socket, null)
  }
})

t.test('a proxy that does not respond in time is named as the reason', async (t) => {
  for (const protocol of ['http', 'https']) {
    const { port, accepted } = await startSilentServer(t)
    const proxyUrl = `${protocol}://localhost:${port}`
    const { error } = await connect(t, { protocol: 'http:', port: 80 }, { proxyUrl, timeoutMs: 300 })
    t.match(error, { name: 'EgressProxyError', code: 'UND_ERR_CONNECT_TIMEOUT' })
    await inTime(Promise.all(accepted), 'the connection to close')
    t.equal(accepted.length, 1)
  }
})

t.test('an origin that does not respond in time is not the fault of the proxy', async (t) => {
  const { url, left } = await startProxy(t, (client) => client.resume())
  const { error } = await connect(t, { protocol: 'https:', port: 443 }, { proxyUrl: url, timeoutMs: 500 })
  t.match(error, { code: 'UND_ERR_CONNECT_TIMEOUT' })
  t.notOk(error instanceof EgressProxyError)
  await inTime(Promise.all(left), 'the tunnel to close')
})

t.test('a tunnel that breaks later is the business of its user', async (t) => {
  const { url, clients } = await startProxy(t, () => {})
  const { socket } = await connect(t, { protocol: 'http:', port: 80 }, { proxyUrl: url })
  const closed = new Promise((resolve) => socket?.once('close', resolve))
  clients[0]?.resetAndDestroy()
  await inTime(closed, 'the tunnel to close')
})
