import { createServer } from 'node:http'
import { errors, jwtVerify } from 'jose'
import t, { type Test } from 'tap'
import { Agent } from 'undici'
import { createTokenSigner } from '../../src/sandbox/token-signer.js'
import { createSigningKeys } from '../../src/services/signing-keys.js'
import { listen } from '../helper.js'

const first = await createTokenSigner('ES256', 'first')
const second = await createTokenSigner('ES256', 'second')
const firstToken = await first.sign({})
const secondToken = await second.sign({})

/** A provider whose answer can change, keys fetched from it, and a clock that only the test moves. */
async function setUp(
  t: Test,
  answer: { status?: number; body: string; location?: string; silent?: boolean },
) {
  let fetches = 0
  const server = createServer((_request, response) => {
    fetches += 1
    if (answer.silent) return
    if (answer.location) response.setHeader('location', answer.location)
    response.statusCode = answer.status ?? 200
    response.end(answer.body)
  })
  const port = await listen(t, server)
  const dispatcher = new Agent({ maxResponseSize: 65_536 })
  t.teardown(async () => {
    await dispatcher.close()
    server.closeAllConnections()
  })
  const clock = { now: 0 }
  const failures: unknown[] = []
  const keys = createSigningKeys({
    url: `http://127.0.0.1:${port}/jwks`,
    dispatcher,
    onFetchFailed: (error) => failures.push(error),
    monotonicNow: () => clock.now,
    random: () => 1,
    fetchTimeoutMs: 500,
  })
  return {
    answer,
    keys,
    clock,
    failures,
    fetches: () => fetches,
    verify: (token: string) => jwtVerify(token, keys.resolve),
  }
}

const keySet = (...signers: { publicJwk: object }[]) =>
  JSON.stringify({ keys: signers.map(({ publicJwk }) => publicJwk) })

t.test('many requests at once, one fetch', async (t) => {
  const { keys, verify, fetches } = await setUp(t, { body: keySet(first) })
  t.equal(keys.isReady(), false)
  await Promise.all(Array.from({ length: 20 }, () => verify(firstToken)))
  t.equal(keys.isReady(), true)
  t.equal(fetches(), 1)
})

t.test('LIFE-03, LIFE-04 a rotation costs one fetch and no refusal', async (t) => {
  const { answer, verify, fetches } = await setUp(t, { body: keySet(first) })
  await verify(firstToken)
  answer.body = keySet(first, second)
  await Promise.all(Array.from({ length: 50 }, (_, index) => verify(index % 2 ? firstToken : secondToken)))
  t.equal(fetches(), 2)
})

t.test('made-up key ids do not drive traffic to the provider', async (t) => {
  const { clock, verify, fetches } = await setUp(t, { body: keySet(first) })
  await verify(firstToken)
  clock.now += 30_000
  for (let i = 0; i < 20; i++) await t.rejects(verify(secondToken), errors.JWKSNoMatchingKey)
  t.equal(fetches(), 2)
})

t.test('a withdrawn key goes within minutes', async (t) => {
  const { answer, clock, verify, fetches, keys } = await setUp(t, { body: keySet(first, second) })
  await verify(firstToken)
  answer.body = keySet(second)
  clock.now += 5 * 60_000
  await verify(firstToken)
  // The refresh was started without waiting for it; a token of an unknown key joins it.
  await t.rejects(verify(await (await createTokenSigner('ES256', 'third')).sign({})))
  await t.rejects(verify(firstToken), errors.JWKSNoMatchingKey)
  t.equal(fetches(), 3)
  t.equal(keys.isReady(), true)
})

t.test('without any keys it is not the token that is at fault', async (t) => {
  const { answer, clock, verify, fetches, failures, keys } = await setUp(t, { status: 503, body: '' })
  await t.rejects(verify(firstToken), { code: 'auth-keys-unavailable', status: 503 })
  await t.rejects(verify(firstToken), { code: 'auth-keys-unavailable' })
  t.equal(fetches(), 1, 'the second waits for the back-off')
  t.match(failures, [{ code: 'jwks-status' }])

  clock.now += 1000
  await t.rejects(verify(firstToken), { code: 'auth-keys-unavailable' })
  clock.now += 1000
  t.equal(keys.isReady(), false, 'the back-off has doubled')
  t.equal(fetches(), 2)

  answer.status = 200
  answer.body = keySet(first)
  clock.now += 1000
  t.equal(keys.isReady(), false, 'the probe starts a fetch')
  await verify(firstToken)
  t.equal(keys.isReady(), true)
})

t.test('the last good keys go on working while the provider is down', async (t) => {
  const good = keySet(first)
  const { answer, clock, verify, failures, keys } = await setUp(t, { body: good })
  await verify(firstToken)
  const bad = [
    { status: 500, body: good },
    { status: 302, body: good, location: '/elsewhere' },
    { body: '<html>' },
    { body: '{"keys":[]}' },
    { body: '{"keys":{}}' },
    { body: JSON.stringify({ keys: Array.from({ length: 51 }, () => first.publicJwk) }) },
    { body: `${good}${' '.repeat(65_536)}` },
  ]
  for (const [index, change] of bad.entries()) {
    Object.assign(answer, { status: 200, location: undefined }, change)
    clock.now += 5 * 60_000
    await t.rejects(verify(secondToken), errors.JWKSNoMatchingKey)
    t.equal(failures.length, index + 1)
    await verify(firstToken)
  }
  t.equal(keys.isReady(), true)
})

t.test('LIFE-02 but not for ever', async (t) => {
  const { answer, clock, verify, keys } = await setUp(t, { body: keySet(first) })
  t.equal(keys.ageSeconds(), undefined)
  await verify(firstToken)
  answer.status = 500
  clock.now += 24 * 60 * 60_000
  await verify(firstToken)
  t.equal(keys.ageSeconds(), 86_400)
  clock.now += 1
  t.equal(keys.isReady(), false)
  await t.rejects(verify(firstToken), { code: 'auth-keys-unavailable' })
})

t.test('LIFE-05 the back-off grows to a minute, and is spread', async (t) => {
  const { clock, verify, fetches } = await setUp(t, { status: 500, body: '' })
  for (const backoffMs of [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]) {
    const before = fetches()
    await t.rejects(verify(firstToken))
    t.equal(fetches(), before + 1)
    clock.now += backoffMs - 1
    await t.rejects(verify(firstToken))
    t.equal(fetches(), before + 1, `not before ${backoffMs} ms`)
    clock.now += 1
  }
})

t.test('LIFE-06, LIFE-10 a provider that never answers', async (t) => {
  const { verify, failures } = await setUp(t, { body: '', silent: true })
  await t.rejects(verify(firstToken), { code: 'auth-keys-unavailable' })
  t.match(failures, [{ name: 'TimeoutError' }])
})
