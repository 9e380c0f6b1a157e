import createClient from 'openapi-fetch'
import t from 'tap'
import type { paths } from '../../../sandbox/demo/service-api.js'
import { build } from '../../helper.js'

// The compiler is part of this test: what openapi.json no longer says, it no longer takes.
t.test('a client made of openapi.json', async (t) => {
  const service = await build(t, { env: { KYB_REPLAY_SECONDS: '30' } })
  const client = createClient<paths>({
    baseUrl: service.url,
    fetch: (request) => fetch(request, { signal: AbortSignal.timeout(60_000) }),
  })
  const post = async (token: string, idempotencyKey?: string) =>
    client.POST('/onboarding/kyb-token', {
      params: {
        header: { 'X-Company-Id': 'acme', ...(idempotencyKey && { 'Idempotency-Key': idempotencyKey }) },
      },
      headers: { authorization: `Bearer ${token}` },
      body: { locale: 'lt' },
    })

  const first = await post(await service.token(), 'key-1')
  const again = await post(await service.token(), 'key-1')
  t.equal(first.response.status, 201)
  t.equal(again.response.headers.get('Idempotency-Replayed'), 'true')
  t.ok(first.data?.redirectUrl)
  t.equal(again.data?.redirectUrl, first.data?.redirectUrl)

  const { error } = await post('x')
  t.equal(error?.code, 'invalid-token')
  t.equal(error?.retryable, false)

  const faulty = await client.POST('/onboarding/kyb-token', {
    headers: { authorization: `Bearer ${await service.token()}` },
    // @ts-expect-error: no locale of iDenfy's
    body: { locale: 'xx' },
  })
  t.strictSame(faulty.error?.errors, [{ pointer: '/locale', code: 'not-a-choice' }])
})
