import { createServer } from 'node:http'
import t from 'tap'
import { createKybToken, newIdempotencyKey } from '../../../sandbox/demo/kyb-service.js'
import { build, listen } from '../../helper.js'

t.test('the same key gets the same token', async (t) => {
  const service = await build(t)
  const request = {
    serviceUrl: service.url,
    accessToken: await service.token({ company_id: ['acme', 'globex'] }),
    companyId: 'globex',
    idempotencyKey: 'key-1',
    session: { locale: 'lt' },
  } as const
  const first = await createKybToken(request)
  t.match(first, { token: { clientId: 'globex', locale: 'lt' }, isReplayed: false })
  t.match(await createKybToken(request), { ...first, isReplayed: true })
})

t.test('a failure has a problem and says when to retry', async (t) => {
  const service = await build(t)
  const send = async (accessToken: string) =>
    createKybToken({ serviceUrl: service.url, accessToken, idempotencyKey: 'key-1' })
  t.match(await send('x'), { problem: { code: 'invalid-token' }, retryAfterSeconds: 0 })
  await service.setFault({ status: 429, times: 1 })
  t.match(await send(await service.token()), {
    problem: { code: 'provider-rate-limited', outcome: 'not-created', retryable: true },
    retryAfterSeconds: 30,
  })
})

t.test('an unknown outcome has no time to retry', async (t) => {
  const service = await build(t)
  await service.setFault({ drop: 'before-headers', times: 1 })
  const request = { serviceUrl: service.url, accessToken: await service.token(), idempotencyKey: 'key-1' }
  t.match(await createKybToken(request), {
    problem: { code: 'provider-outcome-unknown', outcome: 'unknown' },
    retryAfterSeconds: 0,
  })
})

t.test('a request whose signal is aborted is not sent, and is no exception', async (t) => {
  const service = await build(t)
  const outcome = await createKybToken({
    serviceUrl: service.url,
    accessToken: await service.token(),
    idempotencyKey: 'key-1',
    signal: AbortSignal.abort(),
  })
  t.strictSame(outcome, { retryAfterSeconds: 0 })
  t.strictSame(await service.received(), [])
})

t.test('no response is no exception', async (t) => {
  const service = await build(t)
  await service.app.close()
  const request = { serviceUrl: service.url, accessToken: 'x', idempotencyKey: 'key-1' }
  t.strictSame(await createKybToken(request), { retryAfterSeconds: 0 })
})

t.test('a response that is not of the service has no problem', async (t) => {
  for (const contentType of ['application/json', 'text/html']) {
    const proxy = createServer((_request, response) => {
      response
        .writeHead(502, { 'content-type': contentType, 'retry-after': '30' })
        .end('{"message":"Bad gateway"}')
    })
    const serviceUrl = `http://127.0.0.1:${await listen(t, proxy)}`
    t.strictSame(await createKybToken({ serviceUrl, accessToken: 'x', idempotencyKey: 'key-1' }), {
      retryAfterSeconds: 0,
    })
  }
  const untyped = createServer((_request, response) => response.writeHead(502).end('{}'))
  const serviceUrl = `http://127.0.0.1:${await listen(t, untyped)}`
  t.strictSame(await createKybToken({ serviceUrl, accessToken: 'x', idempotencyKey: 'key-1' }), {
    retryAfterSeconds: 0,
  })
})

t.test('every idempotency key is new', async (t) => {
  const keys = Array.from({ length: 100 }, newIdempotencyKey)
  t.equal(new Set(keys).size, 100)
  for (const key of keys) t.match(key, /^[0-9a-f]{32}$/)
})
