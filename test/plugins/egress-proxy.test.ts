import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { connect, createServer as createTcpServer, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { certificate, created, goodToken, startFaultServer } from '../fault-server.js'
import { build, listen, matchProblem } from '../helper.js'

const credentials = 'egress:canary-proxy-password'
const authorization = `Basic ${Buffer.from(credentials).toString('base64')}`

/** A real CONNECT proxy that wants credentials. */
async function startProxy(t: Test, response?: string, tls?: { key: string; cert: string }) {
  const asked: (string | undefined)[] = []
  const proxy = tls ? createTlsServer(tls) : createServer()
  const sockets = new Set<Socket>()
  proxy.on('connect', ({ url, headers }, client: Socket) => {
    sockets.add(client.on('error', () => {}))
    asked.push(url)
    const refusal =
      headers['proxy-authorization'] === authorization ? response : (response ?? 'HTTP/1.1 407 No\r\n\r\n')
    if (refusal !== undefined) {
      client.end(refusal)
      return
    }
    const { hostname, port } = new URL(`http://${url}`)
    const server = connect(Number(port), hostname, () => {
      client.write('HTTP/1.1 200 Connection Established\r\n\r\n')
      server.pipe(client).pipe(server)
    })
    sockets.add(server.on('error', () => client.destroy()))
  })
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
  })
  return { port: await listen(t, proxy, 'localhost'), asked }
}

async function start(
  t: Test,
  IDENFY_BASE_URL: string,
  IDENFY_PROXY_URL: string,
  env: Record<string, string> = {},
) {
  const service = await build(t, {
    // Tests count tunnels.
    env: { IDENFY_BASE_URL, IDENFY_PROXY_URL, IDENFY_STANDBY_MAX_AGE_MS: '0', ...env },
  })
  service.secrets.add(goodToken.tokenString)
  service.secrets.add(authorization)
  service.secrets.add('canary-proxy-password')
  return service
}

t.test('calls to iDenfy go through the proxy, with TLS from end to end', async (t) => {
  const tls = await certificate('localhost')
  const idenfy = await startFaultServer(t, created, { tls, host: 'localhost' })
  const { port, asked } = await startProxy(t)
  const env = { IDENFY_CA_FILE: `${t.testdir({ 'ca.pem': tls.cert })}/ca.pem` }
  const service = await start(t, idenfy.url, `http://${credentials}@localhost:${port}`, env)
  t.equal((await service.mint()).status, 201)
  t.equal((await service.mint()).status, 201)
  t.strictSame(asked, [new URL(idenfy.url).host], 'one tunnel, kept alive')
  t.notMatch(idenfy.arrivals[0]?.head, /proxy-authorization/i)

  await t.test('whose other end must be iDenfy', async (t) => {
    const service = await start(t, idenfy.url, `http://${credentials}@localhost:${port}`)
    matchProblem(t, await service.mint(), 'provider-rejected', { outcome: 'not-created' })
    t.match(service.log('provider-rejected'), [{ class: 'tls', phase: 'before-sending' }])
  })
})

t.test('a simulator without TLS is reached through it as well', async (t) => {
  const idenfy = await startFaultServer(t, created)
  const { port, asked } = await startProxy(t)
  const service = await start(t, idenfy.url, `http://${credentials}@localhost:${port}`)
  t.equal((await service.mint()).status, 201)
  t.equal(asked.length, 1)
})

t.test('the proxy may be reached over TLS', async (t) => {
  const tls = await certificate('localhost')
  const idenfy = await startFaultServer(t, created, { tls, host: 'localhost' })
  const { port, asked } = await startProxy(t, undefined, tls)
  const url = `https://${credentials}@localhost:${port}`
  const env = { IDENFY_CA_FILE: `${t.testdir({ 'ca.pem': tls.cert })}/ca.pem` }
  t.equal((await (await start(t, idenfy.url, url, env)).mint()).status, 201)
  t.equal(asked.length, 1)

  await t.test('and must then be the proxy', async (t) => {
    const service = await start(t, idenfy.url, url)
    matchProblem(t, await service.mint(), 'provider-rejected', { outcome: 'not-created' })
    t.equal(asked.length, 1)
  })
})

t.test('the proxy is told the host and port of iDenfy', async (t) => {
  const { port, asked } = await startProxy(t, 'HTTP/1.1 403 Forbidden\r\n\r\n')
  for (const [origin, authority] of [
    ['https://idenfy.example', 'idenfy.example:443'],
    ['http://127.0.0.1', '127.0.0.1:80'],
    ['https://[::1]:8443', '[::1]:8443'],
  ] as const) {
    const service = await start(t, origin, `http://${credentials}@localhost:${port}`)
    matchProblem(t, await service.mint(), 'provider-unavailable', { outcome: 'not-created' })
    t.equal(asked.at(-1), authority)
    t.match(service.log('provider-unavailable'), [{ err: { cause: { code: 'PROXY_403' } } }])
  }
})

t.test('a proxy in trouble is iDenfy out of reach: nothing was sent', async (t) => {
  const idenfy = await startFaultServer(t, created)
  const { port } = await startProxy(t)
  const refusing = await startProxy(t, 'HTTP/1.1 403 Forbidden\r\n\r\n')
  const failing = await startProxy(t, 'HTTP/1.1 502 Bad Gateway\r\n\r\n')
  const closing = await startProxy(t, '')
  const rows: [string, string][] = [
    ['down', 'http://127.0.0.1:1'],
    ['down, at the default port', 'http://127.0.0.1'],
    ['down, at the default port of TLS', 'https://[::1]'],
    ['wants other credentials', `http://egress:wrong@localhost:${port}`],
    ['refuses', `http://localhost:${refusing.port}`],
    ['cannot reach it', `http://localhost:${failing.port}`],
    ['closes', `http://localhost:${closing.port}`],
  ]
  for (const [name, url] of rows) {
    await t.test(name, async (t) => {
      const service = await start(t, idenfy.url, url)
      matchProblem(t, await service.mint(), 'provider-unavailable', { outcome: 'not-created' })
      t.match(service.log('provider-unavailable'), [{ phase: 'before-sending' }])
      t.match(await service.metrics(), 'idenfy_retries_total{reason="not-sent",granted="true"} 1\n')
    })
  }

  await t.test('says nothing', async (t) => {
    const silent = createServer().on('connect', (_request, socket: Socket) => {
      t.teardown(() => socket.destroy())
    })
    const url = `http://127.0.0.1:${await listen(t, silent)}`
    const service = await start(t, idenfy.url, url, { IDENFY_TIMEOUT_MS: '200' })
    matchProblem(t, await service.mint(), 'provider-unavailable', { outcome: 'not-created' })
  })
  t.equal(closing.asked.length, 2, 'once more, and not for ever')
  t.equal(idenfy.arrivals.length, 0)
})

t.test('a proxy that is at fault is named, and not iDenfy', async (t) => {
  const silent = createServer().on('connect', (_request, socket: Socket) => {
    t.teardown(() => socket.destroy())
  })
  const refusing = await startProxy(t, 'HTTP/1.1 403 No\r\n\r\n')
  const open = await startProxy(t)
  const rows: [proxy: string, expected: 'egress-proxy' | 'connection'][] = [
    ['http://127.0.0.1:1', 'egress-proxy'],
    ['http://proxy.invalid:3128', 'egress-proxy'],
    [`http://127.0.0.1:${await listen(t, silent)}`, 'egress-proxy'],
    [`http://localhost:${refusing.port}`, 'egress-proxy'],
    // The tunnel stands, and iDenfy closes it.
    [`http://${credentials}@localhost:${open.port}`, 'connection'],
  ]
  const closing = createTcpServer((socket) => socket.destroy())
  const idenfy = `https://localhost:${await listen(t, closing, 'localhost')}`
  for (const [proxy, expected] of rows) {
    const limits = { IDENFY_TIMEOUT_MS: '1000', IDENFY_CONNECT_TIMEOUT_MS: '200' }
    const service = await start(t, idenfy, proxy, limits)
    matchProblem(t, await service.mint(), 'provider-unavailable', { outcome: 'not-created' })
    t.match(service.log('provider-unavailable'), [{ class: expected }], proxy)
    t.match(await service.metrics(), new RegExp(`^idenfy_failures_total\\{class="${expected}"\\} [1-9]`, 'm'))
  }
})
