import { connect, createServer, type Server, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { certificate, created, goodToken, httpResponse, startFaultServer } from '../fault-server.js'
import { build, createClock, type HttpResponse, listen, type Overrides, until } from '../helper.js'
import { connectRedis, needsRedis, startRedis } from '../redis-server.js'

const deadlineMs = 1_000
const toleranceMs = 250

/** How late the timers of this process have been so far, in total: on a busy machine that is not the service's doing. */
let latenessMs = 0
const tickMs = 10
let lastTickAt = performance.now()
const ticking = setInterval(() => {
  latenessMs += Math.max(performance.now() - lastTickAt - tickMs, 0)
  lastTickAt = performance.now()
}, tickMs)
t.teardown(() => clearInterval(ticking))

/** Posts, and checks that the response comes in time, whatever it is. */
async function withinDeadline(t: Test, post: () => Promise<HttpResponse>): Promise<HttpResponse> {
  const begin = performance.now()
  const lateBefore = latenessMs
  const response = await post()
  const elapsedMs = Math.round(performance.now() - begin - (latenessMs - lateBefore))
  t.ok(
    elapsedMs < deadlineMs + toleranceMs,
    `${response.status} ${response.json.code ?? ''} after ${elapsedMs} ms`,
  )
  return response
}

async function start(t: Test, env: Record<string, string | undefined>, overrides: Overrides = {}) {
  const service = await build(t, { ...overrides, env: { IDENFY_TIMEOUT_MS: String(deadlineMs), ...env } })
  service.secrets.add(goodToken.tokenString)
  return service
}

/** A server whose connections are destroyed when the test ends. */
async function listenFor(t: Test, serve: (socket: Socket) => void, host = '127.0.0.1') {
  const sockets = new Set<Socket>()
  const server: Server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}).on('close', () => sockets.delete(socket)))
    serve(socket)
  })
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
  })
  return { sockets, port: await listen(t, server, host) }
}

const silent = (socket: Socket) => void socket.resume()

t.test('the deadline holds for all that iDenfy does', async (t) => {
  for (const retryAfter of ['0', '1', '2', '7', '86400', '-1', 'soon', 'Wed, 25 Nov 2026 12:00:00 GMT']) {
    for (const delayMs of [0, 600, 900]) {
      await t.test(`429 after ${delayMs} ms with Retry-After: ${retryAfter}, then a token`, async (t) => {
        const limited = httpResponse('429 Slow', '', { 'Retry-After': retryAfter })
        const idenfy = await startFaultServer(t, (socket, { index }) => {
          if (index === 0) setTimeout(() => socket.write(limited), delayMs)
          else setTimeout(() => socket.write(created), 300)
        })
        const service = await start(t, { IDENFY_BASE_URL: idenfy.url })
        const response = await withinDeadline(t, () => service.mint())
        t.match(response.json, { code: 'provider-rate-limited', outcome: 'not-created' })
        t.equal(idenfy.arrivals.length, 1, 'a retry that cannot finish is not started')
      })
    }
  }

  await t.test('a retry that can finish is made', async (t) => {
    const limited = httpResponse('429 Slow', '', { 'Retry-After': '1' })
    const idenfy = await startFaultServer(t, (socket, { index }) =>
      socket.write(index === 0 ? limited : created),
    )
    const service = await start(t, { IDENFY_BASE_URL: idenfy.url, IDENFY_TIMEOUT_MS: '4000' })
    t.equal((await service.mint()).status, 201)
    t.equal(idenfy.arrivals.length, 2)
  })

  await t.test('but not after a first attempt that took most of the time', async (t) => {
    const idenfy = await startFaultServer(t, (socket, { index }) => {
      if (index === 0)
        setTimeout(() => socket.write(httpResponse('429 Slow', '', { 'Retry-After': '1' })), 2_000)
      else socket.write(created)
    })
    const service = await start(t, { IDENFY_BASE_URL: idenfy.url, IDENFY_TIMEOUT_MS: '4000' })
    t.match((await service.mint()).json, { code: 'provider-rate-limited' })
    t.equal(idenfy.arrivals.length, 1)
  })

  await t.test('responses that come just after the deadline are late, and nothing else', async (t) => {
    const idenfy = await startFaultServer(t, (socket) => setTimeout(() => socket.write(created), 305))
    const service = await start(t, {
      IDENFY_BASE_URL: idenfy.url,
      IDENFY_TIMEOUT_MS: '300',
      IDENFY_MAX_IN_FLIGHT: '300',
    })
    const tokens = await Promise.all(
      Array.from({ length: 100 }, (_, index) => service.token({ sub: `u-${index}` })),
    )
    const responses = await Promise.all(tokens.map((token) => service.mint({ token })))
    // On a busy machine a timer is late: the response wins, or no time is left for the POST. Never is a late response
    // a failed connection.
    const codes = responses.map(({ json }) => json.code ?? 'success')
    const expected = ['provider-timeout', 'success', 'provider-unavailable', 'overloaded']
    t.strictSame(
      codes.filter((code) => !expected.includes(code)),
      [],
    )
    const sent = codes.filter((code) => code === 'provider-timeout' || code === 'success').length
    t.equal(idenfy.arrivals.length, sent, 'each of these was sent once, and nothing else')
  })
})

t.test('the deadline holds for every step of connecting', async (t) => {
  const tls = await certificate('localhost')
  const ca = `${t.testdir({ 'ca.pem': tls.cert })}/ca.pem`
  const slow = await listenFor(t, silent)
  const tunnelTo = (serve: (socket: Socket) => void) => (socket: Socket) =>
    void socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      serve(socket)
    })
  const proxies: Record<string, number> = {
    'CONNECT without a response': slow.port,
    'TLS through the tunnel without a response': (await listenFor(t, tunnelTo(silent))).port,
    'a response to CONNECT that drips': (
      await listenFor(t, (socket) => {
        const timer = setInterval(() => socket.write('H'), 50)
        socket.on('close', () => clearInterval(timer)).resume()
      })
    ).port,
  }
  const ways: Record<string, Record<string, string>> = {
    'TLS without a response': { IDENFY_BASE_URL: `https://127.0.0.1:${slow.port}` },
    'TLS to the proxy without a response': {
      IDENFY_BASE_URL: 'https://localhost:1',
      IDENFY_PROXY_URL: `https://127.0.0.1:${slow.port}`,
    },
    ...Object.fromEntries(
      Object.entries(proxies).map(([name, port]) => [
        name,
        {
          IDENFY_BASE_URL: 'https://localhost:1',
          IDENFY_PROXY_URL: `http://127.0.0.1:${port}`,
          IDENFY_CA_FILE: ca,
        },
      ]),
    ),
  }
  for (const [name, env] of Object.entries(ways)) {
    for (const connectMs of ['100', String(deadlineMs)]) {
      await t.test(`${name}, a connect timeout of ${connectMs} ms`, async (t) => {
        const service = await start(t, { ...env, IDENFY_CONNECT_TIMEOUT_MS: connectMs })
        const response = await withinDeadline(t, () => service.mint())
        t.match(response.json, { code: 'provider-unavailable', outcome: 'not-created', retryable: true })
        t.match(await service.metrics(), 'idenfy_in_flight 0\n')
      })
    }
  }
})

t.test('an egress proxy that stalls for a while leaves nothing behind', async (t) => {
  const idenfy = await startFaultServer(t, created)
  let isStalling = true
  const proxy = await listenFor(t, (socket) => {
    socket.once('data', () => {
      if (isStalling) return
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      const upstream = connect(Number(new URL(idenfy.url).port), '127.0.0.1').on('error', () => {})
      t.teardown(() => upstream.destroy())
      socket.pipe(upstream).pipe(socket)
    })
  })
  const { clocks, pass } = createClock()
  const service = await start(
    t,
    {
      IDENFY_BASE_URL: idenfy.url,
      IDENFY_PROXY_URL: `http://127.0.0.1:${proxy.port}`,
      IDENFY_CONNECT_TIMEOUT_MS: '1000',
    },
    { monotonicNow: clocks.monotonicNow },
  )
  const users = await Promise.all(
    Array.from({ length: 60 }, (_, index) => service.token({ sub: `u-${index}` })),
  )
  const responses = await Promise.all(users.map((token) => withinDeadline(t, () => service.mint({ token }))))
  for (const { status, json } of responses) t.match([status, json.retryable], [503, true])

  await until(() => proxy.sockets.size === 0, 'the connections to the stalled proxy to close')
  const metrics = await service.metrics()
  t.match(metrics, 'idenfy_in_flight 0\n', 'no slot')
  t.match(metrics, 'idenfy_waiting 0\n')

  for (let probe = 0; probe < 3; probe += 1) {
    pass(5)
    await service.mint({ token: users[probe] })
  }
  await until(() => proxy.sockets.size === 0, 'the connections to the stalled proxy to close')
  isStalling = false
  pass(5)
  t.equal((await service.mint()).status, 201, 'and it recovers by itself')
  const later = await Promise.all(users.map((token) => service.mint({ token })))
  t.strictSame(new Set(later.map(({ status, json }) => json.code ?? status)), new Set([201]))
  const begin = performance.now()
  await service.app.close()
  t.ok(performance.now() - begin < 1_000)
})

t.test('the deadline holds in the queue', async (t) => {
  const pending: Socket[] = []
  const idenfy = await startFaultServer(t, (socket) => pending.push(socket))
  const service = await start(t, { IDENFY_BASE_URL: idenfy.url, IDENFY_MAX_IN_FLIGHT: '2' })
  const tokens = await Promise.all(['1', '2', '3', '4', '5', '6'].map((sub) => service.token({ sub })))
  const responses = await Promise.all(tokens.map((token) => withinDeadline(t, () => service.mint({ token }))))
  t.strictSame(responses.map(({ json }) => json.code).sort(), [
    ...Array(4).fill('overloaded'),
    'provider-timeout',
    'provider-timeout',
  ])
  t.equal(idenfy.arrivals.length, 2)

  await t.test('a first POST that could not finish after it is not sent', async (t) => {
    const idenfy = await startFaultServer(t, (socket, { index }) => {
      if (index > 0) socket.write(created)
    })
    const service = await start(t, {
      IDENFY_BASE_URL: idenfy.url,
      IDENFY_MAX_IN_FLIGHT: '1',
      IDENFY_TIMEOUT_MS: '400',
    })
    const first = service.mint()
    await until(() => idenfy.arrivals.length === 1, 'the POST to reach iDenfy')
    t.match((await service.mint({ token: await service.token({ sub: 'u-2' }) })).json, { code: 'overloaded' })
    t.match((await first).json, { code: 'provider-timeout' })
    t.equal(idenfy.arrivals.length, 1)
  })
})

t.test('however slow the identity provider is', async (t) => {
  const silentProvider = await listenFor(t, silent)
  const idenfy = await startFaultServer(t, created)
  const service = await start(t, {
    AUTH_JWKS_URL: `http://127.0.0.1:${silentProvider.port}/jwks`,
    IDENFY_BASE_URL: idenfy.url,
  })
  for (let request = 0; request < 3; request += 1) {
    t.match((await withinDeadline(t, () => service.mint())).json, { code: 'auth-keys-unavailable' })
  }
  t.equal(idenfy.arrivals.length, 0)
})

t.test('the deadline holds for all that another replica does', needsRedis, async (t) => {
  const idenfy = await startFaultServer(t, () => {})
  const redis = await startRedis(t)
  const env = { IDENFY_BASE_URL: idenfy.url, ...redis.env }
  const first = await start(t, env)
  const second = await start(t, env, { peers: first })
  const client = connectRedis(t, redis.env.REDIS_URL)
  const leases = async () => {
    const keys = (await client.keys('onboarding-bff:*')).filter((key) => !/:rate:|:probe$/.test(key))
    return Promise.all(keys.map(async (key) => [key, String(await client.get(key))] as const))
  }

  await t.test('it is at work', async (t) => {
    const responses = await Promise.all(
      [first, second].map((replica) => withinDeadline(t, () => replica.mint())),
    )
    for (const { json } of responses) t.equal(json.code, 'provider-timeout')
    t.equal(idenfy.arrivals.length, 1)
  })

  await t.test('it is gone, and its lease lasts', async (t) => {
    const token = await first.token({ sub: 'u-2' })
    const own = first.mint({ token })
    await until(() => idenfy.arrivals.length === 2, 'the second POST to reach iDenfy')
    const [key = '', lease = ''] = (await leases()).find(([, value]) => value.startsWith('L')) ?? []
    await own
    await client.set(key, lease, 'PX', 60_000)
    const third = await start(t, env, { peers: first })
    const response = await withinDeadline(t, () => third.mint({ token }))
    t.match(response.json, { code: 'provider-timeout', outcome: 'unknown' })
    t.equal(idenfy.arrivals.length, 2)
  })
})

t.test('however slow Redis is', needsRedis, async (t) => {
  for (const delayMs of [30, 70, 90, 500]) {
    await t.test(`${delayMs} ms for each response`, async (t) => {
      const redis = await startRedis(t)
      const target = Number(new URL(redis.env.REDIS_URL).port)
      let isSlow = false
      const relay = await listenFor(t, (socket) => {
        const upstream = connect(target, '127.0.0.1').on('error', () => {})
        t.teardown(() => upstream.destroy())
        socket.pipe(upstream)
        upstream.on('data', (bytes) =>
          isSlow ? setTimeout(() => socket.write(bytes), delayMs) : socket.write(bytes),
        )
      })
      for (const [name, script] of [
        ['no response', () => {}],
        ['a token', created],
      ] as const) {
        isSlow = false
        const idenfy = await startFaultServer(t, script)
        const env = {
          ...redis.env,
          IDENFY_BASE_URL: idenfy.url,
          REDIS_URL: `redis://127.0.0.1:${relay.port}`,
        }
        const service = await start(t, env)
        await until(async () => /^redis_up 1$/m.test(await service.metrics()), 'the service to use Redis')
        isSlow = true
        const responses: HttpResponse[] = []
        for (const headers of [{}, { 'idempotency-key': 'k' }] as Record<string, string>[]) {
          responses.push(await withinDeadline(t, () => service.mint({ headers })))
        }
        // Whether a command of Redis is late is a matter of milliseconds. A 503 always means that nothing was sent.
        const mayBeSent = responses.filter(({ status }) => status !== 503)
        t.ok(idenfy.arrivals.length <= mayBeSent.length, name)
        for (const { status } of mayBeSent) t.equal(status, name === 'a token' ? 201 : 504, name)
      }
    })
  }
})
