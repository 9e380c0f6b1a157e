import { createHook } from 'node:async_hooks'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import t, { type Test } from 'tap'
import {
  build,
  type HttpResponse,
  inTime,
  matchProblem,
  type Overrides,
  openSocket,
  parseResponses,
  send,
  until,
} from '../helper.js'
import { needsRedis, startRedis } from '../redis-server.js'

const path = '/onboarding/kyb-token'

async function start(t: Test, overrides: Overrides = {}) {
  const service = await build(t, overrides)
  const token = await service.token()
  await service.mint({ token })
  const before = service.log().filter(({ msg }) => msg === 'request').length

  /** The access lines since the start, each with its outcome. */
  const outcomes = () =>
    service
      .log()
      .filter(({ msg }) => msg === 'request')
      .slice(before)
      .map(({ outcome }) => outcome)

  return {
    ...service,
    token,
    outcomes,
    head: (...fields: string[]) =>
      [`POST ${path} HTTP/1.1`, 'Host: a', `Authorization: Bearer ${token}`, ...fields, '', ''].join('\r\n'),
    /** That the metrics have counted what the log has, once each. */
    matchCounts: async (t: Test) => {
      const counted = [
        ...(await service.metrics()).matchAll(/^http_requests_total\{outcome="([^"]+)"\} ([1-9]\d*)$/gm),
      ].map(([, outcome, count]) => [outcome, Number(count)])
      const logged = new Map<unknown, number>([['success', before]])
      for (const outcome of outcomes()) logged.set(outcome, (logged.get(outcome) ?? 0) + 1)
      t.strictSame(counted.sort(), [...logged].sort(), 'one count for each line')
      t.notOk(logged.has('internal-error'))
    },
  }
}
type Service = Awaited<ReturnType<typeof start>>

/**
 * Sends bytes, and resets the connection when the process enters its `step`-th asynchronous callback after the request
 * has begun, as Node does when a reset arrives.
 *
 * @returns whether there were so many
 */
async function resetAtStep(service: Service, bytes: string, step: number): Promise<boolean> {
  const { socket, received } = openSocket(service.url)
  const connected = once(service.app.server, 'connection')
  const [peer] = (await inTime(connected, 'the server to accept the connection')) as [Socket]
  const reset = Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET', syscall: 'read' })
  let steps = 0
  const hook = createHook({
    init() {},
    before() {
      steps += 1
      if (steps !== step) return
      hook.disable()
      peer.destroy(reset)
    },
  })
  service.app.server.once('request', () => hook.enable())
  const ended = new Promise((resolve) => {
    socket.once('data', resolve)
    peer.once('close', resolve)
  })
  socket.write(bytes)
  await inTime(ended, `the end of the request that is reset at step ${step}`)
  hook.disable()
  socket.destroy()
  await received()
  return steps >= step
}

const requests: [name: string, of: (service: Service) => string][] = [
  ['without a body', ({ head }) => head()],
  [
    'with a body',
    ({ head }) => `${head('Content-Type: application/json', 'Content-Length: 15')}{"locale":"lt"}`,
  ],
  ['with a key', ({ head }) => head(`Idempotency-Key: ${Math.random()}`)],
  ['without credentials', () => `POST ${path} HTTP/1.1\r\nHost: a\r\n\r\n`],
  ['with a forged token', ({ head, token }) => head().replace(token, `${token.slice(0, -9)}AAAAAAAAA`)],
  [
    'that is refused',
    ({ head }) => `${head('Content-Type: application/json', 'Content-Length: 11')}{"flow":""}`,
  ],
]

async function resetAtEveryStep(t: Test, env: Record<string, string>): Promise<void> {
  const service = await start(t, { env })
  for (const [name, of] of requests) {
    await t.test(`a request ${name}`, async (t) => {
      const logged = service.outcomes().length
      let step = 1
      while (await resetAtStep(service, of(service), step)) {
        t.equal((await send(`${service.url}/next`)).status, 404, `step ${step}: the next request is served`)
        step += 1
      }
      t.ok(step > 10, `${step} steps`)
      t.equal(service.outcomes().length - logged, 2 * step - 1, 'one line for each request')
      await service.matchCounts(t)
    })
  }
  await service.app.close()
  t.match(await service.metrics(), /^idenfy_in_flight 0$/m)
}

t.test('a client that resets the connection at any await is logged and counted once', async (t) => {
  await resetAtEveryStep(t, {})
})

t.test('with Redis, too', needsRedis, async (t) => {
  await resetAtEveryStep(t, (await startRedis(t)).env)
})

/** Sends bytes, closes the sending side if asked to, and returns the responses once the server has closed. */
async function exchange(service: Service, bytes: string, isCut = false): Promise<HttpResponse[]> {
  const { socket, received } = openSocket(service.url)
  socket.write(bytes)
  if (isCut) socket.end()
  return parseResponses(await received())
}

const json = 'Content-Type: application/json'
const closing = 'Connection: close'

t.test('pipelined requests of a client that resets the connection each have a line', async (t) => {
  const service = await start(t)
  await service.setFault({ delayMs: 500 })
  const { socket, closed } = openSocket(service.url)
  socket.write(service.head() + service.head(`Idempotency-Key: 1`) + service.head('X-Company-Id: other'))
  await until(async () => (await service.arrived()).length === 2, 'two POSTs to reach iDenfy')
  socket.resetAndDestroy()
  await closed()
  await until(() => service.outcomes().length === 3, 'three access lines')
  t.strictSame(service.outcomes(), ['client-closed', 'client-closed', 'client-closed'])
  await service.matchCounts(t)
})

t.test('bytes after a request get no response and no log line', async (t) => {
  const service = await start(t)
  const rows: [name: string, bytes: string, statuses: number[]][] = [
    ['garbage', 'garbage\r\n\r\n', []],
    ['garbage at length', 'x'.repeat(100_000), []],
    ['half a request', 'POST / HTTP/1.1\r\nHost: a', [201]],
  ]
  for (const [name, bytes, statuses] of rows) {
    const lines = service.outcomes().length
    const responses = await exchange(service, service.head() + bytes, true)
    t.equal(service.outcomes().length - lines, 1, name)
    t.strictSame(
      responses.map(({ status }) => status),
      statuses,
      name,
    )
  }
  t.strictSame(
    (await exchange(service, `${service.head()}garbage\r\n\r\n`)).map(({ status, headers }) => [
      status,
      headers.connection,
    ]),
    [[201, 'close']],
    'a client that still reads gets its response',
  )
  const pipelined = service.head() + service.head('X-Company-Id: other') + service.head()
  t.strictSame(
    (await exchange(service, `${pipelined}garbage\r\n\r\n`)).map(({ status }) => status),
    [201, 403, 201],
    'one to each request',
  )
  await service.matchCounts(t)
})

t.test('a body that does not arrive ends in one line', async (t) => {
  const limits = { requestTimeoutMs: 300, timeoutCheckMs: 20 }
  const service = await start(t, { limits })
  const forged = `Authorization: Bearer ${service.token.slice(0, -9)}AAAAAAAAA`
  const anonymous = `POST ${path} HTTP/1.1\r\nHost: a\r\n${forged}\r\nContent-Length: 9\r\n${json}\r\n\r\n{`
  const good = `${service.head(json, 'Content-Length: 9')}{`
  const chunked = service.head(json, 'Transfer-Encoding: chunked')
  const rows: [name: string, bytes: string, isCut: boolean, statuses: number[], outcome: string][] = [
    ['cut by FIN', good, true, [], 'client-closed'],
    ['never there', good, false, [408], 'request-timeout'],
    ['never there, with a forged token', anonymous, false, [401], 'invalid-token'],
    ['a broken chunk', `${chunked}x`, false, [400], 'malformed-request'],
    ['broken within a chunk', `${chunked}1\r\n{x`, false, [400], 'malformed-request'],
    ['trailers at length', `${chunked}0\r\nx: ${'x'.repeat(20_000)}\r\n`, false, [431], 'header-too-large'],
  ]
  for (const [name, bytes, isCut, statuses, outcome] of rows) {
    const lines = service.outcomes().length
    const responses = await exchange(service, bytes, isCut)
    t.strictSame(
      responses.map(({ status }) => status),
      statuses,
      name,
    )
    t.strictSame(service.outcomes().slice(lines), [outcome], name)
  }
  await exchange(service, anonymous, true)
  await service.matchCounts(t)
  t.equal(service.outcomes().length, rows.length + 1, 'a forged token with a body cut by FIN')
})

t.test('failed authentications of clients that do not wait are counted against their address', async (t) => {
  const service = await start(t, { env: { RATE_LIMIT_IP_PER_MINUTE: '30' } })
  for (let index = 0; index < 30; index++) {
    const { socket, closed } = openSocket(service.url)
    const begun = once(service.app.server, 'request')
    socket.write(`POST ${path} HTTP/1.1\r\nHost: a\r\n\r\n`)
    await inTime(begun, 'the request to arrive')
    socket.resetAndDestroy()
    await closed()
  }
  matchProblem(t, await service.mint({ token: 'x' }), 'rate-limited')
  await until(() => service.outcomes().length === 31, '31 access lines')
  await service.matchCounts(t)
})

t.test('other methods and paths get a problem and one line each', async (t) => {
  const service = await start(t, { env: { CORS_ORIGINS: 'https://app.acme.example' } })
  const rows: [line: string, status: number, allow?: string][] = [
    [`OPTIONS ${path}`, 405, 'POST'],
    [`OPTIONS ${path}?x`, 405, 'POST'],
    ['OPTIONS /none', 404],
    ['OPTIONS *', 404],
    [`HEAD ${path}`, 405, 'POST'],
    ['HEAD /none', 404],
    [`TRACE ${path}`, 405, 'POST'],
    [`PROPFIND ${path}`, 405, 'POST'],
    ['GET /%', 400],
    ['OPTIONS /%', 400],
    [`GET /${'x'.repeat(5000)}`, 404],
  ]
  for (const [line, status, allow] of rows) {
    const lines = service.outcomes().length
    const origin = 'Origin: https://app.acme.example'
    const raw = `${line} HTTP/1.1\r\nHost: a\r\n${closing}\r\n${origin}\r\n\r\n`
    const { socket, received } = openSocket(service.url)
    socket.write(raw)
    const [head = '', body = ''] = (await received()).split('\r\n\r\n')
    t.match(head, new RegExp(`^HTTP/1.1 ${status} `), line)
    t.match(head, /content-type: application\/problem\+json/i, line)
    t.match(head, /x-request-id: [0-9a-f-]{36}/i, line)
    t.match(head, /access-control-allow-origin: https:\/\/app.acme.example/i, line)
    t.match(head, /x-content-type-options: nosniff/i, line)
    if (allow) t.match(head, new RegExp(`allow: ${allow}`), line)
    if (line.startsWith('HEAD')) t.equal(body, '', line)
    else t.equal(JSON.parse(body).status, status, line)
    await until(() => service.outcomes().length > lines, `the access line of ${line.slice(0, 50)}`)
    t.equal(service.outcomes().length, lines + 1, line)
  }
  await service.matchCounts(t)
})
