import { createServer, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import t, { type Test } from 'tap'
import { type Clock, systemClock } from '../../src/clock.js'
import { certificate, created, goodToken, httpResponse, startFaultServer } from '../fault-server.js'
import { build, listen, type Overrides, send, until } from '../helper.js'

/** A service beside an iDenfy of bytes. */
async function start(t: Test, url: string, overrides: Overrides = {}) {
  const service = await build(t, { ...overrides, env: { IDENFY_BASE_URL: url, ...overrides.env } })
  service.secrets.add(goodToken.tokenString)
  const metric = async (name: string): Promise<number> =>
    Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(await service.metrics())?.[1])
  return {
    ...service,
    metric,
    isReady: async () => (await metric('idenfy_standby_ready')) === 1,
    readyz: () => send(`${service.managementUrl}/readyz`),
  }
}

/** The system's timers, without those that the test does not want to fire. */
const without =
  (isOmitted: (delayMs: number) => boolean): Clock['setTimeout'] =>
  (callback, delayMs) =>
    systemClock.setTimeout(isOmitted(delayMs) ? () => {} : callback, delayMs)

const startedAtMs = Date.now()
/** Connections do not get older, however slow the machine is. */
const still = {
  now: () => startedAtMs,
  monotonicNow: () => 1,
  setTimeout: without((delayMs) => delayMs > 200 && delayMs <= 800),
}

/** Time passes 300 times as fast. */
const fast = {
  now: () => startedAtMs + (Date.now() - startedAtMs) * 300,
  monotonicNow: () => performance.now() * 300,
  setTimeout: ((callback, delayMs) => systemClock.setTimeout(callback, delayMs / 300)) as Clock['setTimeout'],
}

const preflight = (url: string, origin: string) =>
  send(`${url}/onboarding/kyb-token`, {
    method: 'OPTIONS',
    headers: { origin, 'access-control-request-method': 'POST' },
  })

t.test('a connection stands by before the first request, which gets it', async (t) => {
  const idenfy = await startFaultServer(t, created)
  const { mint, metric, isReady } = await start(t, idenfy.url, still)
  await until(isReady, 'a connection to stand by')
  t.equal(idenfy.connections, 1)
  t.equal(await metric('idenfy_standby_taken_total'), 0)
  t.equal((await mint()).status, 201)
  t.equal(await metric('idenfy_standby_taken_total'), 1)
  t.equal(await metric('idenfy_standby_missed_total'), 0)
  await until(isReady, 'another one')
  t.equal(idenfy.connections, 2)
  t.equal(await metric('idenfy_in_flight'), 0)
})

t.test('without it, requests open their connections', async (t) => {
  const idenfy = await startFaultServer(t, created)
  const { mint, metric, readyz } = await start(t, idenfy.url, { env: { IDENFY_STANDBY_MAX_AGE_MS: '0' } })
  t.equal((await readyz()).status, 200)
  t.equal(idenfy.connections, 0)
  t.equal((await mint()).status, 201)
  t.equal(idenfy.connections, 1)
  t.equal(await metric('idenfy_standby_ready'), 0)
  t.equal(await metric('idenfy_standby_taken_total'), 0)
  t.equal(await metric('idenfy_standby_missed_total'), 1)
})

t.test('an instance is ready when its first connection is', async (t) => {
  const tls = await certificate('localhost')
  const idenfy = createTlsServer(tls)
  const waiting: Socket[] = []
  const server = createServer((socket) => waiting.push(socket.on('error', () => {})))
  t.teardown(() => waiting.forEach((socket) => void socket.destroy()))
  const { readyz, isReady, managementUrl } = await start(
    t,
    `https://localhost:${await listen(t, server, 'localhost')}`,
    {
      env: { IDENFY_CA_FILE: `${t.testdir({ 'ca.pem': tls.cert })}/ca.pem` },
      // The time limit of the wait.
      setTimeout: without((delayMs) => delayMs === 500),
    },
  )
  let isAnswered = false
  const response = readyz().finally(() => {
    isAnswered = true
  })
  await until(() => waiting.length === 1, 'the connection')
  t.equal((await send(`${managementUrl}/livez`)).status, 200)
  t.equal(await isReady(), false)
  t.equal(isAnswered, false)
  idenfy.emit('connection', waiting[0])
  t.equal((await response).status, 200)
  t.equal(await isReady(), true)
})

t.test('an instance gets ready although iDenfy is down or does not respond', async (t) => {
  const silent = createServer((socket) => {
    socket.on('error', () => {}).resume()
    t.teardown(() => socket.destroy())
  })
  for (const url of ['http://127.0.0.1:1', `https://127.0.0.1:${await listen(t, silent)}`]) {
    const { readyz, isReady } = await start(t, url)
    t.equal((await readyz()).status, 200, url)
    t.equal(await isReady(), false)
  }
})

t.test('an outage is logged once, and its end', async (t) => {
  const idenfy = await startFaultServer(t, created)
  idenfy.vanish()
  const timers: number[] = []
  const { log, isReady } = await start(t, idenfy.url, {
    ...fast,
    setTimeout: (callback, delayMs) => {
      timers.push(delayMs)
      return fast.setTimeout(callback, delayMs)
    },
  })
  const lines = () => log().filter(({ msg }) => /stands by/.test(String(msg)))
  await until(() => timers.filter((delayMs) => delayMs > 30_000).length > 1, 'some attempts')
  t.match(lines(), [
    { level: 'warn', msg: 'no connection to iDenfy stands by', err: { code: 'ECONNREFUSED' } },
  ])
  t.equal(lines().length, 1)
  idenfy.comeBack()
  await until(() => lines().length === 2, 'the end of the outage')
  t.match(lines()[1], { level: 'info', msg: 'a connection to iDenfy stands by again' })
  await until(isReady, 'a connection to stand by')
})

t.test('a preflight of an allowed origin has a connection opened, if there is none', async (t) => {
  const idenfy = await startFaultServer(t, created)
  idenfy.vanish()
  const { url, isReady, log } = await start(t, idenfy.url, {
    env: { CORS_ORIGINS: 'https://app.example' },
    // No attempt but the first one, and those that a request causes.
    ...still,
    setTimeout: without((delayMs) => delayMs > 200 && delayMs < 2_000),
  })
  await until(() => log().some(({ msg }) => msg === 'no connection to iDenfy stands by'), 'the first attempt')
  idenfy.comeBack()
  t.equal((await preflight(url, 'https://other.example')).status, 403)
  t.equal(idenfy.connections, 0)
  t.equal((await preflight(url, 'https://app.example')).status, 204)
  await until(isReady, 'a connection to stand by')
  for (let count = 0; count < 20; count++) await preflight(url, 'https://app.example')
  t.equal(idenfy.connections, 1)
})

t.test('draining closes it, and requests still work', async (t) => {
  const idenfy = await startFaultServer(t, created)
  const { app, mint, isReady, metric } = await start(t, idenfy.url, still)
  await until(isReady, 'a connection to stand by')
  await app.drain(0)
  t.equal(await isReady(), false)
  t.equal((await mint()).status, 201)
  t.equal(idenfy.connections, 2)
  t.equal(await metric('idenfy_standby_missed_total'), 1)
})

t.test('a dead connection makes later requests use new ones', async (t) => {
  const idenfy = await startFaultServer(t, () => {})
  const { mint, isReady, metric } = await start(t, idenfy.url, { env: { IDENFY_TIMEOUT_MS: '300' } })
  await until(isReady, 'a connection to stand by')
  t.equal((await mint()).status, 504)
  await until(
    async () => (await metric('idenfy_standby_replaced_total{reason="suspect"}')) === 1,
    'a new one',
  )
})

t.test('what iDenfy announces limits how long a connection stands by', async (t) => {
  const response = httpResponse('201 Created', goodToken, { 'keep-alive': 'timeout=1, max=5' })
  const idenfy = await startFaultServer(t, response)
  let elapsedMs = 1
  const { mint, isReady } = await start(t, idenfy.url, { ...still, monotonicNow: () => elapsedMs })
  await until(isReady, 'a connection to stand by')
  t.equal((await mint()).status, 201)
  await until(isReady, 'another one')
  elapsedMs += 801
  t.equal(await isReady(), false)
})
