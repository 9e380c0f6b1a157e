import type { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { build, inTime, matchProblem, type Overrides, until } from '../helper.js'
import { connectRedis, needsRedis, startRedis, stateKey } from '../redis-server.js'

type Service = Awaited<ReturnType<typeof build>>

const otherKey = Buffer.alloc(32, 'o').toString('base64')
const newKey = Buffer.alloc(32, 'n').toString('base64')
const isUp = async (service: Service) => /^redis_up 1$/m.test(await service.metrics())
const changes = (service: Service) =>
  service.log().flatMap(({ msg }) => /^Redis (available|unavailable)/.exec(String(msg))?.[1] ?? [])
const causes = (service: Service) =>
  service.log().flatMap(({ msg, cause }) => (/^Redis unavailable/.test(String(msg)) ? [cause] : []))
const tokenOf = ({ json }: Awaited<ReturnType<Service['mint']>>): string => json.tokenString

/** Two replicas with one Redis, one iDenfy and one identity provider. */
async function start(t: Test, env: Record<string, string | undefined> = {}, second: Overrides['env'] = {}) {
  const redis = await startRedis(t)
  const first = await build(t, { env: { ...redis.env, KYB_REPLAY_SECONDS: undefined, ...env } })
  const peers = { peers: first, env: { ...redis.env, KYB_REPLAY_SECONDS: undefined, ...env, ...second } }
  const replicas = [first, await build(t, peers)] as const
  const client = connectRedis(t, redis.env.REDIS_URL, { lazyConnect: true, retryStrategy: () => null })
  return {
    redis,
    replicas,
    client,
    posts: async () => (await first.arrived()).length,
    setFault: first.setFault,
    /** The keys of tokens, not of limits. */
    keys: async () => (await client.keys('*')).filter((key) => !/:rate:|:probe$/.test(key)),
  }
}

t.test('two replicas act as one', needsRedis, async (t) => {
  t.test('identical requests in flight on both replicas share one POST', async (t) => {
    const { replicas, posts, setFault } = await start(t, { KYB_REPLAY_SECONDS: '0' })
    await setFault({ delayMs: 200 })
    const token = await replicas[0].token()
    const responses = await Promise.all(
      Array.from({ length: 20 }, (_, index) => (replicas[index % 2] as Service).mint({ token })),
    )
    t.strictSame([...new Set(responses.map(({ status }) => status))], [201])
    t.equal(new Set(responses.map(tokenOf)).size, 1)
    t.equal(await posts(), 1)
  })

  t.test('failures are shared too', async (t) => {
    const { replicas, posts, setFault } = await start(t)
    await setFault({ delayMs: 200, status: 429, times: 1 })
    const token = await replicas[0].token()
    const responses = await Promise.all(replicas.map((replica) => replica.mint({ token })))
    for (const response of responses) {
      matchProblem(t, response, 'provider-rate-limited', { outcome: 'not-created' })
      t.equal(response.headers['retry-after'], '30')
    }
    t.equal(await posts(), 1)
    t.match(
      replicas.flatMap((replica) => replica.log('provider-rate-limited').map(({ reason }) => reason)).sort(),
      ['shared-result', undefined],
    )
    t.equal((await replicas[0].mint()).status, 201, 'which are not kept')
  })

  t.test('a success on one replica is replayed on the other, for no longer than on its own', async (t) => {
    const { replicas, posts, keys, client } = await start(t)
    const first = await replicas[0].mint()
    t.equal(tokenOf(await replicas[1].mint()), tokenOf(first))
    t.not(tokenOf(await replicas[1].mint({ body: { locale: 'lt' } })), tokenOf(first))
    t.equal(await posts(), 2)
    for (const key of await keys()) {
      const ttl = await client.pttl(key)
      t.ok(ttl > 25_000 && ttl <= 30_000, `${ttl} ms`)
    }
  })

  t.test('an idempotency key holds on both', async (t) => {
    const { replicas, setFault, keys, client } = await start(t, { KYB_REPLAY_SECONDS: '0' })
    const headers = { 'idempotency-key': 'k' }
    await setFault({ delayMs: 200, times: 1 })
    const running = replicas[0].mint({ headers })
    await until(async () => (await keys()).length > 0, 'the lease of the first request')
    const busy = await replicas[1].mint({ headers })
    matchProblem(t, busy, 'idempotency-conflict')
    const retryAfter = Number(busy.headers['retry-after'])
    t.ok(retryAfter > 5 && retryAfter <= 10, 'what remains of the lease')
    const again = await running.then(() => replicas[1].mint({ headers }))
    t.strictSame([tokenOf(again), again.headers['idempotency-replayed']], [tokenOf(await running), 'true'])
    matchProblem(t, await replicas[1].mint({ headers, body: { locale: 'lt' } }), 'idempotency-mismatch')
    const ttls = await Promise.all((await keys()).map((key) => client.pttl(key)))
    t.ok(Math.max(...ttls) > 3_500_000 && Math.max(...ttls) <= 3_600_000)
  })

  t.test('and the limits of users, companies and addresses', async (t) => {
    const { replicas, client } = await start(t, {
      RATE_LIMIT_USER_PER_MINUTE: '3',
      RATE_LIMIT_IP_PER_MINUTE: '1',
      KYB_REPLAY_SECONDS: '0',
    })
    for (const index of [0, 1, 0]) t.equal((await (replicas[index] as Service).mint()).status, 201)
    matchProblem(t, await replicas[1].mint(), 'rate-limited')
    matchProblem(t, await replicas[0].mint(), 'rate-limited')
    t.equal((await replicas[0].mint({ token: 'x' })).status, 401)
    t.equal((await replicas[1].mint({ token: 'x' })).status, 429)
    const limits = await client.keys('*:rate:*')
    t.equal(limits.length, 4)
    t.notMatch(limits.join(), /acme|u-1/)
  })
})

t.test('a value in Redis', needsRedis, async (t) => {
  t.test('does not reveal tokens or ids', async (t) => {
    const { replicas, client, keys } = await start(t)
    const { json } = await replicas[0].mint({ headers: { 'idempotency-key': 'canary-idempotency' } })
    t.equal((await keys()).length, 2)
    for (const key of await client.keys('*')) {
      const value = String(await client.get(key))
      const text = `${key} ${value} ${Buffer.from(value.slice(1), 'base64')}`
      for (const secret of [json.tokenString, 'acme', 'u-1', 'canary-idempotency']) t.notMatch(text, secret)
      const ttl = await client.pttl(key)
      t.ok(ttl > 0 && ttl <= 3_600_000, `${key} ends in ${ttl} ms`)
    }
  })

  t.test("cannot be moved to another company's place", async (t) => {
    const { replicas, client, keys, posts } = await start(t)
    const globex = { token: await replicas[0].token({ company_id: 'globex' }) }
    await replicas[0].mint()
    const [acmeKey = ''] = await keys()
    await replicas[0].mint(globex)
    const [globexKey = ''] = (await keys()).filter((key) => key !== acmeKey)
    await client.set(globexKey, String(await client.get(acmeKey)), 'PX', 30_000)
    t.equal((await replicas[1].mint(globex)).json.clientId, 'globex')
    t.equal(await posts(), 3)
  })

  t.test('is left alone if it was not written here', async (t) => {
    const { replicas, client, keys, posts } = await start(t)
    const { json } = await replicas[0].mint()
    const [key = ''] = await keys()
    const sealed = String(await client.get(key))
    const middle = sealed.length >> 1
    const flipped = sealed[middle] === 'A' ? 'B' : 'A'
    const values = ['S', 'Sx', 'Sx.y', sealed.slice(0, 12), sealed.slice(0, middle) + flipped]
    for (const value of [...values, sealed.slice(0, middle) + flipped + sealed.slice(middle + 1)]) {
      await client.set(key, value, 'PX', 30_000)
      const replica = await build(t, {
        peers: replicas[0],
        env: { ...replicas[0].environment, ...envOf(client) },
      })
      t.not(tokenOf(await replica.mint()), json.tokenString)
    }
    t.equal(await posts(), 7)
  })

  t.test('can be read after the key was rotated, as long as the old one is there too', async (t) => {
    const { replicas, posts } = await start(
      t,
      { STATE_ENCRYPTION_KEY: stateKey },
      { STATE_ENCRYPTION_KEY: `${newKey},${stateKey}` },
    )
    const first = await replicas[0].mint()
    t.equal(tokenOf(await replicas[1].mint()), tokenOf(first))
    t.equal(await posts(), 1)
  })

  t.test('and is replaced when it cannot be read', async (t) => {
    const { replicas, posts, redis } = await start(t, {}, { STATE_ENCRYPTION_KEY: otherKey })
    await replicas[0].mint()
    const own = await replicas[1].mint()
    t.equal(await posts(), 2)
    const third = await build(t, {
      peers: replicas[0],
      env: { ...redis.env, KYB_REPLAY_SECONDS: undefined, STATE_ENCRYPTION_KEY: otherKey },
    })
    t.equal(tokenOf(await third.mint()), tokenOf(own))
    t.equal(await posts(), 2)
  })
})

const envOf = ({ options }: Redis) => ({
  REDIS_URL: `redis://127.0.0.1:${options.port}`,
  STATE_ENCRYPTION_KEY: stateKey,
  KYB_REPLAY_SECONDS: undefined,
})

t.test(
  'a request that took the lease and ended between two reads is shared with the waiting replica',
  needsRedis,
  async (t) => {
    const { replicas, client, keys, posts } = await start(t, { KYB_REPLAY_SECONDS: '0' })
    const first = await replicas[0].mint()
    const [key = ''] = await keys()
    const ended = String(await client.get(key))
    await client.set(key, 'Lsome-replica', 'PX', 60_000)
    const looks = async () => Number(/cmdstat_get:calls=(\d+)/.exec(await client.info('commandstats'))?.[1])
    const before = await looks()
    const waiting = replicas[1].mint()
    await until(async () => (await looks()) > before + 1, 'the waiting replica to read the key twice')
    await client.set(key, ended, 'PX', 60_000)
    t.equal(tokenOf(await waiting), tokenOf(first))
    t.equal(await posts(), 1)
  },
)

t.test(
  'when a replica is lost with its lease, no other one sends what it may have sent',
  needsRedis,
  async (t) => {
    const { replicas, client, keys, posts } = await start(t, { KYB_REPLAY_SECONDS: '0' })
    await replicas[0].mint()
    const [key = ''] = await keys()
    await client.set(key, 'Lsome-replica', 'PX', 5_300)
    const responses = await Promise.all(replicas.map((replica) => replica.mint()))
    for (const response of responses)
      matchProblem(t, response, 'provider-outcome-unknown', { outcome: 'unknown' })
    const later = await build(t, {
      peers: replicas[0],
      env: { ...replicas[0].environment, ...envOf(client) },
    })
    matchProblem(t, await later.mint(), 'provider-outcome-unknown', { outcome: 'unknown' })
    t.equal(await posts(), 1)
    const third = await build(t, {
      peers: replicas[0],
      env: { ...replicas[0].environment, ...envOf(client) },
    })
    await client.pexpire(key, 1)
    await until(async () => (await client.exists(key)) === 0, 'the kept outcome to expire')
    t.equal((await third.mint()).status, 201, 'five seconds later it is a new click')
  },
)

t.test('a replica whose lease has run out does not disturb the next one', needsRedis, async (t) => {
  const { replicas, client, keys, setFault } = await start(t)
  await setFault({ delayMs: 200 })
  const minting = replicas[0].mint()
  await until(async () => (await keys()).length > 0, 'the lease of the request')
  const [key = ''] = await keys()
  await client.set(key, 'Lanother-replica', 'PX', 10_000)
  t.equal((await minting).status, 201)
  t.equal(await client.get(key), 'Lanother-replica')
})

t.test('a replica that closes leaves what it was about to mint to the others', needsRedis, async (t) => {
  const { replicas, setFault, posts } = await start(t)
  const [leaving, staying] = replicas
  await setFault({ delayMs: 300 })
  const minting = leaving.mint()
  await until(async () => (await posts()) === 1, 'the POST to reach iDenfy')
  const closed = leaving.app.close()
  const { json } = await minting
  await inTime(closed, 'the replica to close')
  t.equal(tokenOf(await staying.mint()), json.tokenString)
  t.equal(await posts(), 1)
})

t.test('without Redis each replica goes on by itself', needsRedis, async (t) => {
  t.test('when it is gone, and until it is back', async (t) => {
    const { replicas, redis, posts } = await start(t, { RATE_LIMIT_USER_PER_MINUTE: '3' })
    const [first, second] = replicas
    const token = await first.token()
    t.same(changes(first), ['available'])
    await redis.stop()
    const responses = await Promise.all(
      replicas.flatMap((replica) => [replica.mint({ token }), replica.mint({ token })]),
    )
    for (const { status } of responses) t.equal(status, 201)
    t.equal(await posts(), 2, 'one each')
    for (const locale of ['lt', 'lv']) t.equal((await first.mint({ token, body: { locale } })).status, 201)
    matchProblem(t, await first.mint({ token, body: { locale: 'et' } }), 'rate-limited')
    t.strictSame(await Promise.all(replicas.map(isUp)), [false, false])
    await until(() => causes(first).length === 2, 'two log lines about Redis')
    t.strictSame(causes(first), ['closed', 'refused'], 'one line for each cause')

    await redis.restart()
    await until(async () => (await isUp(first)) && (await isUp(second)), 'both replicas to use Redis again')
    t.same(changes(first), ['available', 'unavailable', 'unavailable', 'available'])
    const other = await first.token({ sub: 'u-2' })
    t.equal(tokenOf(await first.mint({ token: other })), tokenOf(await second.mint({ token: other })))
    t.equal(await posts(), 5)
  })

  t.test('when it does not respond', async (t) => {
    const { replicas, redis, setFault } = await start(t)
    redis.freeze()
    const [first, second] = replicas
    const begin = performance.now()
    t.equal((await first.mint()).status, 201)
    // Not a matter of speed: without a limit it would never come back.
    t.ok(performance.now() - begin < 2_000)
    t.strictSame(causes(first), ['timeout'])
    redis.thaw()
    await until(() => isUp(first), 'the replica to use Redis again')
    await setFault({ delayMs: 300 })
    const token = await first.token({ sub: 'u-2' })
    const responses = await Promise.all([first.mint({ token }), second.mint({ token })])
    t.equal(new Set(responses.map(tokenOf)).size, 1)
  })

  t.test('when it goes while one waits for the other', async (t) => {
    const { replicas, redis, setFault, posts, keys, client } = await start(t, { IDENFY_TIMEOUT_MS: '2000' })
    await setFault({ delayMs: 1000 })
    const token = await replicas[0].token()
    const minting = replicas[0].mint({ token })
    await until(async () => (await keys()).length > 0, 'the lease of the first request')
    const waiting = replicas[1].mint({ token })
    await until(
      () => replicas[1].app.metrics.registry.metrics().then((text) => /redis_up 1/.test(text)),
      'the second replica to use Redis',
    )
    const reads = async () =>
      Number(/cmdstat_get:calls=(\d+)/.exec(await client.info('commandstats'))?.[1] ?? 0)
    const before = await reads()
    await until(async () => (await reads()) > before + 1, 'the waiting replica to read the key twice')
    await redis.stop()
    t.equal((await minting).status, 201)
    matchProblem(t, await waiting, 'provider-timeout', { outcome: 'unknown' })
    t.equal(await posts(), 1, 'the one that waits knows that another may have sent it')
  })

  t.test('when it takes no writes', async (t) => {
    const { replicas, client } = await start(t)
    await client.config('SET', 'maxmemory', '1')
    t.equal((await replicas[0].mint()).status, 201)
    t.equal(await isUp(replicas[0]), false)
    const refusals = async () =>
      Number(/errorstat_OOM:count=(\d+)/.exec(await client.info('errorstats'))?.[1])
    await until(async () => (await refusals()) > 2, 'more than two writes that Redis refuses')
    t.equal(await isUp(replicas[0]), false, 'as long as it does not')
    t.strictSame(causes(replicas[0]), ['out-of-memory'])
    await client.config('SET', 'maxmemory', '0')
    await until(() => isUp(replicas[0]), 'the replica to use Redis again')
  })

  t.test('when it was never there', async (t) => {
    const service = await build(t, {
      env: { REDIS_URL: 'redis://127.0.0.1:1', STATE_ENCRYPTION_KEY: stateKey },
    })
    t.equal((await service.mint()).status, 201)
    t.equal(await isUp(service), false)
    t.strictSame(causes(service), ['refused'])
  })
})

t.test('without REDIS_URL there is nothing to be up', async (t) => {
  const service = await build(t)
  t.notMatch(await service.metrics(), 'redis_up')
})
