import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync } from 'node:zlib'
import { jwtVerify } from 'jose'
import t, { type Test } from 'tap'
import { Agent } from 'undici'
import { createTokenSigner } from '../../../sandbox/token-signer.js'
import { systemClock } from '../../../src/clock.js'
import { fetchKeySet } from '../../../src/services/auth/fetch-key-set.js'
import { createSigningKeys } from '../../../src/services/auth/signing-keys.js'
import { startKeyServer } from '../../key-server.js'
import { inTime } from '../../waiting.js'

const first = await createTokenSigner('ES256', 'first')
const second = await createTokenSigner('ES256', 'second')
const firstToken = await first.sign({})
const secondToken = await second.sign({})
const unavailable = { code: 'auth-keys-unavailable', status: 503 }
const unknownKey = { code: 'invalid-token', options: { diagnosis: { reason: 'unknown-key' } } }

/** A provider whose response can change, keys fetched from it, and a clock that only the test moves. */
async function setUp(t: Test, ...published: unknown[]) {
  const provider = await startKeyServer(t, ...published)
  const dispatcher = new Agent({ maxResponseSize: 65_536, pipelining: 0 })
  t.teardown(() => dispatcher.destroy())
  const clock = { now: 0 }
  const failures: unknown[] = []
  const ignored: unknown[] = []
  const keys = createSigningKeys({
    fetchKeySet: (signal) => fetchKeySet({ url: provider.url, dispatcher, userAgent: 'test/1' }, signal),
    algorithms: ['ES256'],
    onFetchFailed: (error) => failures.push(error),
    onKeysIgnored: (list) => ignored.push(list),
    clock: { ...systemClock, now: () => clock.now, monotonicNow: () => clock.now },
    random: () => 1,
    fetchTimeoutMs: 500,
    unknownKeyIntervalMs: 1000,
  })
  return {
    provider,
    keys,
    clock,
    failures,
    ignored,
    fetches: () => provider.fetches.length,
    verify: (token: string) => jwtVerify(token, (header) => keys.resolve(header, keys.fetches())),
    fail: () => {
      provider.respond = (_request, response) => response.writeHead(500).end()
    },
  }
}

t.test('many requests at once, one fetch', async (t) => {
  const { keys, verify, fetches } = await setUp(t, first.publicJwk)
  await Promise.all(Array.from({ length: 20 }, () => verify(firstToken)))
  t.equal(await keys.isReady(), true)
  t.equal(fetches(), 1)
})

t.test('a rotation costs one fetch and no refusal', async (t) => {
  const { provider, verify, fetches } = await setUp(t, first.publicJwk)
  await verify(firstToken)
  provider.keys = [first.publicJwk, second.publicJwk]
  await Promise.all(Array.from({ length: 50 }, (_, index) => verify(index % 2 ? firstToken : secondToken)))
  t.equal(fetches(), 2)
})

t.test('a fetch says who asks', async (t) => {
  const { provider, verify } = await setUp(t, first.publicJwk)
  await verify(firstToken)
  t.equal(provider.fetches[0]?.['user-agent'], 'test/1')
})

t.test('a set that comes compressed, although not asked for', async (t) => {
  const body = JSON.stringify({ keys: [first.publicJwk] })
  const rows: [string, Buffer | string][] = [
    ['gzip', gzipSync(body)],
    ['X-GZIP', gzipSync(body)],
    ['br', brotliCompressSync(body)],
    ['deflate', deflateSync(body)],
    ['deflate', deflateRawSync(body)],
    ['gzip, br', brotliCompressSync(gzipSync(body))],
    ['identity', body],
    ['identity', `\ufeff${body}`],
  ]
  for (const [encoding, bytes] of rows) {
    const { provider, verify } = await setUp(t)
    provider.respond = (_request, response) => response.setHeader('content-encoding', encoding).end(bytes)
    await t.resolves(verify(firstToken), encoding)
  }
})

t.test('members that are not used are reported once, as long as they are the same', async (t) => {
  const { provider, keys, clock, ignored, verify } = await setUp(t, first.publicJwk, null)
  await verify(firstToken)
  const refresh = async () => {
    clock.now += 5 * 60_000
    await keys.refreshIfStale()
  }
  await refresh()
  t.strictSame(ignored, [[{ kid: undefined, reason: 'not-an-object' }]])
  provider.keys = [first.publicJwk]
  await refresh()
  t.equal(ignored.length, 2)
})

t.test('keys are fetched before they are old, also without requests', async (t) => {
  const { keys, clock, fetches, verify } = await setUp(t, first.publicJwk)
  keys.refreshIfDue()
  await verify(firstToken)
  clock.now += 4 * 60_000 - 1
  keys.refreshIfDue()
  await verify(firstToken)
  t.equal(fetches(), 1)
  clock.now += 1
  keys.refreshIfDue()
  keys.refreshIfDue()
  await keys.refetch(1)
  t.equal(fetches(), 2)
})

t.test('without any keys it is not the token that is at fault', async (t) => {
  const { provider, clock, verify, fetches, failures, keys, fail } = await setUp(t, first.publicJwk)
  fail()
  await t.rejects(verify(firstToken), unavailable)
  await t.rejects(verify(firstToken), unavailable)
  t.equal(fetches(), 1, 'the second waits for the back-off')
  t.match(failures, [{ code: 'jwks-status' }])
  clock.now += 1000
  t.equal(await keys.isReady(), false)
  clock.now += 1000
  await t.rejects(keys.refetch(keys.fetches()), unavailable, 'the back-off has doubled')
  t.equal(fetches(), 2)
  t.equal(await keys.ageSeconds(), 2, 'since the start')

  provider.respond = undefined
  clock.now += 1000
  t.equal(await keys.isReady(), true, 'a probe waits for the fetch')
  await verify(firstToken)
})

t.test('the back-off grows to a minute, and is spread', async (t) => {
  const { clock, verify, fetches, fail } = await setUp(t)
  fail()
  for (const backoffMs of [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]) {
    const before = fetches()
    await t.rejects(verify(firstToken), unavailable)
    t.equal(fetches(), before + 1)
    clock.now += backoffMs - 1
    await t.rejects(verify(firstToken), unavailable)
    t.equal(fetches(), before + 1, `not before ${backoffMs} ms`)
    clock.now += 1
  }
})

t.test('a provider that never responds', async (t) => {
  const { provider, verify, failures } = await setUp(t)
  provider.respond = () => {}
  await t.rejects(verify(firstToken), unavailable)
  t.match(failures, [{ name: 'TimeoutError' }])
})

t.test('an unknown key that comes while a fetch is on its way waits for the next one', async (t) => {
  const { provider, verify, fetches } = await setUp(t, first.publicJwk)
  await verify(firstToken)
  const early = verify(secondToken)
  const late = new Promise((resolve) => {
    provider.respond = (_request, response) => {
      // Published while the response with the old set is on its way.
      response.end(JSON.stringify({ keys: [first.publicJwk] }))
      provider.respond = undefined
      provider.keys = [first.publicJwk, second.publicJwk]
      resolve(verify(secondToken))
    }
  })
  await t.rejects(early, unknownKey)
  await t.resolves(inTime(late, 'the token with the new key to be accepted'))
  t.equal(fetches(), 3)
})

t.test('a withdrawn key is not looked for again by the requests that come with it', async (t) => {
  const { provider, clock, verify, fetches } = await setUp(t, first.publicJwk, second.publicJwk)
  await verify(firstToken)
  provider.keys = [second.publicJwk]
  clock.now += 5 * 60_000
  for (let index = 0; index < 30; index++) await t.rejects(verify(firstToken), unknownKey)
  t.equal(fetches(), 2)
  clock.now += 1000
  provider.keys = [first.publicJwk, second.publicJwk]
  await t.resolves(verify(firstToken), 'until a second later')
})
