import { execFile, spawnSync } from 'node:child_process'
import { createServer } from 'node:http'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import {
  curlCommand,
  type Exchange,
  receivedFrom,
  receivedText,
  recordingFetch,
  requestText,
  responseText,
} from '../../../sandbox/demo/exchange.js'
import { createKybToken, type KybTokenRequest } from '../../../sandbox/demo/kyb-service.js'
import { build, listen } from '../../helper.js'

const missing = ['curl', 'sed'].filter((tool) => spawnSync(tool, ['--version'], { timeout: 60_000 }).error)
const missingTool = missing.length > 0 && `there is no ${missing.join(' and no ')} on this machine`

async function record(request: Omit<KybTokenRequest, 'fetch'>): Promise<Exchange> {
  const exchanges: Exchange[] = []
  await createKybToken({ ...request, fetch: recordingFetch((exchange) => exchanges.push(exchange)) })
  return exchanges[0] as Exchange
}

/** Runs a printed command and parses the response that it prints. */
async function run(command: string) {
  const { stdout } = await promisify(execFile)('sh', ['-c', command], { timeout: 60_000 })
  const [head = '', body = ''] = stdout.split('\r\n\r\n')
  return { head, json: JSON.parse(body) }
}

async function start(t: Test) {
  const service = await build(t)
  const accessToken = await service.token({ company_id: ['acme', 'globex'] })
  return {
    ...service,
    accessToken,
    request: { serviceUrl: service.url, accessToken, idempotencyKey: 'key-1' },
  }
}

t.test('a request is shown as it was sent, without the access token', async (t) => {
  const { url, accessToken, request } = await start(t)
  const exchange = await record({ ...request, companyId: 'globex', session: { locale: 'lt' } })
  t.equal(
    requestText(exchange),
    `POST ${url}/onboarding/kyb-token
Authorization: Bearer <access token>
Idempotency-Key: key-1
X-Company-Id: globex
Content-Type: application/json

{
  "locale": "lt"
}`,
  )
  t.equal(exchange.requestHeaders.Authorization, `Bearer ${accessToken}`)
  const unusable = await record({ ...request, accessToken: 'none' })
  t.match(requestText(unusable), /\nAuthorization: Bearer none\nIdempotency-Key: key-1$/)
})

t.test('a response is shown with its readable headers, without the KYB token', async (t) => {
  const { request, setFault } = await start(t)
  const exchange = await record({ ...request, companyId: 'acme' })
  const text = responseText(exchange)
  const { tokenString } = JSON.parse(String(exchange.response?.body))
  t.match(text, /^201 Created\nContent-Type: application\/json; charset=utf-8\nRateLimit: /)
  t.match(text, /\nX-Request-Id: [\w-]+\n\n\{\n/)
  t.match(text, '"tokenString": "<hidden>"')
  t.match(text, /"redirectUrl": "[^"]+\?authToken=<hidden>"/)
  t.notMatch(text, tokenString)
  t.match(responseText(await record({ ...request, companyId: 'acme' })), '\nIdempotency-Replayed: true\n')

  await setFault({ status: 429, times: 1 })
  const limited = responseText(await record({ ...request, companyId: 'globex' }))
  t.match(limited, /^503 Service Unavailable\n/)
  t.match(limited, /\nRetry-After: \d+\n/)
  t.match(limited, '"code": "provider-rate-limited"')
})

t.test('a page of a proxy is shown as it is', async (t) => {
  const proxy = createServer((_request, response) => response.writeHead(502).end('<h1>Bad gateway</h1>'))
  const serviceUrl = `http://127.0.0.1:${await listen(t, proxy)}`
  const exchange = await record({ serviceUrl, accessToken: 'x', idempotencyKey: 'key-1' })
  t.equal(responseText(exchange), '502 Bad Gateway\n\n<h1>Bad gateway</h1>')
})

t.test('without a response, the text says so', async (t) => {
  const { app, request } = await start(t)
  await app.close()
  t.match(responseText(await record(request)), /^No response, so there is no request id\. /)
})

t.test('what iDenfy received is shown without a number', async (t) => {
  const body = { tokenType: 'FORM', clientId: 'acme', externalRef: 'u-1' }
  const request = { number: 7, method: 'POST', url: '/kyb/tokens/', body }
  const text = `POST /kyb/tokens/\n\n${JSON.stringify(body, undefined, 2)}`
  t.equal(receivedText([request]), text)
  t.equal(receivedText([request, request]), `${text}\n\n${text}`)
  t.equal(receivedText([{ number: 8, method: 'GET', url: '/kyb/info/' }]), 'GET /kyb/info/')
  t.equal(receivedText([]), 'Nothing reached iDenfy.')
})

t.test('only the new requests of one user count', async (t) => {
  const requests = [
    { externalRef: 'u-ada-1' },
    { externalRef: 'u-ada-1' },
    { clientId: 'acme:u-ada-1', externalRef: null },
    { externalRef: 'u-ben-1' },
    undefined,
  ].map((body, index) => ({ number: index + 1, method: 'POST', url: '/kyb/tokens/', ...(body && { body }) }))
  const numbersOf = (lastNumber: number, userId?: string) =>
    receivedFrom(requests, lastNumber, userId).map(({ number }) => number)
  t.strictSame(numbersOf(1, 'u-ada-1'), [2, 3])
  t.strictSame(numbersOf(0, 'u-chris-1'), [])
  t.strictSame(numbersOf(1), [2, 3, 4], 'of all users')
})

t.test('any fetch is recorded', async (t) => {
  const { url } = await start(t)
  const exchanges: Exchange[] = []
  await recordingFetch((exchange) => exchanges.push(exchange))(`${url}/nowhere`)
  t.match(exchanges, [{ method: 'GET', requestHeaders: {}, response: { status: 404 } }])
})

t.test(
  'the curl command sends the same request with a new access token',
  { skip: missingTool },
  async (t) => {
    const { identityUrl, accessToken, request, arrived } = await start(t)
    const exchange = await record({ ...request, companyId: 'globex', session: { locale: 'lt' } })
    const command = curlCommand(exchange, identityUrl, { userId: 'u-1', companyIds: ['acme', 'globex'] })
    t.notMatch(command, accessToken)
    const { head, json } = await run(command)
    t.match(head, /^HTTP\/1\.1 201 Created\r\n/)
    t.match(head, /\r\nidempotency-replayed: true\r\n/i)
    t.strictSame(json, { ...JSON.parse(String(exchange.response?.body)), expiresIn: json.expiresIn })

    const withNewKey = await run(command.replace('key-1', 'key-2'))
    t.match(withNewKey.json, { clientId: 'globex', locale: 'lt' })
    t.strictSame(
      (await arrived()).map(({ clientId, locale }) => [clientId, locale]),
      [
        ['globex', 'lt'],
        ['globex', 'lt'],
      ],
    )
  },
)

t.test('the curl command of a refused request is refused too', { skip: missingTool }, async (t) => {
  const { identityUrl, request } = await start(t)
  const unusable = await record({ ...request, accessToken: 'none' })
  t.match((await run(curlCommand(unusable, identityUrl, undefined))).json, { code: 'invalid-token' })
})

t.test('the curl command keeps every character', { skip: missingTool }, async (t) => {
  const echo = createServer(async (request, response) => {
    const body = (await request.toArray()).join('')
    response.writeHead(400, { 'content-type': 'application/json' })
    response.end(JSON.stringify({ authorization: request.headers.authorization, body }))
  })
  const serviceUrl = `http://127.0.0.1:${await listen(t, echo)}`
  const text = `it's "$HOME" \\ $(exit) \`ls\``
  const exchange = await record({
    serviceUrl,
    accessToken: text,
    idempotencyKey: 'key-1',
    session: { tags: [text] },
  })
  const { json } = await run(curlCommand(exchange, serviceUrl, undefined))
  t.strictSame(json, JSON.parse(String(exchange.response?.body)))
  t.strictSame(JSON.parse(json.body), { tags: [text] })
})
