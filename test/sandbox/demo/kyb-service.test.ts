import t from 'tap'
import { createKybToken } from '../../../sandbox/demo/kyb-service.js'
import { build } from '../../helper.js'

t.test('a token, and the same one for the same key', async (t) => {
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

t.test('a problem, and when to try again', async (t) => {
  const service = await build(t)
  const ask = async (accessToken: string) =>
    createKybToken({ serviceUrl: service.url, accessToken, idempotencyKey: 'key-1' })
  t.match(await ask('x'), { problem: { code: 'invalid-token' }, retryAfterSeconds: 0 })
  await service.setFault({ status: 429, times: 1 })
  t.match(await ask(await service.token()), {
    problem: { code: 'provider-rate-limited', outcome: 'not-created', retryable: true },
    retryAfterSeconds: 30,
  })
})

t.test('an unknown outcome names no time to retry', async (t) => {
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

t.test('no answer is no exception', async (t) => {
  const service = await build(t)
  await service.app.close()
  const request = { serviceUrl: service.url, accessToken: 'x', idempotencyKey: 'key-1' }
  t.strictSame(await createKybToken(request), { retryAfterSeconds: 0 })
})
