import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { rootCertificates } from 'node:tls'
import t, { type Test } from 'tap'
import { Dispatcher } from 'undici'
import { systemClock } from '../../../src/clock.js'
import { type ConnectionsOptions, createConnections } from '../../../src/services/idenfy/connections.js'
import { certificate } from '../../fault-server.js'
import { listen } from '../../ports.js'
import { inTime, until } from '../../waiting.js'

const tls = await certificate('localhost')

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
