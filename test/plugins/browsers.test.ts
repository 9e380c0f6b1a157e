import t from 'tap'
import { build, send } from '../helper.js'

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
    'access-control-allow-headers': 'Authorization, Content-Type, Idempotency-Key, X-Company-Id',
    'access-control-max-age': '7200',
    vary: /Origin/,
  })
  t.equal(preflight.headers['access-control-allow-credentials'], undefined)

  for (const answer of [
    await service.mint({ headers: { origin } }),
    await service.mint({ token: 'x', headers: { origin } }),
  ]) {
    t.match(answer.headers, {
      'access-control-allow-origin': origin,
      'access-control-expose-headers': 'Idempotency-Replayed, RateLimit, RateLimit-Policy, Retry-After',
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
    const answer = await service.mint({ headers: { origin: other } })
    t.equal(answer.headers['access-control-allow-origin'], undefined, other)
    t.match(answer.headers.vary, /Origin/)
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
  ]
  for (const answer of [await service.mint(), await send(`${service.url}/none`)]) {
    const { 'cache-control': cacheControl, ...rest } = answer.headers
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
