import { createServer, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import t, { type Test } from 'tap'
import {
  type Arrival,
  certificate,
  created,
  day,
  type FaultServerOptions,
  goodToken,
  httpResponse,
  type Script,
  startFaultServer,
} from '../../fault-server.js'
import { build, inTime, listen, matchProblem } from '../../helper.js'

type Code = Parameters<typeof matchProblem>[2]

interface Expected {
  readonly code: Code
  readonly outcome?: 'not-created' | 'unknown'
  /** How many arrive at iDenfy. */
  readonly posts: number
  /** What the line of the log says of it. */
  readonly line: object
  readonly level?: string
}

/** One request, and all that is to be seen of it: the response, the POSTs, the metrics, the log. */
async function expectFault(
  t: Test,
  idenfy: { url: string; arrivals?: readonly Arrival[] },
  expected: Expected,
  env: Record<string, string> = {},
) {
  const service = await build(t, { env: { IDENFY_BASE_URL: idenfy.url, ...env } })
  service.secrets.add(goodToken.tokenString)
  const response = await service.mint()
  matchProblem(t, response, expected.code, expected.outcome && { outcome: expected.outcome })
  t.equal(response.headers['www-authenticate'], undefined, "iDenfy's 401 is none of the caller's")
  t.equal(idenfy.arrivals?.length ?? 0, expected.posts, `${expected.posts} POST(s)`)
  const lines = service.log(expected.code)
  t.match(lines, [{ level: expected.level ?? 'warn', ...expected.line }])
  t.equal(lines.length, 1)
  const metrics = await service.app.metrics.registry.metrics()
  t.match(metrics, new RegExp(`idenfy_requests_total\\{outcome="${expected.code}"\\} [1-9]`))
  t.equal(service.app.draining.aborted, false, 'the process is alive')
  return { service, response, metrics }
}

const unavailable = { code: 'provider-unavailable', outcome: 'not-created' } as const
const notSent = { phase: 'before-sending' }
const afterSending = { phase: 'after-sending' }
const causedBy = (phase: object, code: string | RegExp) => ({ ...phase, err: { cause: { code } } })
/** For tests that count connections. */
const noStandby = { IDENFY_STANDBY_MAX_AGE_MS: '0' }
const retried = /idenfy_retries_total\{reason="not-sent",granted="true"\} 1/

t.test('class N: nothing was sent, so once more is safe', async (t) => {
  await t.test('the name does not resolve', async (t) => {
    const { metrics } = await expectFault(
      t,
      { url: 'https://idenfy.invalid' },
      // EAI_AGAIN where no DNS server can be reached.
      { ...unavailable, posts: 0, line: causedBy(notSent, /^(ENOTFOUND|EAI_AGAIN)$/) },
    )
    t.match(metrics, retried)
  })

  await t.test('no process listens', async (t) => {
    const { metrics, response } = await expectFault(
      t,
      // Port 1 is reserved: no process listens there.
      { url: 'http://127.0.0.1:1' },
      { ...unavailable, posts: 0, line: causedBy(notSent, 'ECONNREFUSED') },
    )
    t.match(metrics, retried)
    t.equal(response.headers['retry-after'], '5')
  })

  await t.test('reset or closed during the TLS handshake', async (t) => {
    for (const end of [(socket: Socket) => socket.resetAndDestroy(), (socket: Socket) => socket.end()]) {
      let connections = 0
      const server = createServer((socket) => {
        connections += 1
        socket.on('error', () => {}).once('data', () => end(socket))
      })
      const url = `https://127.0.0.1:${await listen(t, server)}`
      const { metrics } = await expectFault(
        t,
        { url },
        { ...unavailable, posts: 0, line: causedBy(notSent, 'ECONNRESET') },
        noStandby,
      )
      t.match(metrics, retried)
      t.equal(connections, 2)
    }
  })

  await t.test('connecting takes too long, here in the TLS handshake', async (t) => {
    const server = createServer((socket) => socket.on('error', () => {}).resume())
    const url = `https://127.0.0.1:${await listen(t, server)}`
    const { metrics } = await expectFault(
      t,
      { url },
      { ...unavailable, posts: 0, line: causedBy(notSent, 'UND_ERR_CONNECT_TIMEOUT') },
      { IDENFY_CONNECT_TIMEOUT_MS: '100' },
    )
    t.match(metrics, retried)
  })

  await t.test('the deadline passes first: no time is left for more', async (t) => {
    const server = createServer((socket) => socket.on('error', () => {}).resume())
    const url = `https://127.0.0.1:${await listen(t, server)}`
    const { metrics } = await expectFault(
      t,
      { url },
      { ...unavailable, posts: 0, line: notSent },
      { IDENFY_TIMEOUT_MS: '150' },
    )
    t.notMatch(metrics, /idenfy_retries_total\{.*\} [1-9]/)
  })

  await t.test('the connection stands only after the deadline: nothing is sent on it', async (t) => {
    const tls = await certificate('localhost')
    const received: Buffer[] = []
    const idenfy = createTlsServer(tls, (socket) =>
      socket
        .on('error', () => {})
        .on('data', (bytes) => {
          received.push(bytes)
          socket.destroy()
        }),
    ).on('tlsClientError', () => {})
    const pending: Socket[] = []
    const slow = createServer({ pauseOnConnect: true }, (socket) => pending.push(socket))
    const url = `https://localhost:${await listen(t, slow, 'localhost')}`
    await expectFault(
      t,
      { url },
      { ...unavailable, posts: 0, line: notSent },
      { IDENFY_TIMEOUT_MS: '150', IDENFY_CA_FILE: `${t.testdir({ 'ca.pem': tls.cert })}/ca.pem` },
    )
    const [socket] = pending as [Socket]
    const closed = new Promise((resolve) => socket.once('close', resolve))
    idenfy.emit('connection', socket)
    await inTime(closed, 'the service to close the connection')
    t.strictSame(received, [])
  })

  await t.test('and the second try succeeds', async (t) => {
    const tls = await certificate('localhost')
    const idenfy = createTlsServer(tls, (socket) => socket.on('data', () => socket.write(created)))
    let connections = 0
    const flaky = createServer((socket) => {
      connections += 1
      if (connections === 1) socket.resetAndDestroy()
      else idenfy.emit('connection', socket)
    })
    const service = await build(t, {
      env: {
        IDENFY_BASE_URL: `https://localhost:${await listen(t, flaky, 'localhost')}`,
        IDENFY_CA_FILE: `${t.testdir({ 'ca.pem': tls.cert })}/ca.pem`,
        ...noStandby,
      },
    })
    service.secrets.add(goodToken.tokenString)
    t.equal((await service.mint()).status, 201)
    t.equal(connections, 2)
    t.match(
      service.log().filter(({ event }) => event === 'idenfy-retry'),
      [{ level: 'warn', retryReason: 'not-sent', phase: 'before-sending', requestId: String }],
    )
    const metrics = await service.app.metrics.registry.metrics()
    t.match(metrics, retried)
    t.match(metrics, /idenfy_requests_total\{outcome="success"\} 1/)
  })
})

t.test('class N, but no second try can help: iDenfy is not who it should be', async (t) => {
  const good = await certificate('localhost')
  const expired = await certificate('localhost', Date.now() - 2 * day, Date.now() - day)
  const another = await certificate('another.example')
  const rows: [string, string | RegExp, FaultServerOptions['tls'] & object, string?][] = [
    ['self-signed', 'DEPTH_ZERO_SELF_SIGNED_CERT', good],
    ['expired', 'CERT_HAS_EXPIRED', expired, expired.cert],
    ['for another host', 'ERR_TLS_CERT_ALTNAME_INVALID', another, another.cert],
    [
      'TLS 1.1 at most',
      'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION',
      { ...good, maxVersion: 'TLSv1.1' },
      good.cert,
    ],
  ]
  for (const [name, code, tls, ca] of rows) {
    await t.test(name, async (t) => {
      const idenfy = await startFaultServer(t, created, { tls, host: 'localhost' })
      const { metrics } = await expectFault(
        t,
        idenfy,
        {
          code: 'provider-rejected',
          outcome: 'not-created',
          posts: 0,
          level: 'error',
          line: { ...causedBy(notSent, code), class: 'tls' },
        },
        ca === undefined ? {} : { IDENFY_CA_FILE: `${t.testdir({ 'ca.pem': ca })}/ca.pem` },
      )
      t.notMatch(metrics, /idenfy_retries_total\{.*\} [1-9]/)
    })
  }

  await t.test('one that IDENFY_CA_FILE vouches for', async (t) => {
    const { url } = await startFaultServer(t, created, { tls: good, host: 'localhost' })
    const IDENFY_CA_FILE = `${t.testdir({ 'ca.pem': good.cert })}/ca.pem`
    const service = await build(t, { env: { IDENFY_BASE_URL: url, IDENFY_CA_FILE } })
    t.equal((await service.mint()).status, 201)
  })
})

/** A byte of a response every 100 ms. */
function drip(socket: Socket, text: string): void {
  let index = 0
  const timer = setInterval(() => socket.write(text[index++] ?? ''), 100)
  socket.on('close', () => clearInterval(timer))
}

t.test('class U: a verification may have been opened, so never again', async (t) => {
  const unknown = { outcome: 'unknown', posts: 1 } as const
  const late = { ...unknown, code: 'provider-timeout', line: afterSending } as const
  const broken = { ...unknown, code: 'provider-outcome-unknown' } as const
  const bad = { ...unknown, code: 'provider-bad-response', level: 'error' } as const
  const failed = broken
  const truncated = created.slice(0, -5)
  const fields = (extra: string) => created.replace('Content-Length', `${extra}\r\nContent-Length`)
  const chunked = (text: string) =>
    `HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${text}`

  const rows: [string, Script, Expected][] = [
    [
      'reset, no response',
      (s) => s.resetAndDestroy(),
      { ...broken, line: causedBy(afterSending, 'ECONNRESET') },
    ],
    ['closed, no response', (s) => s.end(), { ...broken, line: causedBy(afterSending, 'UND_ERR_SOCKET') }],
    ['no response', () => {}, late],
    ['headers that drip', (s) => drip(s, created), late],
    ['a body that stalls', (s) => s.write(truncated), late],
    ['a body that drips', (s) => s.write(truncated, () => drip(s, created.slice(-5))), late],
    ['cut off', (s) => s.end(truncated), { ...broken, line: causedBy(afterSending, 'UND_ERR_SOCKET') }],
    [
      'reset in the body',
      (s) => s.write(truncated, () => s.resetAndDestroy()),
      { ...broken, line: afterSending },
    ],
    ['chunks that end early', (s) => s.end(chunked('40\r\n{')), { ...broken, line: afterSending }],
    ['a chunk of no size', chunked('zz\r\n'), { ...bad, line: afterSending }],
    ['no HTTP', 'hello\r\n\r\n', { ...bad, line: afterSending }],
    [
      'over 64 KiB',
      httpResponse('201 Created', { ...goodToken, padding: 'x'.repeat(65_536) }),
      { ...bad, line: causedBy(afterSending, 'UND_ERR_RES_EXCEEDED_MAX_SIZE') },
    ],
    [
      'over 64 KiB in chunks',
      chunked(`${'2000\r\n'.concat('x'.repeat(8192), '\r\n').repeat(9)}`),
      { ...bad, line: causedBy(afterSending, 'UND_ERR_RES_EXCEEDED_MAX_SIZE') },
    ],
    [
      '20 kB of headers',
      fields(`X-Padding: ${'x'.repeat(20_000)}`),
      { ...bad, line: causedBy(afterSending, 'UND_ERR_HEADERS_OVERFLOW') },
    ],
    ['encoded', fields('Content-Encoding: gzip'), { ...bad, line: { ...afterSending, reason: 'encoded' } }],
    ['two lengths', fields('Content-Length: 7'), { ...bad, line: afterSending }],
    ['two framings', fields('Transfer-Encoding: chunked'), { ...bad, line: afterSending }],
    ['100, then 201', `HTTP/1.1 100 Continue\r\n\r\n${created}`, { ...broken, line: afterSending }],
    [
      'HTML',
      httpResponse('201 Created', '<html>'),
      { ...bad, line: { ...afterSending, reason: 'not-a-token' } },
    ],
    ['500', httpResponse('500 Oops'), { ...failed, line: { ...afterSending, upstreamStatus: 500 } }],
    [
      '502',
      httpResponse('502 Oops', '<html>'),
      { ...failed, line: { ...afterSending, upstreamStatus: 502 } },
    ],
    ['504', httpResponse('504 Oops'), { ...failed, line: { ...afterSending, upstreamStatus: 504 } }],
    ['503', httpResponse('503 Oops'), { ...failed, line: { ...afterSending, upstreamStatus: 503 } }],
    [
      '503 with Retry-After',
      httpResponse('503 Oops', '', { 'Retry-After': '1' }),
      { ...failed, line: { ...afterSending, upstreamStatus: 503 } },
    ],
    [
      'INTERNAL_ERROR under another status',
      httpResponse('400 Bad Request', { identifier: 'INTERNAL_ERROR' }),
      { ...failed, line: { ...afterSending, upstreamStatus: 400, identifier: 'INTERNAL_ERROR' } },
    ],
  ]
  for (const [name, script, expected] of rows) {
    await t.test(name, async (t) => {
      const { metrics } = await expectFault(t, await startFaultServer(t, script), expected, {
        IDENFY_TIMEOUT_MS: '300',
      })
      t.notMatch(metrics, /idenfy_retries_total\{.*\} [1-9]/)
    })
  }

  await t.test('a redirect is not followed, and the credentials stay here', async (t) => {
    const canary = await startFaultServer(t, created)
    for (const status of [301, 302, 303, 307, 308]) {
      for (const location of [`${canary.url}/kyb/tokens/`, '/kyb/tokens/', 'http://169.254.169.254/']) {
        const idenfy = await startFaultServer(t, httpResponse(`${status} Moved`, '', { Location: location }))
        await expectFault(t, idenfy, {
          ...bad,
          line: { ...afterSending, reason: 'redirect', upstreamStatus: status },
        })
      }
    }
    t.equal(canary.connections, 0)
  })

  await t.test('a connection kept alive that iDenfy closes on the next request', async (t) => {
    const idenfy = await startFaultServer(t, created)
    const service = await build(t, { env: { IDENFY_BASE_URL: idenfy.url, ...noStandby } })
    service.secrets.add(goodToken.tokenString)
    t.equal((await service.mint()).status, 201)
    idenfy.script = (socket) => socket.resetAndDestroy()
    matchProblem(t, await service.mint(), 'provider-outcome-unknown', { outcome: 'unknown' })
    t.strictSame([idenfy.arrivals.length, idenfy.connections], [2, 1])
  })
})

t.test('class R: iDenfy refused before any work', async (t) => {
  const refused = { outcome: 'not-created', posts: 1 } as const
  const rejected = { ...refused, code: 'provider-rejected', level: 'error' } as const
  const responseOf = (status: string, identifier?: string, message: unknown = 'canary') =>
    httpResponse(status, { identifier, message })
  const rejections: [string, string, string][] = [
    ...['BAD_VALUE', 'MISSING_VALUE', 'VALIDATION_ERROR', 'JSON_ERROR', 'ENCODING_ERROR'].map(
      (identifier): [string, string, string] => [
        `${identifier}`,
        'request',
        responseOf('400 Bad', identifier),
      ],
    ),
    ['401', 'credentials', httpResponse('401 No')],
    ['401 UNAUTHORIZED', 'credentials', responseOf('401 No', 'UNAUTHORIZED')],
    ['400 UNAUTHORIZED', 'credentials', responseOf('400 No', 'UNAUTHORIZED')],
    ['AUTHENTICATION_FAILED', 'credentials', responseOf('401 No', 'AUTHENTICATION_FAILED')],
    ['403', 'contract', httpResponse('403 No')],
    ['PARTNER_CONTRACT_ERROR', 'contract', responseOf('400 No', 'PARTNER_CONTRACT_ERROR')],
    ['PERMISSIONS_ERROR', 'contract', responseOf('400 No', 'PERMISSIONS_ERROR', { flow: 'no' })],
    ['402', 'funds', httpResponse('402 Pay')],
    ['token limit', 'funds', responseOf('400 No', 'PERMISSIONS_ERROR', 'Partner reached token limit')],
    ['404 of another server', 'endpoint', httpResponse('404 No')],
    ['404', 'request', responseOf('404 No', 'NOT_FOUND')],
    ['405', 'request', responseOf('405 No', 'METHOD_NOT_ALLOWED')],
    ['413', 'request', httpResponse('413 No')],
    ['415', 'request', httpResponse('415 No')],
    ['422', 'request', httpResponse('422 No')],
    ['418', 'request', httpResponse('418 No')],
  ]
  for (const [name, reason, script] of rejections) {
    await t.test(name, async (t) => {
      const { service } = await expectFault(t, await startFaultServer(t, script), {
        ...rejected,
        line: { phase: 'refused', class: reason },
      })
      t.notMatch(JSON.stringify(service.log()), 'canary')
    })
  }

  await t.test('409', async (t) => {
    await expectFault(t, await startFaultServer(t, httpResponse('409 Conflict')), {
      code: 'kyb-session-conflict',
      posts: 1,
      level: 'info',
      line: { phase: 'refused', upstreamStatus: 409 },
    })
  })

  for (const [name, script] of [
    ['429', httpResponse('429 Slow')],
    ['400 TOO_MANY_REQUESTS', responseOf('400 Slow', 'TOO_MANY_REQUESTS')],
    ['429 with a Retry-After that costs too much', httpResponse('429 Slow', '', { 'Retry-After': '60' })],
  ] as const) {
    await t.test(name, async (t) => {
      const { metrics } = await expectFault(t, await startFaultServer(t, script), {
        ...refused,
        code: 'provider-rate-limited',
        line: { phase: 'refused' },
      })
      t.notMatch(metrics, /idenfy_retries_total\{.*\} [1-9]/)
    })
  }

  await t.test('429 with a Retry-After that can be waited for', async (t) => {
    const busy = httpResponse('429 Slow', '', { 'Retry-After': '1' })
    const idenfy = await startFaultServer(t, (socket, { index }) =>
      socket.write(index === 0 ? busy : created),
    )
    const service = await build(t, { env: { IDENFY_BASE_URL: idenfy.url } })
    service.secrets.add(goodToken.tokenString)
    t.equal((await service.mint()).status, 201)
    t.equal(idenfy.arrivals.length, 2)
    t.match(
      service.log().filter(({ event }) => event === 'idenfy-retry'),
      [{ level: 'warn', retryReason: 'rate-limited', phase: 'refused', upstreamStatus: 429 }],
    )
  })
})

t.test('class C: iDenfy did it', async (t) => {
  const rows: [string, string, RegExp?][] = [
    ['201', created],
    ['103, then 201', `HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${created}`],
    ['200 with a full token', httpResponse('200 OK', goodToken), /idenfy_contract_drifts_total 1/],
    ['202 with a full token', httpResponse('202 Accepted', goodToken), /idenfy_contract_drifts_total 1/],
  ]
  for (const [name, script, metric = /idenfy_contract_drifts_total 0/] of rows) {
    await t.test(name, async (t) => {
      const idenfy = await startFaultServer(t, script)
      const service = await build(t, { env: { IDENFY_BASE_URL: idenfy.url } })
      service.secrets.add(goodToken.tokenString)
      t.equal((await service.mint()).status, 201)
      t.equal(idenfy.arrivals.length, 1)
      t.match(await service.app.metrics.registry.metrics(), metric)
    })
  }
})
