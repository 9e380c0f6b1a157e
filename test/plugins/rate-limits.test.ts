import t from 'tap'
import { createTokenSigner } from '../../src/sandbox/token-signer.js'
import { build, matchProblem, signer } from '../helper.js'

t.test('so many requests of a user, and those of others go on', async (t) => {
  const service = await build(t, { env: { RATE_LIMIT_USER_PER_MINUTE: '2' } })
  const first = await service.mint()
  t.equal(first.headers['ratelimit-policy'], '"user";q=2;w=60, "company";q=1000000;w=60')
  t.equal(first.headers.ratelimit, '"user";r=1;t=60, "company";r=999999;t=60')
  t.equal((await service.mint()).status, 201)

  const refused = await service.mint()
  matchProblem(t, refused, 'rate-limited')
  t.match(refused.headers['retry-after'], /^(60|59)$/)
  t.match(refused.headers.ratelimit, /^"user";r=0;t=\d+$/)
  t.equal((await service.mint({ token: await service.token({ sub: 'u-2' }) })).status, 201)
  t.equal((await service.arrived()).length, 3)
})

t.test('API4-1 one company at its limit does not slow another', async (t) => {
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

t.test('API4-2 failed authentications count by address, and hurt nobody with good credentials', async (t) => {
  const service = await build(t, {
    env: { RATE_LIMIT_IP_PER_MINUTE: '2', RATE_LIMIT_COMPANY_PER_MINUTE: '5' },
  })
  const stranger = await createTokenSigner('RS256', String(signer.publicJwk.kid))
  const forged = await service.token({}, {}, stranger)
  t.equal((await service.mint({ token: forged })).status, 401)
  t.equal((await service.mint({ headers: { authorization: '' } })).status, 401)
  const refused = await service.mint({ token: forged })
  matchProblem(t, refused, 'rate-limited')
  t.equal(refused.headers.ratelimit, undefined, 'no numbers before authentication')
  for (let i = 0; i < 5; i++) t.equal((await service.mint()).status, 201, 'forged claims used up nothing')
})

const fail = (service: Awaited<ReturnType<typeof build>>, address: string) =>
  service.mint({ token: 'x', headers: { 'x-forwarded-for': address } })

t.test('who was counted is still known after thousands of others', async (t) => {
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

  const wary = await build(t, { env })
  t.equal((await fail(wary, '203.0.113.1')).status, 401)
  t.equal((await fail(wary, '203.0.113.2')).status, 429, 'whoever connects cannot choose an address')
})
