import t from 'tap'
import { createTokenSigner } from '../../sandbox/token-signer.js'
import { build, createClock, matchProblem, signer } from '../helper.js'

t.test('a user gets a limited number of new verifications, and other users are not limited', async (t) => {
  const { clocks } = createClock()
  const service = await build(t, {
    monotonicNow: clocks.monotonicNow,
    env: { RATE_LIMIT_USER_PER_MINUTE: '2', RATE_LIMIT_REQUESTS_PER_MINUTE: '9' },
  })
  const first = await service.mint()
  t.equal(first.headers['ratelimit-policy'], '"requests";q=9;w=60, "user";q=2;w=60, "company";q=1000000;w=60')
  t.equal(first.headers.ratelimit, '"requests";r=8;t=60, "user";r=1;t=60, "company";r=999999;t=60')
  t.equal((await service.mint()).status, 201)

  const refused = await service.mint()
  matchProblem(t, refused, 'rate-limited')
  t.equal(refused.headers['retry-after'], '60')
  t.equal(refused.headers.ratelimit, '"requests";r=6;t=60, "user";r=0;t=60')
  t.equal((await service.mint({ token: await service.token({ sub: 'u-2' }) })).status, 201)
  t.equal((await service.arrived()).length, 3)
})

t.test('a request that sends nothing to iDenfy is no new verification', async (t) => {
  const service = await build(t, {
    env: {
      RATE_LIMIT_USER_PER_MINUTE: '1',
      RATE_LIMIT_COMPANY_PER_MINUTE: '2',
      RATE_LIMIT_REQUESTS_PER_MINUTE: '1000',
      KYB_REPLAY_SECONDS: '30',
    },
  })
  const headers = { 'idempotency-key': 'k' }
  const first = await service.mint({ headers })
  t.equal(first.status, 201)
  for (let index = 0; index < 5; index++) {
    t.equal((await service.mint()).status, 201, 'a replay')
    t.equal((await service.mint({ headers })).status, 201, 'a stored response')
    t.equal((await service.mint({ body: { locale: 'zz' } })).status, 400, 'a request that is refused')
    t.equal((await service.mint({ headers, body: { locale: 'lt' } })).status, 422, 'another body')
  }
  const other = await service.mint({ token: await service.token({ sub: 'u-2' }) })
  t.equal(other.status, 201)
  matchProblem(t, await service.mint({ token: await service.token({ sub: 'u-3' }) }), 'rate-limited')
  t.equal((await service.mint()).status, 201, "the company's limit keeps no one from a token that is there")
  t.equal((await service.arrived()).length, 2, 'what is refused is not sent')
})

t.test('a user gets a limited number of requests, whatever their outcome', async (t) => {
  const { clocks, pass } = createClock()
  const service = await build(t, {
    monotonicNow: clocks.monotonicNow,
    env: { RATE_LIMIT_USER_PER_MINUTE: '3', RATE_LIMIT_REQUESTS_PER_MINUTE: '3' },
  })
  const body = { locale: 'zz' }
  for (let index = 0; index < 3; index++) t.equal((await service.mint({ body })).status, 400)
  const refused = await service.mint()
  matchProblem(t, refused, 'rate-limited')
  t.equal(refused.headers['ratelimit-policy'], '"requests";q=3;w=60')
  t.equal((await service.mint({ token: await service.token({ sub: 'u-2' }) })).status, 201)
  pass(61)
  t.equal((await service.mint()).status, 201)
})

t.test('limits keep to a clock that never goes back', async (t) => {
  const { clocks, pass } = createClock()
  let wall = Date.now()
  const service = await build(t, {
    now: () => wall,
    monotonicNow: clocks.monotonicNow,
    env: { RATE_LIMIT_USER_PER_MINUTE: '1' },
  })
  t.equal((await service.mint()).status, 201)
  pass(20)
  for (const jump of [-3_600_000, 7_200_000, -3_600_000]) {
    wall += jump
    const refused = await service.mint({ token: await service.token() })
    matchProblem(t, refused, 'rate-limited')
    t.equal(refused.headers['retry-after'], '40', `${jump} ms`)
  }
  pass(40)
  t.equal((await service.mint()).status, 201)
})

t.test('one company at its limit does not slow another', async (t) => {
  const service = await build(t, {
    env: { RATE_LIMIT_USER_PER_MINUTE: '1', RATE_LIMIT_COMPANY_PER_MINUTE: '2' },
  })
  const mint = async (company_id: string, sub: string) =>
    service.mint({ token: await service.token({ company_id, sub }) })
  t.equal((await mint('acme', 'u-1')).status, 201)
  for (let i = 0; i < 3; i++) t.equal((await mint('acme', 'u-1')).status, 429)
  t.equal((await mint('acme', 'u-2')).status, 201, "a user's surplus does not count for the company")
  const refused = await mint('acme', 'u-3')
  matchProblem(t, refused, 'rate-limited')
  t.match(refused.headers.ratelimit, /"company";r=0/)
  t.equal((await mint('globex', 'u-4')).status, 201)
})

t.test('failed authentications count by address, and do not limit users with valid tokens', async (t) => {
  const service = await build(t, {
    env: { RATE_LIMIT_IP_PER_MINUTE: '2', RATE_LIMIT_COMPANY_PER_MINUTE: '5' },
  })
  const otherSigner = await createTokenSigner('RS256', String(signer.publicJwk.kid))
  const forged = await service.token({}, {}, otherSigner)
  t.equal((await service.mint({ token: forged })).status, 401)
  t.equal((await service.mint({ headers: { authorization: '' } })).status, 401)
  const refused = await service.mint({ token: forged })
  matchProblem(t, refused, 'rate-limited')
  t.equal(refused.headers.ratelimit, undefined, 'no numbers before authentication')
  for (let i = 0; i < 5; i++) t.equal((await service.mint()).status, 201, 'forged claims used up nothing')
})

const fail = (service: Awaited<ReturnType<typeof build>>, address: string) =>
  service.mint({ token: 'x', headers: { 'x-forwarded-for': address } })

t.test('an address that was counted is still known after thousands of others', async (t) => {
  const service = await build(t, { env: { RATE_LIMIT_IP_PER_MINUTE: '1', TRUST_PROXY: '127.0.0.0/8' } })
  t.equal((await fail(service, '203.0.113.1')).status, 401)
  const others = Array.from({ length: 100 }, (_, index) => index)
  for (const net of others.slice(0, 60)) {
    await Promise.all(others.map((host) => fail(service, `198.18.${net}.${host}`)))
  }
  t.equal((await fail(service, '203.0.113.1')).status, 429)
})

t.test('addresses behind a proxy that is trusted', async (t) => {
  const env = { RATE_LIMIT_IP_PER_MINUTE: '1' }
  const trusting = await build(t, { env: { ...env, TRUST_PROXY: '127.0.0.0/8' } })
  t.equal((await fail(trusting, '203.0.113.1')).status, 401)
  t.equal((await fail(trusting, '203.0.113.2')).status, 401)
  t.equal((await fail(trusting, '203.0.113.1')).status, 429)
  t.equal((await fail(trusting, '2001:db8::1')).status, 401)
  t.equal((await fail(trusting, '2001:db8::2')).status, 429, 'an IPv6 network of 64 bits is one')

  for (const port of [1, 54321, 443]) {
    t.equal((await fail(trusting, `203.0.113.2:${port}`)).status, 429, 'a port is no part of an address')
    t.equal((await fail(trusting, `[2001:db8::3]:${port}`)).status, 429)
    t.equal(
      (await fail(trusting, `198.51.100.${port % 256}, 203.0.113.2:${port}`)).status,
      429,
      'nor of a proxy',
    )
  }
  t.equal((await fail(trusting, '203.0.113.9, 127.0.0.9:80')).status, 401, 'through two proxies')
  t.equal((await fail(trusting, '203.0.113.9, 127.0.0.9:81')).status, 429)
  const garbage = [
    'unknown',
    '',
    '_hidden',
    '203.0.113.4:x',
    '1.2.3.4.5',
    '[::1',
    'fe80::1%a',
    'fe80::1%b',
    'ä',
  ]
  t.equal((await fail(trusting, 'unknown')).status, 401)
  for (const text of garbage) t.equal((await fail(trusting, text)).status, 429, `${text} is the proxy itself`)

  const wary = await build(t, { env })
  t.equal((await fail(wary, '203.0.113.1')).status, 401)
  t.equal((await fail(wary, '203.0.113.2')).status, 429, 'a client cannot choose its address')
})
