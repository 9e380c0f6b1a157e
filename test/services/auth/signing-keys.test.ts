import { type CryptoKey, importJWK, type JWK, jwtVerify } from 'jose'
import t from 'tap'
import { createTokenSigner } from '../../../sandbox/token-signer.js'
import { createSigningKeys } from '../../../src/services/auth/signing-keys.js'
import { createVirtualClock } from '../../virtual-clock.js'

const first = await createTokenSigner('ES256', 'first')
const second = await createTokenSigner('ES256', 'second')
const firstToken = await first.sign({})
const secondToken = await second.sign({})
const unavailable = { code: 'auth-keys-unavailable', status: 503 }
const unknownKey = { code: 'invalid-token', options: { diagnosis: { reason: 'unknown-key' } } }
const aSecond = 1_000
const minute = 60 * aSecond
const hour = 60 * minute

/** A provider whose response can change, keys fetched from it, and a clock that only the test moves. */
function setUp(published: unknown[], options: { readonly random?: () => number } = { random: () => 1 }) {
  const virtual = createVirtualClock()
  const provider = {
    keys: published,
    fetches: 0,
    /** Responds instead, from now on; `undefined` is well again. */
    respond: undefined as ((signal: AbortSignal) => Promise<string>) | undefined,
  }
  const failures: unknown[] = []
  const ignored: unknown[] = []
  const keys = createSigningKeys({
    fetchKeySet: async (signal) => {
      provider.fetches += 1
      if (provider.respond) return provider.respond(signal)
      return JSON.stringify({ keys: provider.keys })
    },
    algorithms: ['ES256'],
    onFetchFailed: (error) => failures.push(error),
    onKeysIgnored: (list) => ignored.push(list),
    clock: virtual.clock,
    ...options,
    fetchTimeoutMs: 500,
    unknownKeyIntervalMs: aSecond,
  })
  return {
    ...virtual,
    provider,
    keys,
    failures,
    ignored,
    verify: (token: string) => jwtVerify(token, (header) => keys.resolve(header, keys.fetches())),
    /** Looks for a key of this id, for a token that has just arrived. */
    resolve: (kid: string) => keys.resolve({ alg: 'ES256', kid }, keys.fetches()),
    fail: () => {
      provider.respond = () => Promise.reject(new Error('lost'))
    },
    recover: () => {
      provider.respond = undefined
    },
    /** Uses the five fetches for unknown keys that need no wait. */
    exhaust: async (name = 'made-up') => {
      for (let index = 0; index < 5; index++) {
        await t.rejects(keys.resolve({ alg: 'ES256', kid: `${name}-${index}` }, keys.fetches()), unknownKey)
      }
    },
  }
}

/** A response that the test sends. */
function slowly() {
  let send = (_text: string) => {}
  const text = new Promise<string>((resolve) => {
    send = resolve
  })
  return { respond: () => text, send: (...keys: unknown[]) => send(JSON.stringify({ keys })) }
}

t.test('many requests at once, one fetch', async (t) => {
  const { keys, verify, provider } = setUp([first.publicJwk])
  t.equal(keys.fetches(), 0)
  await Promise.all(Array.from({ length: 20 }, () => verify(firstToken)))
  t.equal(await keys.isReady(), true)
  t.equal(provider.fetches, 1)
  t.equal(keys.fetches(), 1)
})

t.test('a rotation costs one fetch and no refusal', async (t) => {
  const { provider, verify } = setUp([first.publicJwk])
  await verify(firstToken)
  provider.keys = [first.publicJwk, second.publicJwk]
  await Promise.all(Array.from({ length: 50 }, (_, index) => verify(index % 2 ? firstToken : secondToken)))
  t.equal(provider.fetches, 2)
})

t.test('members that are not used are reported once, as long as they are the same', async (t) => {
  const { provider, keys, ignored, skip } = setUp([first.publicJwk, null])
  const refresh = async () => {
    skip(5 * minute)
    await keys.refreshIfStale()
  }
  await refresh()
  await refresh()
  t.strictSame(ignored, [[{ kid: undefined, reason: 'not-an-object' }]])
  provider.keys = [first.publicJwk]
  await refresh()
  t.strictSame(ignored.slice(1), [[]])
  await refresh()
  t.equal(ignored.length, 2)
  const sound = setUp([first.publicJwk])
  await sound.keys.refreshIfStale()
  t.strictSame(sound.ignored, [], 'nothing is reported of a set that is sound')
})

t.test('keys are used for five minutes, from the begin of their fetch', async (t) => {
  const { provider, keys, verify, skip, pass } = setUp([])
  const slow = slowly()
  provider.respond = slow.respond
  const verified = verify(firstToken)
  await pass(400)
  slow.send(first.publicJwk)
  await verified
  provider.respond = undefined
  provider.keys = [second.publicJwk]
  skip(5 * minute - 401)
  t.equal(keys.refreshIfStale(), undefined)
  await verify(firstToken)
  t.equal(provider.fetches, 1)
  skip(1)
  await t.rejects(verify(firstToken), unknownKey)
  t.equal(provider.fetches, 2)
})

t.test('a machine that was suspended has old keys: one of its clocks has stood still', async (t) => {
  const { provider, verify, setWallClock, clock } = setUp([first.publicJwk])
  await verify(firstToken)
  setWallClock(clock.now() + 5 * minute)
  await verify(firstToken)
  t.equal(provider.fetches, 2)
  setWallClock(clock.now() - hour)
  await verify(firstToken)
  t.equal(provider.fetches, 2, 'a wall clock that is set back changes nothing')
})

t.test('keys are fetched before they are old, also without requests', async (t) => {
  const { keys, provider, verify, skip, pass } = setUp([first.publicJwk])
  keys.refreshIfDue()
  t.equal(provider.fetches, 1)
  await verify(firstToken)
  skip(4 * minute - 1)
  keys.refreshIfDue()
  await verify(firstToken)
  t.equal(provider.fetches, 1)
  skip(1)
  keys.refreshIfDue()
  keys.refreshIfDue()
  t.equal(provider.fetches, 2)
  await pass(0)
  await verify(firstToken)
  t.equal(provider.fetches, 2)
})

t.test('a probe does not wait for newer keys while the old ones can be used', async (t) => {
  const { keys, provider, verify, skip } = setUp([first.publicJwk])
  await verify(firstToken)
  skip(10 * minute)
  t.equal(await keys.isReady(), true)
  t.equal(provider.fetches, 1)
})

t.test('without any keys it is not the token that is at fault', async (t) => {
  const { verify, provider, failures, keys, fail, recover, skip } = setUp([first.publicJwk])
  fail()
  await t.rejects(verify(firstToken), unavailable)
  await t.rejects(verify(firstToken), unavailable)
  t.equal(provider.fetches, 1, 'the second waits for the back-off')
  t.match(failures, [{ message: 'lost' }])
  skip(aSecond)
  t.equal(await keys.isReady(), false)
  skip(aSecond)
  await t.rejects(keys.refetch(keys.fetches()), unavailable, 'the back-off has doubled')
  t.equal(provider.fetches, 2)
  t.equal(await keys.ageSeconds(), 2, 'since the start')

  recover()
  skip(aSecond)
  t.equal(await keys.isReady(), true, 'a probe waits for the fetch')
  t.equal(await keys.ageSeconds(), 0)
  await verify(firstToken)
})

t.test('the age is that of the last success, and asking for it refreshes old keys', async (t) => {
  const { keys, provider, skip, fail } = setUp([first.publicJwk])
  t.equal(await keys.ageSeconds(), 0)
  t.equal(provider.fetches, 1)
  skip(299 * aSecond)
  t.equal(await keys.ageSeconds(), 299)
  skip(aSecond)
  t.equal(await keys.ageSeconds(), 0)
  t.equal(provider.fetches, 2)
  fail()
  skip(301_500)
  t.equal(await keys.ageSeconds(), 301.5)
  t.equal(provider.fetches, 3)
})

t.test('the back-off grows to a minute, and begins again after a success', async (t) => {
  const { verify, provider, fail, recover, skip } = setUp([first.publicJwk])
  fail()
  for (const backoffMs of [1, 2, 4, 8, 16, 32, 60, 60].map((seconds) => seconds * aSecond)) {
    const before = provider.fetches
    await t.rejects(verify(firstToken), unavailable)
    t.equal(provider.fetches, before + 1)
    skip(backoffMs - 1)
    await t.rejects(verify(firstToken), unavailable)
    t.equal(provider.fetches, before + 1, `not before ${backoffMs} ms`)
    skip(1)
  }
  recover()
  await verify(firstToken)
  fail()
  skip(5 * minute)
  await verify(firstToken)
  const before = provider.fetches
  skip(999)
  await verify(firstToken)
  t.equal(provider.fetches, before)
  skip(1)
  await verify(firstToken)
  t.equal(provider.fetches, before + 1)
})

t.test('the back-off is spread between its half and its whole', async (t) => {
  for (const [random, backoffMs] of [
    [0, 500],
    [0.5, 750],
  ] as const) {
    const { verify, provider, fail, skip } = setUp([], { random: () => random })
    fail()
    await t.rejects(verify(firstToken), unavailable)
    skip(backoffMs - 1)
    await t.rejects(verify(firstToken), unavailable)
    t.equal(provider.fetches, 1)
    skip(1)
    await t.rejects(verify(firstToken), unavailable)
    t.equal(provider.fetches, 2)
  }
  const { verify, provider, fail, skip } = setUp([], {})
  fail()
  await t.rejects(verify(firstToken), unavailable)
  skip(499)
  await t.rejects(verify(firstToken), unavailable)
  t.equal(provider.fetches, 1)
  skip(501)
  await t.rejects(verify(firstToken), unavailable)
  t.equal(provider.fetches, 2)
})

t.test('a provider that never responds is given up', async (t) => {
  const { provider, verify, failures, pass } = setUp([])
  let signal: AbortSignal | undefined
  provider.respond = (given) => {
    signal = given
    return new Promise(() => {})
  }
  const rejected = t.rejects(verify(firstToken), unavailable)
  await pass(499)
  t.equal(failures.length, 0)
  await pass(1)
  await rejected
  t.match(failures, [{ name: 'TimeoutError' }])
  t.equal(signal?.aborted, true)
})

t.test('a set that cannot be used is a failed fetch', async (t) => {
  const { provider, verify, failures } = setUp([])
  provider.respond = async () => '<html>'
  await t.rejects(verify(firstToken), unavailable)
  t.match(failures, [{ code: 'jwks-not-json' }])
})

t.test('old keys are used for a day while no newer ones can be fetched', async (t) => {
  const { keys, verify, fail, recover, skip, provider } = setUp([first.publicJwk])
  const { key } = await verify(firstToken)
  fail()
  skip(24 * hour)
  await verify(firstToken)
  t.equal(keys.has(key as CryptoKey), true)
  t.equal(await keys.isReady(), true)
  skip(1)
  await t.rejects(verify(firstToken), unavailable)
  t.equal(keys.has(key as CryptoKey), false)
  const before = provider.fetches
  skip(minute)
  t.equal(await keys.isReady(), false)
  t.equal(provider.fetches, before + 1)
  recover()
  skip(minute)
  t.equal(await keys.isReady(), true)
})

t.test('a key counts while it is in the set in use, and was used from it', async (t) => {
  const { keys, verify, provider, skip } = setUp([first.publicJwk, second.publicJwk])
  const imported = (await importJWK(first.publicJwk as JWK, 'ES256')) as CryptoKey
  t.equal(keys.has(imported), false)
  const { key } = await verify(firstToken)
  t.equal(keys.has(key as CryptoKey), true)
  t.equal(keys.has(imported), false, 'another object')
  provider.keys = [second.publicJwk]
  skip(5 * minute)
  await keys.refreshIfStale()
  t.equal(keys.has(key as CryptoKey), false)
})

t.test('an unknown key that comes while a fetch is on its way waits for the next one', async (t) => {
  const { provider, verify } = setUp([first.publicJwk])
  await verify(firstToken)
  const slow = slowly()
  provider.respond = slow.respond
  const early = t.rejects(verify(secondToken), unknownKey)
  while (provider.fetches < 2) await new Promise(setImmediate)
  const late = verify(secondToken)
  provider.respond = undefined
  // Published while the response with the old set is on its way.
  provider.keys = [first.publicJwk, second.publicJwk]
  slow.send(first.publicJwk)
  await early
  await t.resolves(late)
  t.equal(provider.fetches, 3)
})

t.test('a withdrawn key is not looked for again by the requests that come with it', async (t) => {
  const { provider, verify, skip } = setUp([first.publicJwk, second.publicJwk])
  await verify(firstToken)
  provider.keys = [second.publicJwk]
  skip(5 * minute)
  for (let index = 0; index < 30; index++) await t.rejects(verify(firstToken), unknownKey)
  t.equal(provider.fetches, 2)
  provider.keys = [first.publicJwk, second.publicJwk]
  skip(999)
  await t.rejects(verify(firstToken), unknownKey)
  skip(1)
  await t.resolves(verify(firstToken), 'until a second later')
})

t.test('a new key is found although another one was just withdrawn', async (t) => {
  const { provider, verify, skip } = setUp([first.publicJwk])
  await verify(firstToken)
  provider.keys = []
  const third = await createTokenSigner('ES256', 'third')
  provider.keys = [third.publicJwk]
  skip(5 * minute)
  await t.rejects(verify(firstToken), unknownKey)
  provider.keys = [second.publicJwk]
  await t.resolves(verify(secondToken))
  t.equal(provider.fetches, 3)
})

t.test('made-up key ids cause five fetches at once, and then one a second', async (t) => {
  const { resolve, provider, exhaust, keys, pass, nextTimerMs, verify, skip } = setUp([first.publicJwk])
  await keys.refreshIfStale()
  await exhaust()
  t.equal(provider.fetches, 6)
  provider.keys = [first.publicJwk, second.publicJwk]
  const waiting = [
    t.rejects(resolve('x'), unknownKey),
    t.rejects(resolve('y'), unknownKey),
    verify(secondToken),
  ]
  await pass(0)
  t.equal(nextTimerMs(), aSecond)
  await pass(999)
  t.equal(provider.fetches, 6)
  await pass(1)
  await Promise.all(waiting)
  t.equal(provider.fetches, 7, 'they share it')
  await verify(secondToken)
  t.equal(provider.fetches, 7)

  skip(3 * aSecond)
  for (let index = 0; index < 3; index++) await t.rejects(resolve(`z-${index}`), unknownKey)
  t.equal(provider.fetches, 10, 'three more after three seconds')
  const next = t.rejects(resolve('z'), unknownKey)
  await pass(0)
  t.equal(nextTimerMs(), aSecond)
  await pass(aSecond)
  await next
  skip(hour)
  await keys.refreshIfStale()
  const before = provider.fetches
  await exhaust('again')
  t.equal(provider.fetches, before + 5, 'and not more than five after an hour')
  const last = t.rejects(resolve('last'), unknownKey)
  await pass(0)
  t.equal(nextTimerMs(), aSecond)
  await pass(aSecond)
  await last
})

t.test('one made-up key id, again and again, neither waits nor fetches', async (t) => {
  const { resolve, provider, exhaust, keys, pendingTimers } = setUp([first.publicJwk])
  await keys.refreshIfStale()
  await exhaust()
  for (let index = 0; index < 10; index++) await t.rejects(resolve('made-up-4'), unknownKey)
  t.equal(provider.fetches, 6)
  t.equal(pendingTimers(), 0)
})

t.test('a thousand made-up key ids are remembered, and not more', async (t) => {
  const { resolve, provider, exhaust, keys, pass, pendingTimers } = setUp([first.publicJwk])
  await keys.refreshIfStale()
  await exhaust()
  const all = Array.from({ length: 1_001 }, (_, index) => t.rejects(resolve(`k-${index}`), unknownKey))
  await pass(aSecond)
  await Promise.all(all)
  t.equal(provider.fetches, 7)
  for (const index of [0, 999]) await t.rejects(resolve(`k-${index}`), unknownKey)
  t.equal(pendingTimers(), 0)
  const forgotten = t.rejects(resolve('k-1000'), unknownKey)
  await pass(0)
  t.equal(pendingTimers(), 1)
  await pass(aSecond)
  await forgotten
  t.equal(provider.fetches, 8)
})

t.test('while fetches fail, an unknown key is not the fault of the token', async (t) => {
  const { resolve, provider, keys, fail, skip } = setUp([first.publicJwk])
  await keys.refreshIfStale()
  fail()
  await t.rejects(resolve('x'), unavailable)
  t.equal(provider.fetches, 2)
  await t.rejects(resolve('x'), unavailable, 'also during the back-off')
  t.equal(provider.fetches, 2)
  skip(aSecond)
  await t.rejects(resolve('x'), unavailable)
  t.equal(provider.fetches, 3)
})

t.test('during the back-off no unknown key waits for its turn to fetch', async (t) => {
  const { resolve, keys, exhaust, fail, pass, provider } = setUp([first.publicJwk])
  await keys.refreshIfStale()
  await exhaust()
  fail()
  const failing = t.rejects(resolve('x'), unavailable)
  await pass(aSecond)
  await failing
  t.equal(provider.fetches, 7)
  let error: unknown
  resolve('y').catch((refusal) => {
    error = refusal
  })
  await pass(0)
  t.match(error, unavailable)
})

t.test('a key that was withdrawn is not known to be gone while fetches fail', async (t) => {
  const { provider, verify, keys, fail, skip } = setUp([first.publicJwk, second.publicJwk])
  await verify(firstToken)
  provider.keys = [second.publicJwk]
  skip(5 * minute)
  await keys.refreshIfStale()
  await t.rejects(verify(firstToken), unknownKey)
  fail()
  await t.rejects(keys.resolve({ alg: 'ES256', kid: 'made-up' }, keys.fetches()), unavailable)
  await t.rejects(verify(firstToken), unavailable)
})

t.test(
  'a set is fetched again for a token that may have a new key, but not twice for the same one',
  async (t) => {
    const { keys, provider } = setUp([first.publicJwk])
    await t.rejects(keys.refetch(0), unavailable, 'without a set there is nothing to compare with')
    await keys.refreshIfStale()
    t.equal(await keys.refetch(0), false, 'this set came after the token')
    t.equal(provider.fetches, 1)
    t.equal(await keys.refetch(1), true)
    t.equal(provider.fetches, 2)
    t.equal(await keys.refetch(1), false)
    t.equal(provider.fetches, 2)
  },
)

t.test('a token that could mean two keys is refused', async (t) => {
  const anonymous = (jwk: JWK) => ({ ...jwk, kid: undefined })
  const { keys } = setUp([anonymous(first.publicJwk), anonymous(second.publicJwk)])
  await t.rejects(keys.resolve({ alg: 'ES256' }, 0), {
    code: 'invalid-token',
    options: { diagnosis: { reason: 'ambiguous-key' } },
    cause: { code: 'ERR_JWKS_MULTIPLE_MATCHING_KEYS' },
  })
})
