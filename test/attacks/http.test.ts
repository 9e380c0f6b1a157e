import { once } from 'node:events'
import t, { type Test } from 'tap'
import { build, type HttpResponse, inTime, matchProblem, openSocket, parseResponses } from '../helper.js'

const path = '/onboarding/kyb-token'

async function start(t: Test) {
  const service = await build(t)
  const token = await service.token()
  /** Sends lines as they are and reads the responses until the server closes, which `Connection: close` asks for. */
  const exchange = async (lines: string[], body = ''): Promise<HttpResponse[]> => {
    const { socket, received } = openSocket(service.url)
    socket.write(`${lines.join('\r\n')}\r\n\r\n${body}`, 'latin1')
    return parseResponses(await received())
  }
  const good = [`POST ${path} HTTP/1.1`, 'Host: a', `Authorization: Bearer ${token}`, 'Connection: close']
  return { ...service, token, exchange, good }
}

t.test('a request that breaks HTTP is refused and its connection closed', async (t) => {
  const { exchange, mint } = await start(t)
  const head = [`POST ${path} HTTP/1.1`, 'Host: a']
  const rows: [string, string[], string?][] = [
    ['two framings', [...head, 'Content-Length: 2', 'Transfer-Encoding: chunked'], '0\r\n\r\n'],
    ['two lengths', [...head, 'Content-Length: 2', 'Content-Length: 2'], '{}'],
    ['unknown coding', [...head, 'Transfer-Encoding: xchunked'], '{}'],
    ['coding after chunked', [...head, 'Transfer-Encoding: chunked, identity'], '{}'],
    ['bare CR', [...head, 'X: a\rb']],
    ['NUL', [...head, 'X: a\0b']],
    ['folded', [...head, 'X: a', ' b']],
    ['long chunk extension', [...head, 'Transfer-Encoding: chunked'], `1;${'x'.repeat(20_000)}\r\n{\r\n`],
    ['unknown version', ['GET / HTTP/9.9', 'Host: a']],
    ['HTTP/2', ['PRI * HTTP/2.0'], 'SM\r\n\r\n'],
    ['control character', [...head, 'X-Request-Id: \u001b']],
    ['negative length', [...head, 'Content-Length: -1']],
    ['space before the colon', [...head, 'Content-Length : 2'], '{}'],
  ]
  for (const [name, lines, body] of rows) {
    await t.test(name, async (t) => {
      const [response] = await exchange(lines, body)
      matchProblem(t, response as HttpResponse, 'malformed-request')
      t.equal(response?.headers.connection, 'close')
    })
  }
  t.equal((await mint()).status, 201, 'the process still runs')
})

t.test('ambiguous and unsupported requests are refused, unusual valid ones are accepted', async (t) => {
  const { exchange, good, token, arrived } = await start(t)
  const json = ['Content-Type: application/json', 'Content-Length: 2']
  const refused: [Parameters<typeof matchProblem>[2], string, string[], string?][] = [
    ['malformed-request', 'no Host', good.filter((line) => !line.startsWith('Host'))],
    ['malformed-request', 'two Hosts', [...good, 'Host: b']],
    ['malformed-request', 'two equal Hosts', [...good, 'hOST: a']],
    ['malformed-request', 'two Authorizations', [...good, `Authorization: Bearer ${token}`]],
    ['malformed-request', 'two content types', [...good, ...json, 'Content-Type: application/json'], '{}'],
    ['malformed-request', 'a query', good.with(0, `POST ${path}?clientId=evil HTTP/1.1`)],
    ['malformed-request', 'an empty query', good.with(0, `POST ${path}? HTTP/1.1`)],
    ['expectation-failed', 'an odd expectation', [...good, 'Expect: bogus']],
    ['unsupported-media-type', 'an encoded body', [...good, ...json, 'Content-Encoding: gzip'], '{}'],
    ['unsupported-media-type', 'any encoding', [...good, ...json, 'Content-Encoding: identity'], '{}'],
    ['unsupported-media-type', 'a body of no type', [...good, 'Content-Length: 2'], '{}'],
    ['payload-too-large', 'a length that is too much', [...good, json[0] ?? '', 'Content-Length: 99999999']],
    [
      'header-too-large',
      'too many fields',
      [...good, ...Array.from({ length: 62 }, (_, index) => `X-${index}: 1`)],
    ],
    ['header-too-large', 'too long fields', [...good, `X: ${'x'.repeat(17_000)}`]],
    ['not-found', 'a query elsewhere', ['GET /?a HTTP/1.1', 'Host: a', 'Connection: close']],
  ]
  for (const type of [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/xml',
    'application/json\ta',
    'application/json; charset=utf-16',
    'application/json; charset=utf-8; x=y',
    'application/json, text/plain',
    'application/vnd.api+json',
    'application/jsonx',
  ]) {
    const name = `content type ${JSON.stringify(type)}`
    refused.push([
      'unsupported-media-type',
      name,
      [...good, `Content-Type: ${type}`, 'Content-Length: 2'],
      '{}',
    ])
  }
  for (const [code, name, lines, body] of refused) {
    await t.test(name, async (t) => {
      const [response] = await exchange(lines, body)
      matchProblem(t, response as HttpResponse, code)
    })
  }
  t.strictSame(await arrived(), [])

  const accepted: [string, string[], string?][] = [
    ['HTTP/1.0', good.with(0, `POST ${path} HTTP/1.0`)],
    [
      'HTTP/1.0 without a host',
      good.filter((line) => !line.startsWith('Host')).with(0, `POST ${path} HTTP/1.0`),
    ],
    ['100-continue', [...good, ...json, 'Expect: 100-continue'], '{}'],
    ['spaces before the type', [...good, 'Content-Type:   application/json', 'Content-Length: 2'], '{}'],
    ['case and an empty parameter', [...good, 'Content-Type: APPLICATION/JSON;', 'Content-Length: 2'], '{}'],
    [
      'a charset in quotes',
      [...good, 'Content-Type: application/json; charset="UTF-8"', 'Content-Length: 2'],
      '{}',
    ],
    ['a byte order mark', [...good, json[0] ?? '', 'Content-Length: 5'], '\u00ef\u00bb\u00bf{}'],
    ['a request id of the client', [...good, 'X-Request-Id: "}{\\"level\\":60']],
    ['an Accept header for another format', [...good, 'Accept: text/html']],
    ['a field named __proto__', [...good, '__proto__: x', 'constructor: y']],
  ]
  for (const [name, lines, body] of accepted) {
    t.equal((await exchange(lines, body)).at(-1)?.status, 201, name)
  }
  t.equal((await arrived()).length, accepted.length)
})

t.test('a request smuggled into a body is not executed', async (t) => {
  const { exchange, good, arrived, token } = await start(t)
  const smuggled = `POST ${path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\n\r\n`
  const lines = [...good, 'Content-Type: application/json', `Content-Length: ${smuggled.length}`]
  const responses = await exchange(lines, smuggled)
  t.strictSame(
    responses.map(({ json }) => json.code),
    ['malformed-request'],
  )
  t.strictSame(await arrived(), [])
})

t.test('each pipelined request is authenticated on its own', async (t) => {
  const { exchange, good } = await start(t)
  const open = good.filter((line) => !line.startsWith('Connection'))
  const anonymous = `POST ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`
  const responses = await exchange(open, anonymous)
  t.strictSame(
    responses.map(({ status }) => status),
    [201, 401],
  )
})

t.test('CONNECT gets no response', async (t) => {
  const { url } = await start(t)
  const { socket, received } = openSocket(url)
  socket.write('CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n')
  t.equal(await received(), '')
})

t.test('a body that is not exactly what JSON and the schema allow is refused', async (t) => {
  const { mint, exchange, good } = await start(t)
  const post = async (text: string) => {
    const lines = [
      ...good,
      'Content-Type: application/json',
      `Content-Length: ${Buffer.byteLength(text, 'latin1')}`,
    ]
    return (await exchange(lines, text))[0] as HttpResponse
  }
  for (const text of [
    'NaN',
    'Infinity',
    '{"lifetime":01}',
    '{"lifetime":NaN}',
    '{"locale":"en",}',
    '{/**/}',
    "{'a':1}",
    '{"a":"\t"}',
  ]) {
    t.equal((await post(text)).json.code, 'malformed-request', `body ${text}`)
  }
  for (const text of ['{"lifetime":1e400}', '{"lifetime":-0}']) {
    t.equal((await post(text)).json.code, 'validation-failed', `body ${text}`)
  }
  for (const text of ['{"__proto__":{}}', '{"\\u005f_proto__":{}}', '{"constructor":{"prototype":{}}}']) {
    t.equal((await post(text)).json.code, 'malformed-request', `body ${text}`)
  }
  for (const bytes of [
    '\xff',
    '\xc3(',
    '\xe2\x82',
    '\xc0\xaf',
    '\xed\xa0\x80',
    '\xf4\x90\x80\x80',
    'caf\xe9',
    '\xef\xbf',
  ]) {
    for (const text of [`{"tags":["a${bytes}"]}`, `{"${bytes}":1}`, `{"locale":"lt"}${bytes}`]) {
      t.equal((await post(text)).json.code, 'malformed-request', `not UTF-8: ${JSON.stringify(text)}`)
    }
  }
  t.equal(
    (await post('{"lifetime":3600.00000000000000001}')).json.code,
    'malformed-request',
    'a lossy number',
  )
  t.equal((await post('{"lifetime":9007199254740993}')).json.code, 'malformed-request')
  t.equal((await post('{"lifetime":3.6e3}')).json.code, 'field-not-permitted', 'a number that is exact')
  t.equal((await post('{"scanRefs":["12345678901234567890"]}')).json.code, 'field-not-permitted')
  t.equal((await post('{"scanRefs":["\\"12345678901234567890"]}')).json.code, 'field-not-permitted')
  const doubled = await post('{"locale":"zz","locale":"en"}')
  t.equal(
    doubled.json.locale,
    'en',
    'the last of two equal names counts, in the check and in the request to iDenfy',
  )
  const colliding = JSON.stringify(
    Object.fromEntries(Array.from({ length: 400 }, (_, index) => [`${index}`, 0])),
  )
  t.equal((await post(colliding)).json.code, 'validation-failed', 'many properties')
  const texts = ['a\u0000', 'a\n', '\u0085', '\u202ea', '\u2066', '\ud800', '\udc00x']
  for (const text of texts) {
    for (const [property, value] of Object.entries({ tags: [text], scanRefs: [text], questionnaire: text })) {
      const { json } = await mint({ body: { [property]: value } })
      t.equal(json.errors[0].code, 'wrong-format', `${property} ${JSON.stringify(text)}`)
    }
  }
  const script = await mint({ body: { locale: '<script>' } })
  t.notMatch(script.text, 'script', 'the response does not repeat the value')
  t.equal(script.headers['x-content-type-options'], 'nosniff')
})

t.test('a request that arrives too slowly is ended', async (t) => {
  const limits = { headersTimeoutMs: 150, requestTimeoutMs: 300, timeoutCheckMs: 20 }
  const service = await build(t, { limits })
  const token = await service.token()
  await service.mint({ token })

  await t.test('headers', async (t) => {
    const { socket, received } = openSocket(service.url)
    socket.write(`POST ${path} HTTP/1.1\r\nHost: a\r\n`)
    const [response] = parseResponses(await received())
    matchProblem(t, response as HttpResponse, 'request-timeout')
  })
  await t.test('nothing at all', async (t) => {
    const { received } = openSocket(service.url)
    const [response] = parseResponses(await received())
    matchProblem(t, response as HttpResponse, 'request-timeout')
  })
  await t.test('a body', async (t) => {
    const { socket, received } = openSocket(service.url)
    const begun = once(service.app.server, 'request')
    socket.write(
      `POST ${path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{`,
    )
    await inTime(begun, 'the request to arrive')
    const [response] = parseResponses(await received())
    matchProblem(t, response as HttpResponse, 'request-timeout')
  })
  t.equal((await service.arrived()).length, 1)
  t.equal((await service.mint({ token })).status, 201)
})

t.test('connections above the limit are closed and counted', async (t) => {
  const service = await build(t, { limits: { connections: 1 } })
  const first = openSocket(service.url)
  await inTime(once(service.app.server, 'connection'), 'the server to accept the connection')
  t.equal(await openSocket(service.url).received(), '')
  t.match(await service.metrics(), /^http_connections_dropped_total 1$/m)
  first.socket.destroy()
  await first.received()
})

t.test('the host of a request target is not used, and no header names the server software', async (t) => {
  const { exchange, good, arrived } = await start(t)
  const [response] = await exchange(good.with(0, `POST http://169.254.169.254${path} HTTP/1.1`))
  t.equal(response?.status, 201)
  t.equal((await arrived()).length, 1, 'the host in the request target is not used')
  t.equal(response?.headers.server, undefined)
  t.equal(response?.headers['x-powered-by'], undefined)
})
