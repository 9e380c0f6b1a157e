import t from 'tap'
import { build, type HttpResponse, matchProblem, openSocket, parseResponses, send } from '../helper.js'

const path = '/onboarding/kyb-token'
const origin = 'https://app.acme.example'

t.test('pages of a listed origin may call', async (t) => {
  const service = await build(t, { env: { CORS_ORIGINS: `${origin},http://localhost:5173` } })
  const preflight = await send(service.url + path, {
    method: 'OPTIONS',
    headers: {
      origin,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization,content-type',
    },
  })
  t.equal(preflight.status, 204)
  t.match(preflight.headers, {
    'access-control-allow-origin': origin,
    'access-control-allow-methods': 'POST',
    'access-control-allow-headers':
      /^Authorization, Content-Type, Idempotency-Key, X-Company-Id, X-Request-Id, traceparent, tracestate, baggage,/,
    'access-control-max-age': '7200',
    vary: /Origin/,
  })
  t.equal(preflight.headers['access-control-allow-credentials'], undefined)

  for (const response of [
    await service.mint({ headers: { origin } }),
    await service.mint({ token: 'x', headers: { origin } }),
  ]) {
    t.match(response.headers, {
      'access-control-allow-origin': origin,
      'access-control-expose-headers':
        'Idempotency-Replayed, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id',
      vary: /Origin/,
    })
  }
})

t.test('pages of other origins may not', async (t) => {
  const service = await build(t, { env: { CORS_ORIGINS: origin } })
  for (const other of [
    'https://evil.example',
    `${origin}.evil.example`,
    'http://app.acme.example',
    `${origin}:8443`,
    'null',
  ]) {
    const response = await service.mint({ headers: { origin: other } })
    t.equal(response.headers['access-control-allow-origin'], undefined, other)
    t.match(response.headers.vary, /Origin/)
  }
})

t.test('without origins there is no CORS', async (t) => {
  const service = await build(t)
  const preflight = await send(service.url + path, {
    method: 'OPTIONS',
    headers: { origin, 'access-control-request-method': 'POST' },
  })
  t.equal(preflight.status, 405)
  t.equal((await service.mint({ headers: { origin } })).headers['access-control-allow-origin'], undefined)
})

const preflight = (url: string, from: string) =>
  send(url + path, {
    method: 'OPTIONS',
    headers: { origin: from, 'access-control-request-method': 'POST' },
  })

t.test('preflights have outcomes of their own', async (t) => {
  const service = await build(t, { env: { CORS_ORIGINS: origin } })
  t.equal((await preflight(service.url, origin)).status, 204)
  const refused = await preflight(service.url, 'https://evil.example')
  matchProblem(t, refused, 'preflight-refused')
  for (const name of Object.keys(refused.headers)) t.notMatch(name, /^access-control-/)
  const outcomes = service.log().filter(({ msg }) => msg === 'request')
  t.strictSame(
    outcomes.map(({ outcome, status, level }) => [outcome, status, level]),
    [
      ['preflight', 204, 'info'],
      ['preflight-refused', 403, 'info'],
    ],
  )
  t.match(await service.metrics(), /^http_requests_total\{outcome="preflight"\} 1$/m)
  t.match(await service.metrics(), /^http_requests_total\{outcome="preflight-refused"\} 1$/m)
})

t.test('a preflight asks for what tracing and monitoring add to requests', async (t) => {
  const service = await build(t, { env: { CORS_ORIGINS: origin } })
  const { headers } = await preflight(service.url, origin)
  const allowed = String(headers['access-control-allow-headers']).toLowerCase().split(', ')
  for (const name of [
    ...['traceparent', 'tracestate', 'baggage', 'x-request-id', 'sentry-trace', 'newrelic', 'b3'],
    ...['x-b3-traceid', 'x-b3-spanid', 'x-b3-sampled', 'elastic-apm-traceparent', 'uber-trace-id'],
    ...['x-datadog-origin', 'x-datadog-parent-id', 'x-datadog-sampling-priority', 'x-datadog-trace-id'],
  ]) {
    t.ok(allowed.includes(name), name)
  }
})

t.test('pages of app frameworks, and of one label in place of a wildcard', async (t) => {
  const origins = 'capacitor://localhost,https://*.acme.com,https://*.acme.co.uk:8443'
  const service = await build(t, { env: { CORS_ORIGINS: origins } })
  const allowed = [
    ...['capacitor://localhost', 'https://app.acme.com', 'https://pr-12.acme.com', 'https://APP.Acme.com'],
    'https://a.acme.co.uk:8443',
  ]
  for (const from of allowed) {
    t.equal((await preflight(service.url, from)).headers['access-control-allow-origin'], from)
  }
  for (const from of [
    ...['https://acme.com', 'https://a.b.acme.com', 'http://app.acme.com', 'https://app.acme.com:8443'],
    ...['https://evilacme.com', 'https://evil.com/.acme.com', 'https://app.acme.com.evil.com', 'null', ''],
    ...['https://a.acme.co.uk', 'capacitor://localhost:1', 'ionic://localhost', 'https://*.acme.com'],
    'https://.acme.com',
  ]) {
    t.equal((await preflight(service.url, from)).headers['access-control-allow-origin'], undefined, from)
  }
})

t.test('a page can read what the HTTP parser refuses', async (t) => {
  const limits = { headersTimeoutMs: 5000, requestTimeoutMs: 300, timeoutCheckMs: 20 }
  const service = await build(t, { env: { CORS_ORIGINS: origin }, limits })
  const head = `POST ${path} HTTP/1.1\r\nHost: a\r\n`
  const authorization = `Authorization: Bearer ${await service.token()}\r\n`
  const json = 'Content-Type: application/json\r\n'
  const rows: [Parameters<typeof matchProblem>[2], string][] = [
    ['malformed-request', `${head}Origin: ${origin}\r\nX: a\0b\r\n\r\n`],
    ['malformed-request', `${head}origin:${origin} \r\nContent-Length: x\r\n\r\n`],
    ['header-too-large', `${head}Origin: ${origin}\r\nX: ${'x'.repeat(17_000)}\r\n\r\n`],
    ['request-timeout', `${head}Origin: ${origin}\r\n${authorization}${json}Content-Length: 9\r\n\r\n{`],
  ]
  for (const [code, bytes] of rows) {
    const { socket, received } = openSocket(service.url)
    socket.write(bytes)
    const [response] = parseResponses(await received()) as [HttpResponse]
    matchProblem(t, response, code)
    t.match(response.headers, {
      'access-control-allow-origin': origin,
      'access-control-expose-headers': /X-Request-Id/,
      'x-content-type-options': 'nosniff',
      'x-request-id': response.json.requestId,
      vary: /Origin/,
    })
    t.equal(service.log(code).at(-1)?.requestId, response.json.requestId)
  }
  const other = openSocket(service.url)
  other.socket.write(`${head}Origin: https://evil.example\r\nX: a\0b\r\n\r\n`)
  const [response] = parseResponses(await other.received()) as [HttpResponse]
  t.equal(response.headers['access-control-allow-origin'], undefined)
})

t.test('security headers that mean something for an API', async (t) => {
  const service = await build(t)
  const plain = [
    'connection',
    'content-length',
    'content-type',
    'date',
    'keep-alive',
    'ratelimit',
    'ratelimit-policy',
    'x-request-id',
  ]
  for (const response of [await service.mint(), await send(`${service.url}/none`)]) {
    const { 'cache-control': cacheControl, ...rest } = response.headers
    t.equal(cacheControl, 'no-store')
    t.strictSame(Object.fromEntries(Object.entries(rest).filter(([name]) => !plain.includes(name))), {
      'content-security-policy': "default-src 'none';frame-ancestors 'none'",
      'cross-origin-resource-policy': 'same-origin',
      'referrer-policy': 'no-referrer',
      'strict-transport-security': 'max-age=31536000; includeSubDomains',
      'x-content-type-options': 'nosniff',
    })
  }
})
