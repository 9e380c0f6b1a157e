import t, { type Test } from 'tap'
import { httpResponse, type Script, startFaultServer } from '../../fault-server.js'
import { build, matchProblem } from '../../helper.js'

const now = Date.parse('2026-11-23T12:00:00Z')
const goodToken = { tokenString: 'T0ken', expiration: '2026-11-23T13:00:00Z' }

async function mintAgainst(t: Test, script: Script) {
  const { url } = await startFaultServer(t, script)
  const service = await build(t, { now: () => now, env: { IDENFY_BASE_URL: url } })
  service.secrets.add(goodToken.tokenString)
  return { service, response: await service.mint() }
}

t.test('a token needs little: the reader is tolerant', async (t) => {
  const { response } = await mintAgainst(
    t,
    httpResponse('201 Created', { ...goodToken, surprise: { tokenString: 1 } }),
  )
  t.equal(response.status, 201)
  t.strictSame(response.json, {
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
  const { response } = await mintAgainst(t, httpResponse('201 Created', { ...goodToken, ...nulls }))
  t.equal(response.status, 201)
})

t.test('a full token under another 2xx is a success, and the drift is told', async (t) => {
  for (const status of ['200 OK', '202 Accepted']) {
    const { service, response } = await mintAgainst(t, httpResponse(status, goodToken))
    t.equal(response.status, 201)
    t.match(
      service.log().filter(({ event }) => event === 'idenfy-contract-drift'),
      [
        {
          level: 'warn',
          upstreamStatus: Number(status.slice(0, 3)),
          requestId: response.headers['x-request-id'],
        },
      ],
    )
  }
})

t.test('a response that breaks the contract is never passed on', async (t) => {
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
    ['a list', 'not-a-token', httpResponse('201 Created', '[]')],
    ['null', 'not-a-token', httpResponse('201 Created', 'null')],
    ['broken JSON', 'not-a-token', httpResponse('201 Created', '{"tokenString":"T0ken')],
    ['called HTML', 'not-json', httpResponse('201 Created', goodToken, { 'Content-Type': 'text/html' })],
    ['of no type', 'not-json', `HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}`],
    ['encoded', 'encoded', httpResponse('201 Created', goodToken, { 'Content-Encoding': 'gzip' })],
    ['no content', 'not-json', 'HTTP/1.1 204 No Content\r\n\r\n'],
    [
      'a redirect',
      'redirect',
      httpResponse('307 Temporary Redirect', '', { Location: 'http://127.0.0.1:1/' }),
    ],
  ]
  function created(change: object): string {
    return httpResponse('201 Created', { ...goodToken, ...change })
  }
  for (const [name, reason, bytes] of cases) {
    await t.test(name, async (t) => {
      const { service, response } = await mintAgainst(t, bytes)
      matchProblem(t, response, 'provider-bad-response', { outcome: 'unknown' })
      t.match(service.log('provider-bad-response'), [{ level: 'error', reason }])
    })
  }
})

t.test("iDenfy's Retry-After is passed on, within limits", async (t) => {
  const cases: [string, Parameters<typeof matchProblem>[2], string, string][] = [
    ['429 Too Many Requests', 'provider-rate-limited', '7', '7'],
    ['429 Too Many Requests', 'provider-rate-limited', '0', '1'],
    ['429 Too Many Requests', 'provider-rate-limited', '86400', '300'],
    ['429 Too Many Requests', 'provider-rate-limited', 'Mon, 23 Nov 2026 12:10:00 GMT', '30'],
  ]
  for (const [status, code, retryAfter, expected] of cases) {
    const { response } = await mintAgainst(t, httpResponse(status, 'busy', { 'Retry-After': retryAfter }))
    t.equal(response.json.code, code)
    t.equal(response.headers['retry-after'], expected, `${retryAfter} → ${expected}`)
  }
  for (const status of ['402 Payment Required', '500 Oops', '503 Service Unavailable', '504 Oops']) {
    const { response } = await mintAgainst(t, httpResponse(status, '{}', { 'Retry-After': '7' }))
    t.equal(response.headers['retry-after'], undefined, `${status} must not look retryable`)
  }
})
