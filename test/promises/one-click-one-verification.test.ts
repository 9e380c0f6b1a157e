import { connect, createServer, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { faults as idenfyFaults, mayOpen } from '../chaos/idenfy-outages.js'
import { type Arrival, certificate, created, goodToken, startFaultServer } from '../fault-server.js'
import {
  addressesOf,
  build,
  type HttpResponse,
  listen,
  matchProblem,
  openSocket,
  send,
  spawnNode,
  until,
} from '../helper.js'
import { connectRedis, needsRedis, startRedis } from '../redis-server.js'

type Service = Awaited<ReturnType<typeof build>>

const timeoutMs = 400

/** What iDenfy does to the first POST. Those that come later succeed. */
interface Way {
  readonly name: string
  /** Whether that POST may have opened a verification. */
  readonly mayOpen: boolean
  readonly fail: (socket: Socket, arrival: Arrival) => void
}

const ways: Way[] = Object.entries(idenfyFaults).map(([name, fail]) => ({
  name,
  mayOpen: mayOpen(name),
  fail: (socket, arrival) => fail(socket, arrival, `t-${arrival.index}`),
}))
const openingWays = ways.filter((way) => way.mayOpen)

/** An iDenfy that fails once, and counts what it may have opened. */
async function startIdenfy(t: Test, way: Way) {
  const peer = await startFaultServer(t, (socket, arrival) => {
    if (arrival.index === 0) way.fail(socket, arrival)
    else socket.write(created)
  })
  return {
    url: peer.url,
    arrivals: peer.arrivals,
    opened: () => Math.max(peer.arrivals.length - (way.mayOpen ? 0 : 1), 0),
  }
}

const envOf = (idenfyUrl: string) => ({
  IDENFY_BASE_URL: idenfyUrl,
  IDENFY_TIMEOUT_MS: String(timeoutMs),
  KYB_REPLAY_SECONDS: '30',
})

/** What some machine between the user and this service, or the front-end itself, sends again without asking anyone. */
function looksRetryable({ status, headers, json }: HttpResponse): boolean {
  return status === 503 || status === 429 || headers['retry-after'] !== undefined || json.retryable === true
}

async function sendWithRetries(
  post: (attempt: number) => Promise<HttpResponse>,
  retries = 4,
): Promise<HttpResponse> {
  let response = await post(0)
  for (let attempt = 1; attempt <= retries && looksRetryable(response); attempt += 1)
    response = await post(attempt)
  return response
}

t.test('a client or mesh that retries what looks retryable opens no second verification', async (t) => {
  for (const way of ways) {
    await t.test(way.name, async (t) => {
      for (const headers of [{}, { 'idempotency-key': 'k' }] as Record<string, string>[]) {
        const idenfy = await startIdenfy(t, way)
        const service = await build(t, { env: envOf(idenfy.url) })
        service.secrets.add(goodToken.tokenString)
        await sendWithRetries(() => service.mint({ headers }))
        t.not(idenfy.arrivals.length, 0)
        t.ok(idenfy.opened() <= 1, `${idenfy.opened()} opened`)
      }
    })
  }
})

/** A connection that fails before anything can be sent on it; the ones after it are fine. */
const connectionFailures: Record<string, (socket: Socket) => void> = {
  reset: (socket) => socket.resetAndDestroy(),
  closed: (socket) => socket.end(),
  silent: (socket) => socket.resume(),
  garbage: (socket) => socket.write('SSH-2.0-hello\r\n'),
  refused: (socket) => socket.end('HTTP/1.1 403 Forbidden\r\n\r\n'),
  'unable to connect': (socket) => socket.end('HTTP/1.1 502 Bad Gateway\r\n\r\n'),
  'closed after CONNECT': (socket) => socket.end('HTTP/1.1 200 OK\r\n\r\n'),
}

/** To a client that expects TLS these mean that another server responds. That is never retried. */
const notTls = new Set(['garbage', 'refused', 'unable to connect', 'closed after CONNECT'])

t.test('a connection that fails on the way to iDenfy costs no verification and opens one', async (t) => {
  for (const through of ['a balancer', 'an egress proxy']) {
    for (const [name, fail] of Object.entries(connectionFailures)) {
      await t.test(`${name}, through ${through}`, async (t) => {
        const tls = await certificate('localhost')
        const idenfy = await startFaultServer(t, created, { tls, host: 'localhost' })
        const target = Number(new URL(idenfy.url).port)
        let connections = 0
        const relay = createServer((socket) => {
          socket.on('error', () => {})
          t.teardown(() => socket.destroy())
          connections += 1
          if (connections === 1) return void socket.once('data', () => fail(socket))
          const pass = () => {
            const upstream = connect(target, 'localhost').on('error', () => {})
            socket.pipe(upstream).pipe(socket)
          }
          if (through === 'a balancer') return pass()
          socket.once('data', () => {
            socket.write('HTTP/1.1 200 OK\r\n\r\n')
            pass()
          })
        })
        const url = `localhost:${await listen(t, relay, 'localhost')}`
        const service = await build(t, {
          env: {
            ...(through === 'a balancer'
              ? { IDENFY_BASE_URL: `https://${url}` }
              : { IDENFY_BASE_URL: idenfy.url, IDENFY_PROXY_URL: `http://${url}` }),
            IDENFY_CA_FILE: `${t.testdir({ 'ca.pem': tls.cert })}/ca.pem`,
            IDENFY_CONNECT_TIMEOUT_MS: '1000',
            // The first connection is that of the request.
            IDENFY_STANDBY_MAX_AGE_MS: '0',
          },
        })
        service.secrets.add(goodToken.tokenString)
        const response = await sendWithRetries(() => service.mint({ headers: { 'idempotency-key': 'k' } }))
        if (through === 'a balancer' && notTls.has(name)) {
          matchProblem(t, response, 'provider-rejected', { outcome: 'not-created' })
          t.equal(idenfy.arrivals.length, 0)
        } else {
          t.equal(response.status, 201)
          t.equal(idenfy.arrivals.length, 1)
        }
      })
    }
  }
})

t.test(
  'a client that retries whatever the response is, within five seconds, opens no second one either',
  async (t) => {
    for (const way of openingWays) {
      await t.test(way.name, async (t) => {
        const idenfy = await startIdenfy(t, way)
        const service = await build(t, { env: envOf(idenfy.url) })
        service.secrets.add(goodToken.tokenString)
        const statuses = new Set<number>()
        for (let attempt = 0; attempt < 4; attempt += 1) statuses.add((await service.mint()).status)
        t.equal(statuses.size, 1, 'the response stays the same')
        t.equal(idenfy.arrivals.length, 1)
      })
    }
  },
)

/**
 * Of two requests with one key, which arrives first is a race. A request that arrives while the other one is in flight
 * is a conflict. At least one is none, and each that is none has the result that the key keeps.
 */
function matchTogether(t: Test, together: readonly HttpResponse[], later: HttpResponse): void {
  const results = together.filter(({ json }) => json.code !== 'idempotency-conflict')
  t.not(results.length, 0, 'at least one is no conflict')
  for (const { status, json } of results)
    t.strictSame([status, json.code], [later.status, later.json.code], 'the key keeps the result')
}

t.test('two requests with one key make no second POST', async (t) => {
  for (const way of openingWays) {
    await t.test(way.name, async (t) => {
      const idenfy = await startIdenfy(t, way)
      const service = await build(t, { env: envOf(idenfy.url) })
      service.secrets.add(goodToken.tokenString)
      const post = () => service.mint({ headers: { 'idempotency-key': 'k' } })
      const together = await Promise.all([post(), post()])
      const later = await post()
      t.equal(idenfy.arrivals.length, 1)
      t.equal(later.headers['idempotency-replayed'], 'true')
      matchTogether(t, together, later)
    })
  }
})

type Redis = Awaited<ReturnType<typeof startRedis>>

/** Two replicas before one iDenfy. */
async function startTwo(t: Test, way: Way, env: Record<string, string> = {}, shared?: Redis) {
  const idenfy = await startIdenfy(t, way)
  const redis = shared ?? (await startRedis(t))
  const all = { ...envOf(idenfy.url), ...redis.env, ...env }
  const first = await build(t, { env: all })
  const second = await build(t, { env: all, peers: first })
  first.secrets.add(goodToken.tokenString)
  return { idenfy, redis, first, second }
}
const withKey = (service: Service) => service.mint({ headers: { 'idempotency-key': 'k' } })

t.test('nor across two replicas', needsRedis, async (t) => {
  const redis = await startRedis(t)
  const client = connectRedis(t, redis.env.REDIS_URL)
  for (const way of openingWays) {
    await t.test(way.name, async (t) => {
      // The scope of the state is iDenfy's address, and the system may hand out a port again.
      await client.flushall()
      const { idenfy, first, second } = await startTwo(t, way, {}, redis)
      const together = await Promise.all([withKey(first), withKey(second)])
      for (const replica of [first, second]) matchTogether(t, together, await withKey(replica))
      t.equal(idenfy.arrivals.length, 1)
      const withoutKey = await Promise.all([first.mint(), second.mint()])
      t.equal(new Set(withoutKey.map(({ json }) => json.code)).size, 1, 'and so without a key')
      t.equal(idenfy.arrivals.length, 1)
    })
  }
})

t.test('nor when Redis fails in between', needsRedis, async (t) => {
  const [success, unanswered] = [ways[0], ways.find(({ name }) => name === 'U no response')] as [Way, Way]
  for (const way of [success, unanswered]) {
    await t.test(`${way.name}, Redis is gone after the first`, async (t) => {
      const { idenfy, redis, first, second } = await startTwo(t, way)
      await withKey(first)
      await redis.stop()
      const own = await withKey(first)
      t.equal(own.headers['idempotency-replayed'], 'true', 'the replica that sent it knows what became of it')
      const other = await withKey(second)
      t.match(other.json, { code: 'state-unavailable', retryable: true })
      t.equal(other.headers['retry-after'], '1')
      t.equal(idenfy.arrivals.length, 1)
    })

    await t.test(`${way.name}, Redis freezes during the first and comes back`, async (t) => {
      let release = () => {}
      const pending: Way = {
        ...way,
        fail: (socket, arrival) => {
          release = () => way.fail(socket, arrival)
        },
      }
      const { idenfy, redis, first, second } = await startTwo(t, pending, { IDENFY_TIMEOUT_MS: '2000' })
      const own = withKey(first)
      await until(() => idenfy.arrivals.length === 1, 'the POST to reach iDenfy')
      redis.freeze()
      const refused = await withKey(second)
      t.match(refused.json, { code: 'state-unavailable' })
      release()
      await own
      redis.thaw()
      let later = refused
      await until(async () => {
        later = await withKey(second)
        return !['state-unavailable', 'idempotency-conflict'].includes(later.json.code)
      }, 'the second replica to have the result of the first')
      t.equal(later.status, (await own).status, 'the result was written once Redis was back')
      t.equal(idenfy.arrivals.length, 1)
    })
  }

  await t.test('without a key each replica goes on alone, unless REDIS_REQUIRED forbids it', async (t) => {
    for (const required of ['keys', 'true', 'false'] as const) {
      const { idenfy, redis, first, second } = await startTwo(t, success, { REDIS_REQUIRED: required })
      await redis.stop()
      const responses = [await first.mint(), await second.mint(), await withKey(second)]
      t.strictSame(
        responses.map(({ json, status }) => json.code ?? status),
        {
          keys: [201, 201, 'state-unavailable'],
          true: ['state-unavailable', 'state-unavailable', 'state-unavailable'],
          false: [201, 201, 201],
        }[required],
        required,
      )
      t.equal(idenfy.arrivals.length, required === 'true' ? 0 : 2)
    }
  })
})

/** A replica as a process of its own, which can be killed and stopped, beside one in this process. */
async function startProcess(t: Test, timeout: number) {
  const pending: Socket[] = []
  const idenfy = await startFaultServer(t, (socket) => pending.push(socket))
  const redis = await startRedis(t)
  const env = { ...envOf(idenfy.url), ...redis.env, IDENFY_TIMEOUT_MS: String(timeout) }
  const second = await build(t, { env })
  second.secrets.add(goodToken.tokenString)
  const process = spawnNode(
    t,
    ['bundle/server.js'],
    { ...second.environment, ...env, PORT: '0', MANAGEMENT_PORT: '0' } as Record<string, string>,
    second.secrets,
  )
  const { url } = await addressesOf(process)
  const post = async (headers: Record<string, string>) =>
    send(`${url}/onboarding/kyb-token`, {
      method: 'POST',
      headers: { authorization: `Bearer ${await second.token()}`, ...headers },
    })
  return { idenfy, pending, second, child: process.child, post }
}

t.test('nor when the first replica is killed in between', needsRedis, async (t) => {
  for (const headers of [{}, { 'idempotency-key': 'k' }] as Record<string, string>[]) {
    await t.test(headers['idempotency-key'] ? 'with a key' : 'without one', async (t) => {
      const { idenfy, second, child, post } = await startProcess(t, 1000)
      const lost = t.rejects(post(headers), { code: 'UND_ERR_SOCKET' })
      await until(() => idenfy.arrivals.length === 1, 'the POST of the killed replica to reach iDenfy')
      child.kill('SIGKILL')
      await lost
      // As long as the lease lasts the first one may still be at work.
      const busy = await second.mint({ headers })
      t.match(busy.json, { code: headers['idempotency-key'] ? 'idempotency-conflict' : 'provider-timeout' })
      if (headers['idempotency-key']) {
        const retryAfter = Number(busy.headers['retry-after'])
        t.ok(retryAfter >= 1 && retryAfter <= 3, `what remains of the lease: ${retryAfter} s`)
      }
      let last = busy
      await until(async () => {
        last = await second.mint({ headers })
        return !['idempotency-conflict', 'provider-timeout'].includes(last.json.code)
      }, 'the lease of the killed replica to end')
      t.match(last.json, { code: 'provider-outcome-unknown', outcome: 'unknown', retryable: false })
      t.equal(idenfy.arrivals.length, 1)
    })
  }
})

t.test('nor when it is stopped and continued', needsRedis, async (t) => {
  await t.test('after it has sent', async (t) => {
    const { idenfy, pending, second, child, post } = await startProcess(t, 1000)
    const headers = { 'idempotency-key': 'k' }
    const own = post(headers)
    await until(() => idenfy.arrivals.length === 1, 'the POST to reach iDenfy')
    child.kill('SIGSTOP')
    await until(
      async () => (await second.mint({ headers })).json.code === 'provider-outcome-unknown',
      'the lease of the stopped replica to end',
    )
    child.kill('SIGCONT')
    pending[0]?.write(created)
    await own
    t.equal((await second.mint({ headers })).json.code, 'provider-outcome-unknown', 'what was said stays so')
    t.equal(idenfy.arrivals.length, 1)
  })

  await t.test('before it has sent: it is too late when it goes on', async (t) => {
    const connected: Socket[] = []
    const slow = createServer((socket) => connected.push(socket.on('error', () => {})))
    const url = `https://127.0.0.1:${await listen(t, slow)}`
    t.teardown(() => {
      for (const socket of connected) socket.destroy()
    })
    const redis = await startRedis(t)
    // The first connection is that of the request.
    const env = { ...envOf(url), ...redis.env, IDENFY_TIMEOUT_MS: '1000', IDENFY_STANDBY_MAX_AGE_MS: '0' }
    const second = await build(t, { env })
    const process = spawnNode(
      t,
      ['bundle/server.js'],
      { ...second.environment, ...env, PORT: '0', MANAGEMENT_PORT: '0' } as Record<string, string>,
      second.secrets,
    )
    const { url: first } = await addressesOf(process)
    const token = await second.token()
    const own = send(`${first}/onboarding/kyb-token`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'idempotency-key': 'k' },
    })
    await until(() => connected.length === 1, 'the first replica to connect to iDenfy')
    process.child.kill('SIGSTOP')
    const headers = { 'idempotency-key': 'k' }
    await until(
      async () => (await second.mint({ headers })).json.code === 'provider-outcome-unknown',
      'the lease of the stopped replica to end',
    )
    process.child.kill('SIGCONT')
    t.match((await own).json, { code: 'provider-unavailable', outcome: 'not-created' })
  })
})

t.test('a request is not sent if all its clients have disconnected', async (t) => {
  const pending: Socket[] = []
  const idenfy = await startFaultServer(t, (socket) => pending.push(socket))
  /** How many requests have passed authentication. Each waits for a POST from then on. */
  let issued = 0
  const service = await build(t, {
    env: { IDENFY_BASE_URL: idenfy.url, IDENFY_MAX_IN_FLIGHT: '1' },
    prepare: ({ tokenIssuer }) => {
      const { issue } = tokenIssuer
      tokenIssuer.issue = (request) => {
        issued += 1
        return issue(request)
      }
    },
  })
  service.secrets.add(goodToken.tokenString)
  const inQueue = (count: number) => async () =>
    new RegExp(`^idenfy_waiting ${count}$`, 'm').test(await service.metrics())
  const postAs = async (sub: string) => {
    const { socket, received } = openSocket(service.url)
    const token = await service.token({ sub })
    socket.write(`POST /onboarding/kyb-token HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\n\r\n`)
    return { leave: () => socket.destroy(), received }
  }

  const busy = service.mint()
  await until(() => pending.length === 1, 'the first POST to reach iDenfy')
  const leaving = await postAs('u-2')
  await until(inQueue(1), 'one request in the queue')
  leaving.leave()
  await leaving.received()
  await until(() => service.log('client-closed').length === 1, 'the access line of the client that left')
  pending[0]?.write(created)
  t.equal((await busy).status, 201)
  await until(inQueue(0), 'an empty queue')

  await t.test('but one client that stays is enough', async (t) => {
    const busy = service.mint()
    await until(() => pending.length === 2, 'the second POST to reach iDenfy')
    const leaving = await postAs('u-3')
    await until(inQueue(1), 'one request in the queue')
    const before = issued
    const staying = service.mint({ token: await service.token({ sub: 'u-3' }) })
    await until(() => issued === before + 1, 'the identical request to wait for the same POST')
    leaving.leave()
    await leaving.received()
    await until(
      () => service.log('client-closed').length === 2,
      'the access line of the second client that left',
    )
    pending[1]?.write(created)
    t.equal((await busy).status, 201)
    await until(() => pending.length === 3, 'the third POST to reach iDenfy')
    pending[2]?.write(created)
    t.equal((await staying).status, 201)
  })
  t.strictSame(
    idenfy.arrivals.map(({ body }) => body.externalRef),
    ['u-1', 'u-1', 'u-3'],
  )
})

t.test('a fault of our own after sending counts as unknown: its key makes no second POST', async (t) => {
  let posts = 0
  const service = await build(t, {
    prepare: ({ idenfy }) => {
      idenfy.createKybToken = async () => {
        posts += 1
        throw new TypeError('a bug')
      }
    },
  })
  const headers = { 'idempotency-key': 'k' }
  for (const replayed of [undefined, 'true']) {
    const response = await service.mint({ headers })
    matchProblem(t, response, 'internal-error')
    t.equal(response.headers['idempotency-replayed'], replayed)
  }
  t.equal(posts, 1)
})
