import { createServer, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import selfsigned from 'selfsigned'
import t, { type Test } from 'tap'
import { build, listen, matchProblem } from '../../helper.js'

const now = Date.parse('2026-11-23T12:00:00Z')
const goodToken = { tokenString: 'T0ken', expiration: '2026-11-23T13:00:00Z' }

/** A TCP peer that answers every request with the same bytes. */
async function startPeer(t: Test, answer: string | ((socket: Socket) => void)): Promise<string> {
  return `http://127.0.0.1:${await listen(
    t,
    createServer((socket) => respond(socket, answer)),
  )}`
}

function respond(socket: Socket, answer: string | ((socket: Socket) => void)): void {
  socket.on('error', () => {})
  socket.on('data', () => (typeof answer === 'string' ? socket.end(answer) : answer(socket)))
}

function httpAnswer(statusLine: string, body: unknown, headers: Record<string, string> = {}): string {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const fields = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text), ...headers }
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${statusLine}\r\n${lines.join('')}\r\n${text}`
}

async function mintAgainst(t: Test, answer: string | ((socket: Socket) => void)) {
  const IDENFY_BASE_URL = await startPeer(t, answer)
  const service = await build(t, { now: () => now, env: { IDENFY_BASE_URL } })
  service.secrets.add(goodToken.tokenString)
  return { service, answer: await service.mint() }
}

t.test('a token needs little: the reader is tolerant', async (t) => {
  const { answer } = await mintAgainst(
    t,
    httpAnswer('201 Created', { ...goodToken, surprise: { tokenString: 1 } }),
  )
  t.equal(answer.status, 201)
  t.strictSame(answer.json, {
    tokenType: 'FORM',
    ...goodToken,
    expiresIn: 3600,
    isValid: true,
    companyId: null,
    clientId: 'acme',
    externalRef: 'u-1',
    redirectUrl: 'https://kyb.ui.idenfy.com/welcome?authToken=T0ken',
  })
})

t.test('nulls where the document allows them', async (t) => {
  const nulls = {
    companyId: null,
    externalRef: 'u-1',
    locale: null,
    flow: null,
    theme: null,
    tags: [],
    scanRefs: null,
  }
  const { answer } = await mintAgainst(t, httpAnswer('201 Created', { ...goodToken, ...nulls }))
  t.equal(answer.status, 201)
})

t.test('a full token under another 2xx is a success, and the drift is told', async (t) => {
  for (const status of ['200 OK', '202 Accepted']) {
    const { service, answer } = await mintAgainst(t, httpAnswer(status, goodToken))
    t.equal(answer.status, 201)
    t.match(
      service.log().filter(({ event }) => event === 'idenfy-contract-drift'),
      [{ level: 40, upstreamStatus: Number(status.slice(0, 3)) }],
    )
  }
})

t.test('API10-1, API10-3, API10-4 an answer that breaks the contract is never handed on', async (t) => {
  const cases: [string, string, string][] = [
    ['no tokenString', 'not-a-token', created({ tokenString: undefined })],
    ['tokenString null', 'not-a-token', created({ tokenString: null })],
    ['tokenString empty', 'not-a-token', created({ tokenString: '' })],
    ['tokenString a number', 'not-a-token', created({ tokenString: 1 })],
    ['tokenString of 5 kB', 'not-a-token', created({ tokenString: 'x'.repeat(5000) })],
    ['tokenString with CRLF', 'not-a-token', created({ tokenString: 'a\r\nSet-Cookie: b' })],
    ['tokenString with a tag', 'not-a-token', created({ tokenString: '<script>' })],
    ['tokenString beyond ASCII', 'not-a-token', created({ tokenString: 'tökén' })],
    ['no expiration', 'not-a-token', created({ expiration: undefined })],
    ['expiration unparsable', 'not-a-token', created({ expiration: 'soon' })],
    ['expiration without a zone', 'not-a-token', created({ expiration: '2026-11-23T13:00:00' })],
    ['expiration that is no date', 'expired', created({ expiration: '2026-13-45T13:00:00Z' })],
    ['expiration past', 'expired', created({ expiration: '2026-11-23T12:00:00Z' })],
    ['not valid', 'not-a-token', created({ isValid: false })],
    ['another token type', 'not-a-token', created({ tokenType: 'GOV1' })],
    ["another company's token", 'identity-mismatch', created({ clientId: 'globex' })],
    ["another user's token", 'identity-mismatch', created({ externalRef: 'u-2' })],
    ['a list', 'not-a-token', httpAnswer('201 Created', '[]')],
    ['null', 'not-a-token', httpAnswer('201 Created', 'null')],
    ['broken JSON', 'not-a-token', httpAnswer('201 Created', '{"tokenString":"T0ken')],
    ['called HTML', 'not-json', httpAnswer('201 Created', goodToken, { 'Content-Type': 'text/html' })],
    ['of no type', 'not-json', `HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}`],
    ['encoded', 'encoded', httpAnswer('201 Created', goodToken, { 'Content-Encoding': 'gzip' })],
    ['no content', 'not-json', 'HTTP/1.1 204 No Content\r\n\r\n'],
    ['a redirect', 'redirect', httpAnswer('307 Temporary Redirect', '', { Location: 'http://127.0.0.1:1/' })],
  ]
  function created(change: object): string {
    return httpAnswer('201 Created', { ...goodToken, ...change })
  }
  for (const [name, reason, bytes] of cases) {
    await t.test(name, async (t) => {
      const { service, answer } = await mintAgainst(t, bytes)
      matchProblem(t, answer, 'provider-bad-response', { outcome: 'unknown' })
      t.match(service.log('provider-bad-response'), [{ level: 50, reason }])
    })
  }
})

t.test('API10-2 an answer that HTTP itself cannot take', async (t) => {
  const cases: [string, string][] = [
    ['no HTTP', 'hello\r\n\r\n'],
    ['over 64 KiB', httpAnswer('201 Created', { ...goodToken, padding: 'x'.repeat(65_536) })],
    ['20 kB of headers', httpAnswer('201 Created', goodToken, { 'X-Padding': 'x'.repeat(20_000) })],
  ]
  for (const [name, bytes] of cases) {
    await t.test(name, async (t) => {
      const { answer } = await mintAgainst(t, bytes)
      matchProblem(t, answer, 'provider-bad-response', { outcome: 'unknown' })
    })
  }
})

t.test('what iDenfy asks us to wait is passed on, within bounds', async (t) => {
  const cases: [string, Parameters<typeof matchProblem>[2], string, string][] = [
    ['429 Too Many Requests', 'provider-rate-limited', '7', '7'],
    ['429 Too Many Requests', 'provider-rate-limited', '0', '1'],
    ['429 Too Many Requests', 'provider-rate-limited', '86400', '300'],
    ['429 Too Many Requests', 'provider-rate-limited', 'Mon, 23 Nov 2026 12:10:00 GMT', '30'],
    ['503 Service Unavailable', 'provider-unavailable', '11', '11'],
  ]
  for (const [status, code, retryAfter, expected] of cases) {
    const { answer } = await mintAgainst(t, httpAnswer(status, 'busy', { 'Retry-After': retryAfter }))
    t.equal(answer.json.code, code)
    t.equal(answer.headers['retry-after'], expected, `${retryAfter} → ${expected}`)
  }
  const { answer } = await mintAgainst(t, httpAnswer('402 Payment Required', '{}', { 'Retry-After': '7' }))
  t.equal(answer.headers['retry-after'], undefined, 'waiting mends no refusal')
})

t.test('API10-5 the deadline holds whatever the phase', async (t) => {
  const cases: [string, (socket: Socket) => void][] = [
    ['no answer', () => {}],
    ['a body that stalls', (socket) => socket.write('HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{')],
  ]
  for (const [name, answer] of cases) {
    await t.test(name, async (t) => {
      const IDENFY_BASE_URL = await startPeer(t, answer)
      const service = await build(t, { env: { IDENFY_BASE_URL, IDENFY_TIMEOUT_MS: '150' } })
      matchProblem(t, await service.mint(), 'provider-timeout', { outcome: 'unknown' })
      t.match(service.log('provider-timeout'), [{ level: 40, phase: 'after-sending' }])
    })
  }

  await t.test('a TLS handshake that hangs: nothing was sent', async (t) => {
    const IDENFY_BASE_URL = (await startPeer(t, () => {})).replace('http:', 'https:')
    const service = await build(t, { env: { IDENFY_BASE_URL, IDENFY_TIMEOUT_MS: '150' } })
    matchProblem(t, await service.mint(), 'provider-timeout', { outcome: 'not-created' })
    t.match(service.log('provider-timeout'), [{ phase: 'before-sending' }])
  })
})

t.test('TLS', async (t) => {
  const { private: key, cert } = await selfsigned.generate([{ name: 'commonName', value: 'localhost' }], {
    extensions: [{ name: 'subjectAltName', altNames: [{ type: 2, value: 'localhost' }] }],
  })
  const server = createTlsServer({ key, cert }, (socket) =>
    respond(socket, httpAnswer('201 Created', goodToken)),
  )
  const IDENFY_BASE_URL = `https://localhost:${await listen(t, server, 'localhost')}`

  await t.test('a certificate nobody vouches for', async (t) => {
    const service = await build(t, { now: () => now, env: { IDENFY_BASE_URL } })
    matchProblem(t, await service.mint(), 'provider-unavailable', { outcome: 'not-created' })
    t.match(service.log('provider-unavailable'), [
      { err: { cause: { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' } } },
    ])
  })

  await t.test('one that IDENFY_CA_FILE vouches for', async (t) => {
    const IDENFY_CA_FILE = `${t.testdir({ 'ca.pem': cert })}/ca.pem`
    const service = await build(t, { now: () => now, env: { IDENFY_BASE_URL, IDENFY_CA_FILE } })
    t.equal((await service.mint()).status, 201)
  })
})
