import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t, { type Test } from 'tap'
import { createTokenSigner } from '../../sandbox/token-signer.js'
import { build, type HttpResponse, openSocket, parseResponses, send, signer, until } from '../helper.js'
import { createPrometheus, needsPromtool } from '../prometheus.js'

const path = '/onboarding/kyb-token'
const rounds = 440

t.test('ten thousand requests of misdelivered raise no alarm and fill no memory', async (t: Test) => {
  const service = await build(t, {
    env: { CORS_ORIGINS: 'https://app.acme.example', RATE_LIMIT_IP_PER_MINUTE: '300' },
  })
  const good = await service.token()
  t.equal((await service.mint({ token: good })).status, 201)
  const prometheus = createPrometheus()
  prometheus.add('a', service.metrics)
  await prometheus.wait(1)
  const seriesBefore = (await service.metrics()).split('\n').length
  const linesBefore = service.log().filter(({ msg }) => msg === 'request').length

  const otherSigner = await createTokenSigner('RS256', String(signer.publicJwk.kid))
  const unknown = await createTokenSigner('RS256', 'a-key-of-no-one')
  const tokens = [
    'x',
    'a.b.c',
    `${good}x`,
    await service.token({}, {}, otherSigner),
    await service.token({}, {}, unknown),
    await service.token({ iss: 'https://evil.example' }),
    await service.token({ aud: 'other' }),
    await service.token({ exp: 1 }),
    await service.token({}, { typ: 'logout+jwt' }),
    `${Buffer.from('{"alg":"none"}').toString('base64url')}.${good.split('.')[1]}.`,
  ]
  const head = (line: string, ...fields: string[]) =>
    [`${line} HTTP/1.1`, 'Host: a', ...fields, '', ''].join('\r\n')
  const withBody = (line: string, ...fields: string[]) => `${head(line, ...fields)}{}`
  const json = 'Content-Type: application/json'
  /** Whole requests, which a kept connection can take one after the other. */
  const whole = [
    head(`POST ${path}`),
    ...tokens.map((token) => head(`POST ${path}`, `Authorization: Bearer ${token}`)),
    withBody(`POST ${path}`, 'Authorization: Basic YTpi', json, 'Content-Length: 2'),
    ...['GET', 'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND'].map((method) => head(`${method} ${path}`)),
    head('GET /.env'),
    head('GET /%'),
    withBody('POST /wp-login.php?a=b', json, 'Content-Length: 2'),
    head(`OPTIONS ${path}`, 'Origin: https://evil.example', 'Access-Control-Request-Method: POST'),
  ]
  /** What ends a connection. */
  const last = [
    'hello\r\n\r\n',
    head('GET /', 'X: a\0b'),
    head('GET /', `X: ${'x'.repeat(17_000)}`),
    head('GET /', ...Array.from({ length: 70 }, (_, index) => `X-${index}: 1`), 'Connection: close'),
    head(`POST ${path}`, json, 'Content-Length: 99999999', 'Connection: close'),
    withBody(`POST ${path}`, json, 'Expect: nothing', 'Content-Length: 2', 'Connection: close'),
  ]
  const heapBefore = heapUsed()
  let sent = 0
  const responses: HttpResponse[] = []
  for (let round = 0; round < rounds; round++) {
    const { socket, received } = openSocket(service.url)
    const ends = last[round % last.length] ?? ''
    socket.write(whole.join('') + ends)
    sent += whole.length + 1
    const text = await received()
    if (round === 0) responses.push(...parseResponses(text))
    // Some never wait for a response.
    const hasty = openSocket(service.url)
    hasty.socket.write(head(`POST ${path}`, json, 'Content-Length: 100'))
    if (round % 2) hasty.socket.resetAndDestroy()
    else hasty.socket.end()
    await hasty.closed()
  }
  t.ok(sent >= 10_000, `${sent} requests`)
  t.equal(responses.length, whole.length, 'a response to each whole request')
  t.strictSame([...new Set(responses.map(({ status }) => status))].sort(), [400, 401, 403, 404, 405])

  const outcomes = service
    .log()
    .filter(({ msg }) => msg === 'request')
    .slice(linesBefore)
    .map(({ outcome }) => String(outcome))
  t.ok(outcomes.length >= sent, `${outcomes.length} lines`)
  for (const outcome of ['internal-error', 'overloaded', 'auth-keys-unavailable', 'success']) {
    t.notOk(outcomes.includes(outcome), outcome)
  }
  t.equal(
    (await service.metrics()).split('\n').length,
    seriesBefore,
    'no series is named after an unauthenticated client',
  )
  await prometheus.wait(10)
  prometheus.expectNoneSoFar()
  await t.test('and promtool finds no alert that fires', needsPromtool, prometheus.check)
  t.ok(heapUsed() - heapBefore < 40 * 1024 * 1024, 'memory beside the log of this test')
  await until(
    async () => (await send(`${service.managementUrl}/readyz`)).status === 200,
    'the readiness check to return 200',
  )
  t.equal((await service.mint({ token: good })).status, 201, 'a user is served as before')
})

/** After a collection: what was not collected yet says nothing. */
function heapUsed(): number {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  return process.memoryUsage().heapUsed
}
