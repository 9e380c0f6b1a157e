// Rule 5: what is revoked stops working within five minutes, also after an hour without requests.
import t, { type Test } from 'tap'
import { createTokenSigner } from '../../sandbox/token-signer.js'
import { build, createClock, matchProblem, send, until } from '../helper.js'
import { startKeyServer } from '../key-server.js'

const kept = await createTokenSigner('ES256', 'kept')
const withdrawn = await createTokenSigner('ES256', 'withdrawn')
const minute = 60
const hour = 60 * minute

/** The service, its provider with two keys, and tokens of either that outlast every test. */
async function start(t: Test) {
  const { clocks, pass } = createClock()
  const provider = await startKeyServer(t, kept.publicJwk, withdrawn.publicJwk)
  const service = await build(t, {
    ...clocks,
    env: { AUTH_JWKS_URL: provider.url, AUTH_MAX_TOKEN_LIFETIME_SECONDS: '31536000' },
  })
  const exp = Math.floor(clocks.now() / 1000) + 1000 * hour
  const tokenOf = {
    kept: await service.token({ exp }, {}, kept),
    withdrawn: await service.token({ exp }, {}, withdrawn),
  }
  const statusOf = async (token: string) => (await service.mint({ token })).status
  await until(() => provider.fetches.length === 1, 'the first fetch of the signing keys')
  t.equal(await statusOf(tokenOf.withdrawn), 201)
  return { service, provider, pass, tokenOf, statusOf, withdraw: () => (provider.keys = [kept.publicJwk]) }
}

for (const idle of [5 * minute, 6 * minute, hour, 20 * hour, 24 * hour, 25 * hour, 400 * hour]) {
  for (const count of [1, 30]) {
    t.test(`${count} request(s) with a withdrawn key, after ${idle / 60} minutes without any`, async (t) => {
      const { service, provider, pass, tokenOf, statusOf, withdraw } = await start(t)
      withdraw()
      pass(idle)
      const statuses = await Promise.all(Array.from({ length: count }, () => statusOf(tokenOf.withdrawn)))
      t.strictSame(new Set(statuses), new Set([401]))
      t.equal(service.log('invalid-token').at(-1)?.reason, 'unknown-key')
      t.equal(await statusOf(tokenOf.kept), 201)
      t.equal(provider.fetches.length, 2, 'all waited for one fetch')
    })
  }
}

t.test('a token that the service has never seen is no exception', async (t) => {
  const { service, pass, statusOf, withdraw } = await start(t)
  withdraw()
  pass(hour)
  t.equal(await statusOf(await service.token({ sub: 'u-2' }, {}, withdrawn)), 401)
})

t.test('a key that another one replaces under the same id', async (t) => {
  const { service, provider, pass, tokenOf, statusOf } = await start(t)
  const other = await createTokenSigner('ES256', 'withdrawn')
  provider.keys = [kept.publicJwk, other.publicJwk]
  pass(hour)
  t.equal(await statusOf(tokenOf.withdrawn), 401)
  t.equal(service.log('invalid-token').at(-1)?.reason, 'signature')
  t.equal(await statusOf(await service.token({ sub: 'u-2' }, {}, other)), 201)
})

t.test('a key that is marked for something else counts as withdrawn', async (t) => {
  for (const change of [{ use: 'enc' }, { key_ops: ['encrypt'] }, { alg: 'ES384' }, { alg: 'ECDH-ES' }]) {
    const { provider, pass, tokenOf, statusOf } = await start(t)
    provider.keys = [kept.publicJwk, { ...withdrawn.publicJwk, ...change }]
    pass(5 * minute)
    t.equal(await statusOf(tokenOf.withdrawn), 401, JSON.stringify(change))
  }
})

t.test('without any request the keys stay fresh, and the metric says so', async (t) => {
  const { service, provider, pass, statusOf, tokenOf } = await start(t)
  const { metrics } = service
  for (let passed = 0; passed < 12 * minute; passed += 4 * minute) {
    const before = provider.fetches.length
    pass(4 * minute)
    await until(() => provider.fetches.length === before + 1, 'the next fetch of the signing keys')
  }
  t.equal(await statusOf(tokenOf.kept), 201)
  t.match(await metrics(), /^signing_keys_age_seconds 0$/m)
})

t.test('a slow provider is waited for, also with a short deadline', async (t) => {
  const { clocks, pass } = createClock()
  const provider = await startKeyServer(t, kept.publicJwk, withdrawn.publicJwk)
  const service = await build(t, {
    ...clocks,
    env: { AUTH_JWKS_URL: provider.url, IDENFY_TIMEOUT_MS: '1200' },
  })
  const token = await service.token({ exp: Math.floor(clocks.now() / 1000) + 2 * hour }, {}, withdrawn)
  t.equal((await service.mint({ token })).status, 201)
  const set = JSON.stringify({ keys: [kept.publicJwk] })
  provider.respond = (_request, response) => setTimeout(() => response.end(set), 300)
  pass(hour)
  matchProblem(t, await service.mint({ token }), 'invalid-token')
})

t.test('a machine that was suspended asks at once: its monotonic clock has stood still', async (t) => {
  let suspendedMs = 0
  const provider = await startKeyServer(t, kept.publicJwk, withdrawn.publicJwk)
  const service = await build(t, {
    now: () => 1_800_000_000_000 + suspendedMs,
    monotonicNow: () => 1,
    env: { AUTH_JWKS_URL: provider.url },
  })
  const token = await service.token({ exp: 1_800_080_000 }, {}, withdrawn)
  t.equal((await service.mint({ token })).status, 201)
  provider.keys = [kept.publicJwk]
  suspendedMs = hour * 1000
  t.equal((await service.mint({ token })).status, 401)
})

t.test('while the provider is down the old keys go on, and at most until it is back', async (t) => {
  const { service, provider, pass, tokenOf, statusOf, withdraw } = await start(t)
  await provider.stop()
  pass(hour)
  t.equal(await statusOf(tokenOf.withdrawn), 201)
  t.match(await service.metrics(), /^signing_keys_age_seconds 3600$/m)
  await provider.comeBack()
  withdraw()
  pass(minute)
  t.equal(await statusOf(tokenOf.withdrawn), 401, 'the next fetch that is due has succeeded')
  t.match(await service.metrics(), /^signing_keys_age_seconds 0$/m)
})

t.test('a provider that is down for a day and more ends all keys', async (t) => {
  const { service, provider, pass, tokenOf, statusOf } = await start(t)
  const readiness = async () => (await send(`${service.managementUrl}/readyz`)).status
  await provider.stop()
  pass(24 * hour)
  t.equal(await statusOf(tokenOf.kept), 201)
  t.equal(await readiness(), 200)
  pass(1)
  matchProblem(t, await service.mint({ token: tokenOf.kept }), 'auth-keys-unavailable')
  t.equal(await readiness(), 503)
  t.match(await service.metrics(), /^signing_keys_age_seconds 86401$/m, 'the metric still tells the age')
  await provider.comeBack()
  pass(minute)
  t.equal(await readiness(), 200)
  t.equal(await statusOf(tokenOf.kept), 201)
})

t.test('a provider that is well makes no instance unready, however long it was idle', async (t) => {
  const { service, pass } = await start(t)
  for (const idle of [hour, 24 * hour, 25 * hour]) {
    pass(idle)
    t.equal((await send(`${service.managementUrl}/readyz`)).status, 200)
    pass(idle)
    t.match(await service.metrics(), /^signing_keys_age_seconds 0$/m)
  }
})
