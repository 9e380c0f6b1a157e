import dns from 'node:dns'
import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import {
  type AddressInfo,
  connect as connectTcp,
  createServer as createTcpServer,
  type Socket,
} from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { rootCertificates } from 'node:tls'
import t, { type Test } from 'tap'
import { Dispatcher } from 'undici'
import { systemClock } from '../../../src/clock.js'
import { type ConnectionsOptions, createConnections } from '../../../src/services/idenfy/connections.js'
import { certificate } from '../../fault-server.js'
import { spawnNode } from '../../helper.js'
import { listen } from '../../ports.js'
import { createVirtualClock } from '../../virtual-clock.js'
import { inTime, until } from '../../waiting.js'

const tls = await certificate('localhost')
const uncounted = { _TAPJS_PROCESSINFO_COVERAGE_: '0' }

/** undici's other methods are made of `dispatch`. */
class ConnectionsDispatcher extends Dispatcher {
  constructor(readonly connections: Pick<Dispatcher, 'dispatch'>) {
    super()
  }

  override dispatch(...parameters: Parameters<Dispatcher['dispatch']>): boolean {
    return this.connections.dispatch(...parameters)
  }
}

/** Connections without a standby connection, but for the options. */
function open(t: Test, origin: string, options: Partial<ConnectionsOptions> = {}) {
  const connections = createConnections({
    origin,
    maxConnections: 2,
    connectTimeoutMs: 10_000,
    maxAgeMs: 120_000,
    standbyMaxAgeMs: 0,
    userAgent: 'test/1',
    clock: systemClock,
    onConnected: () => {},
    onReplaced: () => {},
    onUnavailable: () => {},
    onAvailable: () => {},
    ...options,
  })
  t.teardown(connections.destroy)
  const dispatcher = new ConnectionsDispatcher(connections)
  return {
    ...connections,
    get: async (): Promise<string> => {
      const { body } = await dispatcher.request({ origin, path: '/', method: 'GET' })
      return body.text()
    },
  }
}

const connect = (...parameters: Parameters<typeof open>) => open(...parameters).get

t.test('no more connections are opened than allowed, and they are kept', async (t) => {
  const pending: (() => void)[] = []
  let connections = 0
  const server = createServer((_request, response) => pending.push(() => response.end('hello')))
  server.on('connection', () => {
    connections += 1
  })
  t.teardown(() => server.closeAllConnections())
  const get = connect(t, `http://localhost:${await listen(t, server, 'localhost')}`)
  const responses = [get(), get(), get()]
  await until(() => pending.length === 2, 'two requests')
  for (let ended = 0; ended < 3; ended++) {
    await until(() => pending.length > ended, 'the next request')
    pending[ended]?.()
  }
  t.strictSame(await Promise.all(responses), ['hello', 'hello', 'hello'])
  t.equal(connections, 2)
})

t.test('a response of more than 64 KiB is refused', async (t) => {
  let bytes = 64 * 1024
  const server = createServer((_request, response) => response.end('x'.repeat(bytes)))
  t.teardown(() => server.closeAllConnections())
  const get = connect(t, `http://localhost:${await listen(t, server, 'localhost')}`)
  t.equal((await get()).length, bytes)
  bytes += 1
  await t.rejects(get(), { code: 'UND_ERR_RES_EXCEEDED_MAX_SIZE' })
})

t.test('a certificate of another authority is accepted beside the usual ones', async (t) => {
  const server = createTlsServer(tls, (_request, response) => response.end('hello'))
  t.teardown(() => server.closeAllConnections())
  const origin = `https://localhost:${await listen(t, server, 'localhost')}`
  t.equal(await connect(t, origin, { extraCa: tls.cert })(), 'hello')
  await t.rejects(connect(t, origin)(), { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' })
  t.ok(rootCertificates.length > 0)
})

t.test('an old version of TLS is refused', async (t) => {
  const server = createTlsServer({
    ...tls,
    minVersion: 'TLSv1.1',
    maxVersion: 'TLSv1.1',
    ciphers: 'ALL:@SECLEVEL=0',
  })
  server.on('tlsClientError', () => {})
  const origin = `https://localhost:${await listen(t, server, 'localhost')}`
  await t.rejects(connect(t, origin, { extraCa: tls.cert })(), { code: /^(EPROTO|ERR_SSL_)/ })
})

t.test('connecting has a time limit, and goes through the proxy', async (t) => {
  const asked: unknown[] = []
  const proxy = createServer().on('connect', ({ url, headers }, client) => {
    t.teardown(() => client.destroy())
    asked.push([url, headers['user-agent']])
  })
  const proxyUrl = `http://localhost:${await listen(t, proxy, 'localhost')}`
  const get = connect(t, 'http://idenfy.example', { connectTimeoutMs: 300, proxyUrl })
  await t.rejects(inTime(get(), 'the time limit'), {
    name: 'EgressProxyError',
    code: 'UND_ERR_CONNECT_TIMEOUT',
  })
  t.strictSame(asked, [['idenfy.example:80', 'test/1']])
})

/** A server that says where it is, and what is known of its connections. */
async function startServer(t: Test, host = '127.0.0.1', port = 0, headers: Record<string, string> = {}) {
  const sockets: Socket[] = []
  const held: (() => void)[] = []
  const peer = { isHolding: false }
  const server = createServer((_request, response) => {
    const respond = () => response.writeHead(200, headers).end(host)
    if (peer.isHolding) held.push(respond)
    else respond()
  })
  server.keepAliveTimeout = 0
  server.on('connection', (socket) => sockets.push(socket))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  await new Promise<void>((resolve) => server.listen(port, host, resolve))
  return Object.assign(peer, {
    port: (server.address() as AddressInfo).port,
    sockets,
    held,
    open: () => sockets.filter(({ destroyed }) => !destroyed),
  })
}

/** What the name `idenfy.test` resolves to, in this process. */
function resolveTo(t: Test) {
  const { lookup } = dns
  const resolver = { address: '127.0.0.1', lookups: 0 }
  t.teardown(() => {
    dns.lookup = lookup
  })
  dns.lookup = ((name: string, options: object, callback: (...result: unknown[]) => void) => {
    if (name !== 'idenfy.test') return lookup(name, options, callback as never)
    resolver.lookups += 1
    return lookup(resolver.address, options, callback as never)
  }) as typeof lookup
  return resolver
}

t.test('a change of address is followed, although the old one still responds', async (t) => {
  for (const standbyMaxAgeMs of [0, 45_000]) {
    const old = await startServer(t, '127.0.0.1', 0, { 'keep-alive': 'timeout=600' })
    const next = await startServer(t, '127.0.0.2', old.port)
    const resolver = resolveTo(t)
    const { clock, pass } = createVirtualClock()
    const { get, standby } = open(t, `http://idenfy.test:${old.port}`, { clock, standbyMaxAgeMs })
    standby?.open()
    await standby?.firstAttempt
    t.equal(await get(), '127.0.0.1')
    resolver.address = '127.0.0.2'
    const responses: string[] = []
    // One request a second: the connection is never idle for long.
    for (let second = 0; second < 240; second++) {
      await pass(1_000)
      responses.push(await get())
    }
    const changedAfter = responses.indexOf('127.0.0.2')
    t.ok(changedAfter > 0 && changedAfter <= 120, `after ${changedAfter} s`)
    t.notOk(responses.slice(changedAfter).includes('127.0.0.1'), 'and not back')
    await until(() => old.open().length === 0, 'the old connections to close')
    t.not(next.sockets.length, 0)
  }
})

t.test('the connection that stands by resolves the name again', async (t) => {
  const old = await startServer(t)
  const next = await startServer(t, '127.0.0.2', old.port)
  const resolver = resolveTo(t)
  const { clock, pass } = createVirtualClock()
  const { get, standby } = open(t, `http://idenfy.test:${old.port}`, { clock, standbyMaxAgeMs: 45_000 })
  standby?.open()
  await standby?.firstAttempt
  resolver.address = '127.0.0.2'
  await pass(600)
  await until(() => next.sockets.length === 1, 'a connection to the new address')
  await until(() => standby?.isReady() === true, 'it to stand by')
  t.equal(await get(), '127.0.0.2')
})

t.test('no connection gets a request when it is too old, and requests in flight go on', async (t) => {
  const server = await startServer(t)
  const { clock, pass } = createVirtualClock()
  const { get } = open(t, `http://127.0.0.1:${server.port}`, { clock, maxAgeMs: 10_000 })
  await get()
  await pass(5_999)
  await get()
  t.equal(server.sockets.length, 1)
  server.isHolding = true
  const inFlight = get()
  await until(() => server.held.length === 1, 'the request')
  const before = server.sockets.length
  server.isHolding = false
  await pass(1)
  await get()
  t.equal(server.sockets.length, before + 1)
  t.equal(server.open().length, 2, 'the one in flight, and the new one')
  server.held[0]?.()
  t.equal(await inFlight, '127.0.0.1')
  await until(() => server.open().length === 1, 'the old connection to close')
})

t.test('the age of a connection includes the time that it stood by', async (t) => {
  const server = await startServer(t)
  const { clock, pass, skip } = createVirtualClock()
  const { get, standby } = open(t, `http://127.0.0.1:${server.port}`, {
    clock,
    maxAgeMs: 10_000,
    standbyMaxAgeMs: 5_000,
  })
  standby?.open()
  await standby?.firstAttempt
  skip(700)
  await get()
  const [used] = server.sockets
  await pass(5_299)
  await get()
  t.equal(used?.destroyed, false)
  await pass(1)
  await get()
  await until(() => used?.destroyed === true, 'the connection to close')
})

t.test('later requests get new connections when one seems to be dead', async (t) => {
  const server = await startServer(t)
  const replaced: string[] = []
  const { get, standby, renew } = open(t, `http://127.0.0.1:${server.port}`, {
    standbyMaxAgeMs: 45_000,
    onReplaced: (reason) => replaced.push(reason),
  })
  standby?.open()
  await get()
  await until(() => standby?.isReady() === true, 'another one')
  const before = server.sockets.length
  renew()
  t.strictSame(replaced, ['suspect'])
  await get()
  await until(
    () => server.sockets.slice(0, before).every(({ destroyed }) => destroyed),
    'the others to close',
  )
})

t.test('connections are not renewed for each request of a slow server', async (t) => {
  const server = await startServer(t)
  const { clock, skip } = createVirtualClock()
  const { get, renew } = open(t, `http://127.0.0.1:${server.port}`, { clock })
  const countAfterRenewals = async () => {
    for (const renewals of [50, 1, 0]) {
      await get()
      // Until then undici does not use the connection again.
      await turn()
      for (let timeout = 0; timeout < renewals; timeout++) renew()
    }
    return server.sockets.length
  }
  t.equal(await countAfterRenewals(), 2)
  skip(999)
  t.equal(await countAfterRenewals(), 2)
  // The last one was too soon, so it comes now.
  skip(1)
  t.equal(await countAfterRenewals(), 3)
})

t.test('a connection does not stay idle for as long as the server announces', async (t) => {
  const server = await startServer(t, '127.0.0.1', 0, { 'keep-alive': 'timeout=600' })
  const get = connect(t, `http://127.0.0.1:${server.port}`)
  await get()
  await until(() => server.open().length === 0, 'the connection to close')
  t.equal(server.sockets.length, 1)
})

t.test('what a request gets is counted', async (t) => {
  const server = await startServer(t)
  const connected: boolean[] = []
  const { get, standby } = open(t, `http://127.0.0.1:${server.port}`, {
    standbyMaxAgeMs: 45_000,
    onConnected: (isStandby) => connected.push(isStandby),
  })
  await get()
  await until(() => standby?.isReady() === true, 'a connection to stand by')
  server.isHolding = true
  const both = [get(), get()]
  await until(() => server.held.length === 2, 'two requests')
  for (const respond of server.held) respond()
  await Promise.all(both)
  t.strictSame(connected, [false, true])
})

t.test('an IPv6 address as iDenfy', async (t) => {
  const server = await startServer(t, '::1')
  const { get, standby } = open(t, `http://[::1]:${server.port}`, { standbyMaxAgeMs: 45_000 })
  standby?.open()
  await standby?.firstAttempt
  t.equal(standby?.isReady(), true)
  t.equal(await get(), '::1')
})

t.test('a connection that stands by does not keep the process alive', async (t) => {
  const plain = await startServer(t)
  const secure = createTlsServer(tls, (_request, response) => response.end('hello'))
  t.teardown(() => secure.closeAllConnections())
  const secureOrigin = `https://localhost:${await listen(t, secure, 'localhost')}`
  const silent = createTcpServer((socket) => {
    socket.on('error', () => {}).resume()
    t.teardown(() => socket.destroy())
  })
  const silentUrl = `localhost:${await listen(t, silent, 'localhost')}`
  const proxy = createServer().on('connect', ({ url }, client) => {
    const { hostname, port } = new URL(`tcp://${url}`)
    const origin = connectTcp(Number(port), hostname)
    t.teardown(() => {
      client.destroy()
      origin.destroy()
    })
    client
      .on('error', () => {})
      .pipe(origin)
      .on('error', () => {})
      .pipe(client)
    client.write('HTTP/1.1 200 OK\r\n\r\n')
  })
  const proxyUrl = `http://localhost:${await listen(t, proxy, 'localhost')}`
  for (const [isReady, options] of [
    [true, { origin: `http://127.0.0.1:${plain.port}` }],
    [true, { origin: secureOrigin, extraCa: tls.cert }],
    [true, { origin: secureOrigin, extraCa: tls.cert, proxyUrl }],
    // Still connecting.
    [false, { origin: `https://${silentUrl}` }],
    [false, { origin: 'https://idenfy.example', proxyUrl: `http://${silentUrl}` }],
  ] as const) {
    const script = `
      import { createConnections } from './dist/services/idenfy/connections.js'
      import { systemClock as clock } from './dist/clock.js'
      const { standby } = createConnections({
        ...${JSON.stringify(options)}, clock, maxConnections: 1, connectTimeoutMs: 60_000, maxAgeMs: 120_000,
        standbyMaxAgeMs: 45_000, userAgent: 'test/1',
        onReplaced() {}, onUnavailable: console.log, onAvailable() {}, onConnected() {},
      })
      standby.open()
      if (${isReady}) {
        const keepAlive = setInterval(() => {}, 60_000)
        await standby.firstAttempt
        clearInterval(keepAlive)
        console.log(standby.isReady())
      }`
    const { exited, output } = spawnNode(t, ['--input-type=module', '--eval', script, 'dist/'], uncounted)
    t.equal(await exited(), 0)
    t.equal(output.stdout, isReady ? 'true\n' : '')
  }
})
