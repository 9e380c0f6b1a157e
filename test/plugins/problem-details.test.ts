import { once } from 'node:events'
import { request as httpRequest, METHODS } from 'node:http'
import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import t from 'tap'
import { detailTexts, type ProblemDetail } from '../../src/problems/catalog.js'
import {
  build,
  type HttpResponse,
  inTime,
  matchProblem,
  openSocket,
  parseResponses,
  send,
} from '../helper.js'

const path = '/onboarding/kyb-token'

t.test('requests that the router refuses get a problem document', async (t) => {
  const service = await build(t)

  for (const url of [
    '/',
    '/onboarding',
    `${path}/`,
    `/${path}`,
    path.toUpperCase(),
    `${path};a=1`,
    `${path}%00`,
  ]) {
    await t.test(`404 ${url}`, async (t) => {
      const response = await send(service.url + url, { method: 'POST' })
      matchProblem(t, response, 'not-found')
      t.notMatch(response.text, 'onboarding', 'the path is not repeated')
    })
  }
  for (const url of ['/livez', '/readyz', '/metrics', '/docs']) {
    await t.test(`404 ${url} on the public listener`, async (t) => {
      matchProblem(t, await send(service.url + url), 'not-found')
    })
  }
  for (const method of ['GET', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'QUERY']) {
    await t.test(`405 ${method}`, async (t) => {
      const response = await send(`${service.url}${path}`, { method: method as 'GET' })
      matchProblem(t, response, 'method-not-allowed')
      t.equal(response.headers.allow, 'POST')
    })
  }
  await t.test('404 QUERY', async (t) => {
    matchProblem(t, await send(`${service.url}/nothing`, { method: 'QUERY' as 'GET' }), 'not-found')
    t.strictSame(service.log('internal-error'), [])
  })
  await t.test('405 HEAD has no body', async (t) => {
    const response = await send(service.url + path, { method: 'HEAD' })
    t.strictSame([response.status, response.headers.allow, response.text], [405, 'POST', ''])
  })
  await t.test('400 for a URL that cannot be decoded, with its access line', async (t) => {
    matchProblem(t, await send(`${service.url}/%`), 'malformed-request')
    t.match(service.log('malformed-request'), [{ method: 'GET', status: 400, requestId: String }])
  })
})

t.test('no method, with or without a body, is a fault of the service', async (t) => {
  const service = await build(t)
  const json = { 'content-type': 'application/json' }
  const rows: [headers: Record<string, string>, body?: string][] = [
    [{}],
    [json, '{}'],
    [json, ''],
    [json, '{'],
    [{ 'content-type': 'text/plain' }, 'a'],
    [{ 'content-type': 'a' }, 'a'],
  ]
  // Node answers CONNECT itself, by closing the connection.
  const methods = METHODS.filter((method) => method !== 'CONNECT')
  for (const url of [service.url + path, `${service.url}/nothing`, `${service.managementUrl}/livez`]) {
    for (const method of methods) {
      for (const [headers, body] of rows) {
        const { status } = await sendRaw(url, method, headers, body)
        t.ok(status >= 200 && status < 500, `${method} ${url} ${JSON.stringify(headers)} ${body}: ${status}`)
      }
    }
  }
  t.ok(methods.length > 30)
})

/** With Node's own client, because undici does not send every method. */
async function sendRaw(url: string, method: string, headers: Record<string, string>, body = '') {
  const request = httpRequest(url, {
    method,
    agent: false,
    headers: { ...headers, 'content-length': Buffer.byteLength(body) },
  })
  request.end(body)
  const [response] = await inTime(once(request, 'response'), `a response to ${method} ${url}`)
  response.resume()
  return { status: Number(response.statusCode) }
}

t.test('requests that the HTTP parser refuses get a problem document', async (t) => {
  const service = await build(t)
  const exchange = (bytes: string) => {
    const { socket, received } = openSocket(service.url)
    socket.write(bytes)
    return received()
  }
  const host = 'Host: a\r\n'
  const cases: [string, string, Parameters<typeof matchProblem>[2]][] = [
    ['no HTTP', 'hello\r\n\r\n', 'malformed-request'],
    [
      'two framings',
      `POST / HTTP/1.1\r\n${host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n`,
      'malformed-request',
    ],
    ['16 KiB of headers', `GET / HTTP/1.1\r\n${host}x: ${'x'.repeat(17_000)}\r\n\r\n`, 'header-too-large'],
  ]
  for (const [name, bytes, code] of cases) {
    await t.test(name, async (t) => {
      const [response] = parseResponses(await exchange(bytes)) as [HttpResponse]
      matchProblem(t, response, code)
      t.equal(response.headers.connection, 'close')
      t.match(service.log(code).at(-1), { requestId: response.json.requestId })
    })
  }

  // Node raises this one by a timer; the event is the same.
  await t.test('a request that takes too long', async (t) => {
    const { received } = openSocket(service.url)
    const connected = once(service.app.server, 'connection')
    const [socket] = (await inTime(connected, 'the server to accept the connection')) as [Socket]
    const timeout = Object.assign(new Error('Request timeout'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' })
    service.app.server.emit('clientError', timeout, socket)
    const [response] = parseResponses(await received()) as [HttpResponse]
    matchProblem(t, response, 'request-timeout')
  })

  await t.test('a connection that the client has reset gets no response', async (t) => {
    const { received } = openSocket(service.url)
    const connected = once(service.app.server, 'connection')
    const [socket] = (await inTime(connected, 'the server to accept the connection')) as [Socket]
    const lines = service.log().length
    service.app.server.emit('clientError', Object.assign(new Error('reset'), { code: 'ECONNRESET' }), socket)
    t.ok(socket.destroyed)
    t.equal(await received(), '')
    t.equal(service.log().length, lines)
  })

  t.equal((await service.mint()).status, 201, 'the process lives')
})

t.test('an unexpected failure is shown to the operator only', async (t) => {
  const service = await build(t, {
    prepare: (app) => {
      app.get('/bug', async () => {
        JSON.parse('canary-secret is not JSON')
      })
      app.get('/coded', async () => {
        throw Object.assign(new Error('canary-secret'), { statusCode: 400, code: 'ENOENT' })
      })
      app.post('/odd', { schema: { body: { type: 'integer', multipleOf: 2 } } }, async () => {})
    },
  })

  for (const path of ['/bug', '/coded']) {
    const { status, json, text } = await send(service.url + path)
    t.strictSame([status, json.code], [500, 'internal-error'])
    t.notMatch(text, /canary|stack|SyntaxError/)
  }
  const odd = await send(`${service.url}/odd`, {
    method: 'POST',
    body: '1',
    headers: { 'content-type': 'application/json' },
  })
  t.strictSame(odd.json.errors, [{ pointer: '', code: 'invalid' }], 'nor a fault without a code of its own')
  t.notMatch(
    JSON.stringify(service.log()),
    'canary-secret',
    'not even in the log: the message may quote anything',
  )
  t.match(service.log('internal-error')[0], {
    level: 'error',
    outcome: 'internal-error',
    err: { name: 'Problem', cause: { name: 'SyntaxError', stack: /^at JSON\.parse/ } },
  })
})

t.test('every thrown value becomes a problem, and the log says what it was', async (t) => {
  const unreadable = Object.defineProperty(new Error('canary'), 'validation', {
    get() {
      throw new Error('canary')
    },
  })
  const untouchable = new Proxy(
    {},
    {
      getPrototypeOf() {
        throw new Error('canary')
      },
    },
  )
  const fastifys = (statusCode: unknown) =>
    Object.assign(new Error('canary'), { code: 'FST_CANARY', statusCode })
  const rows: [name: string, thrown: unknown, logged: object][] = [
    ['an Error', new Error('canary'), { err: { cause: { name: 'Error', stack: /^at / } } }],
    ['a frozen Error', Object.freeze(new Error('canary')), { err: { cause: { name: 'Error' } } }],
    ['a string', 'canary', { thrown: 'string', err: { cause: { name: 'string' } } }],
    ['undefined', undefined, { thrown: 'undefined' }],
    ['null', null, { thrown: 'null', err: { cause: { name: 'null' } } }],
    ['a number', 404, { thrown: 'number' }],
    ['a symbol', Symbol('canary'), { thrown: 'symbol' }],
    ['an object', { statusCode: 404, message: 'canary' }, { thrown: 'object' }],
    ['a member that throws', unreadable, { thrown: 'object' }],
    ['a proxy that throws', untouchable, { err: { cause: { name: 'unreadable error' } } }],
    [
      'status 200',
      Object.assign(new Error('canary'), { statusCode: 200 }),
      { err: { cause: { name: 'Error' } } },
    ],
    [
      'status 999',
      Object.assign(new Error('canary'), { statusCode: 999 }),
      { err: { cause: { name: 'Error' } } },
    ],
    ['status of Fastify', fastifys(999), { err: { cause: { code: 'FST_CANARY' } } }],
    ['no status', fastifys(Symbol('canary')), { err: { cause: { code: 'FST_CANARY' } } }],
    [
      'a code that is no text',
      Object.assign(new Error('canary'), { code: 42 }),
      { err: { cause: { code: '42' } } },
    ],
    ['a bug', null, { err: { cause: { name: 'null' } } }],
  ]
  let thrown: unknown
  const raise = () => {
    throw thrown
  }
  const service = await build(t, {
    prepare: (app) => {
      app.get('/sync', raise)
      app.get('/async', async () => raise())
      app.get('/rejects', () => Promise.reject(thrown))
      app.get('/hook', { preHandler: async () => raise() }, async () => 'ok')
      app.get('/on-send', { onSend: async () => raise() }, async () => ({ a: 1 }))
      app.get('/to-json', async () => ({ toJSON: raise }))
      app.get('/header', async (_request, reply) => {
        reply.header('x', 'canary\n')
        return 'ok'
      })
      app.get('/begun', async (_request, reply) => {
        reply.raw.writeHead(200).flushHeaders()
        raise()
      })
    },
  })
  for (const [name, value, logged] of rows) {
    thrown = value
    for (const path of ['/sync', '/async', '/rejects', '/to-json', '/hook', '/on-send']) {
      const response = await send(service.url + path)
      matchProblem(t, response, 'internal-error')
      t.notMatch(response.text, 'canary')
      const lines = service
        .log('internal-error')
        .filter(({ requestId }) => requestId === response.json.requestId)
      t.equal(lines.length, 1, `${path} ${name}`)
      // In hooks and serializers Fastify replaces some values by an error of its own.
      if (['/sync', '/async', '/rejects'].includes(path)) t.match(lines[0], logged, `${path} ${name}`)
    }
  }
  matchProblem(t, await send(`${service.url}/header`), 'internal-error')
  await t.rejects(
    send(`${service.url}/begun`),
    { code: 'UND_ERR_SOCKET' },
    'a response that has begun is cut',
  )
  t.notMatch(JSON.stringify(service.log()), 'canary')
  t.equal((await service.mint()).status, 201)
})

t.test('a problem with several causes says which it is, to the caller and in the log', async (t) => {
  const limits = { RATE_LIMIT_IP_PER_MINUTE: '1', RATE_LIMIT_COMPANY_PER_MINUTE: '2' }
  const service = await build(t, {
    env: limits,
    prepare: (app) =>
      // Node's parser waits for a whole body, so a hook shortens it.
      app.post('/short', { preParsing: async () => Readable.from([Buffer.from('{}')]) }, async () => {}),
  })
  const authorization = `Bearer ${await service.token()}`
  const several = `Bearer ${await service.token({ company_id: [] })}`
  const json = { 'content-type': 'application/json' }
  const rows: [
    ProblemDetail,
    { path?: string; headers?: Record<string, string | string[]>; body?: string | Buffer },
  ][] = [
    ['query-string', { path: `${path}?a` }],
    ['url-encoding', { path: '/%' }],
    ['repeated-field', { headers: { 'x-company-id': ['acme', 'acme'] } }],
    ['idempotency-key', { headers: { 'idempotency-key': 'two words' } }],
    ['not-utf8', { headers: json, body: Buffer.from([0x22, 0xff, 0x22]) }],
    ['not-json', { headers: json, body: '{"locale":' }],
    ['not-json', { headers: json, body: '{"__proto__":1}' }],
    ['long-number', { headers: json, body: '{"lifetime":12345678901234567}' }],
    ['content-type', { headers: { 'content-type': 'text/plain' }, body: '{}' }],
    ['content-type', { body: '{}' }],
    ['content-encoding', { headers: { ...json, 'content-encoding': 'gzip' }, body: '{}' }],
    ['header-count', { headers: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`x-${i}`, ''])) }],
    ['no-company', { headers: { authorization: several } }],
    ['company-not-listed', { headers: { 'x-company-id': 'globex' } }],
  ]
  for (const [detail, { path: url = path, headers, body }] of rows) {
    const response = await send(service.url + url, {
      method: 'POST',
      headers: { authorization, ...headers },
      ...(body !== undefined && { body }),
    })
    t.equal(response.json.detail, detailTexts[detail], detail)
    t.equal(service.log(response.json.code).at(-1)?.reason, detail)
  }
  const raw: [ProblemDetail, string][] = [
    ['http-syntax', 'hello\r\n\r\n'],
    ['no-host', `POST ${path} HTTP/1.1\r\nConnection: close\r\n\r\n`],
    ['header-bytes', `GET / HTTP/1.1\r\nHost: a\r\nx: ${'x'.repeat(17_000)}\r\n\r\n`],
  ]
  for (const [detail, bytes] of raw) {
    const { socket, received } = openSocket(service.url)
    socket.write(bytes)
    const [response] = parseResponses(await received()) as [HttpResponse]
    t.equal(response.json.detail, detailTexts[detail], detail)
    t.equal(service.log(response.json.code).at(-1)?.reason, detail)
  }
  const short = await send(`${service.url}/short`, { method: 'POST', headers: json, body: '{"a":1}' })
  t.equal(short.json.detail, detailTexts['body-length'])
  t.equal(service.log('malformed-request').at(-1)?.reason, 'body-length')
  const limited: [ProblemDetail, () => Promise<HttpResponse>][] = [
    ['address-limit', () => service.mint({ token: 'x' })],
    ['company-limit', () => service.mint({ body: { locale: 'lt' } })],
  ]
  for (const [detail, attempt] of limited) {
    let response = await attempt()
    for (let count = 0; count < 4 && response.status !== 429; count++) response = await attempt()
    t.equal(response.json.detail, detailTexts[detail], detail)
    t.equal(service.log('rate-limited').at(-1)?.reason, detail)
  }
})
