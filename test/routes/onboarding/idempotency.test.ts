import t, { type Test } from 'tap'
import { created, goodToken, startFaultServer } from '../../fault-server.js'
import { build, createClock, matchProblem, until } from '../../helper.js'

async function start(t: Test, env: Record<string, string> = {}) {
  const { clocks, pass } = createClock()
  const service = await build(t, { ...clocks, env })
  return {
    ...service,
    pass,
    posts: async () => (await service.arrived()).length,
    mintWith: async (key: string, body?: object, claims?: object) =>
      service.mint({
        headers: { 'idempotency-key': key },
        ...(body && { body }),
        token: await service.token(claims),
      }),
  }
}

t.test('the same key and request get the stored response', async (t) => {
  const service = await start(t)
  const first = await service.mintWith('"8e03978e-40d5-43dd-bc93-6894a57f9324"', { locale: 'lt' })
  t.equal(first.status, 201)
  t.equal(first.headers['idempotency-replayed'], undefined)
  const second = await service.mintWith('"8e03978e-40d5-43dd-bc93-6894a57f9324"', { locale: 'lt' })
  t.equal(second.status, 201)
  t.equal(second.headers['idempotency-replayed'], 'true')
  t.equal(second.headers['cache-control'], 'no-store')
  t.strictSame(second.json, first.json)
  const bare = await service.mintWith('8e03978e-40d5-43dd-bc93-6894a57f9324', { locale: 'lt' })
  t.strictSame(bare.json, first.json, 'the quotes are no part of the key')
  t.equal(await service.posts(), 1)
  t.match(await service.metrics(), 'kyb_tokens_total{origin="idempotent"} 2\n')
})

t.test('the same key with another request', async (t) => {
  const service = await start(t)
  t.equal((await service.mintWith('k', { locale: 'lt' })).status, 201)
  matchProblem(t, await service.mintWith('k', { locale: 'en' }), 'idempotency-mismatch')
  matchProblem(t, await service.mintWith('k'), 'idempotency-mismatch')
  t.equal(await service.posts(), 1)
})

t.test('the same key while it is in flight', async (t) => {
  let release = () => {}
  const idenfy = await startFaultServer(t, (socket) => {
    release = () => socket.write(created)
  })
  const service = await start(t, { IDENFY_BASE_URL: idenfy.url, KYB_REPLAY_SECONDS: '30' })
  service.secrets.add(goodToken.tokenString)
  const first = service.mintWith('k')
  await until(() => idenfy.arrivals.length === 1, 'the POST to reach iDenfy')
  const second = await service.mintWith('k')
  matchProblem(t, second, 'idempotency-conflict')
  t.equal(second.headers['retry-after'], '1')
  const another = service.mintWith('l')
  release()
  t.equal((await first).status, 201)
  t.strictSame((await another).json, (await first).json, 'another key joins it')
  t.equal(idenfy.arrivals.length, 1)
})

t.test('a key is scoped to the caller', async (t) => {
  const service = await start(t)
  const callers = [{}, { sub: 'u-2' }, { company_id: 'globex' }, { company_id: 'u-1', sub: 'acme' }]
  const tokens = new Set<string>()
  for (const claims of callers) {
    const { status, headers, json } = await service.mintWith('k', undefined, claims)
    t.equal(status, 201)
    t.equal(headers['idempotency-replayed'], undefined)
    tokens.add(json.tokenString)
  }
  t.equal(tokens.size, callers.length)
})

t.test('a failure that opened nothing leaves the key free', async (t) => {
  const service = await start(t)
  const failures: [object, Parameters<typeof matchProblem>[2]][] = [
    [{ status: 429, times: 1 }, 'provider-rate-limited'],
    [{ status: 402, times: 1 }, 'provider-rejected'],
    [{ status: 409, times: 1 }, 'kyb-session-conflict'],
  ]
  for (const [fault, code] of failures) {
    await service.setFault(fault)
    t.equal((await service.mintWith('k')).json.code, code)
  }
  t.equal((await service.mintWith('k', { locale: 'xx' })).json.code, 'validation-failed')
  t.equal((await service.mintWith('k', { tags: ['a'] })).json.code, 'field-not-permitted')
  t.equal(await service.posts(), failures.length)
  const { status, headers } = await service.mintWith('k')
  t.strictSame([status, headers['idempotency-replayed']], [201, undefined])
})

t.test('a key remembers for an hour that its outcome is unknown', async (t) => {
  const service = await start(t)
  await service.setFault({ status: 500, times: 1 })
  const first = await service.mintWith('k')
  matchProblem(t, first, 'provider-outcome-unknown', { outcome: 'unknown' })
  t.equal(first.headers['idempotency-replayed'], undefined)
  for (const seconds of [0, 60, 3500]) {
    service.pass(seconds)
    const again = await service.mintWith('k')
    matchProblem(t, again, 'provider-outcome-unknown', { outcome: 'unknown' })
    t.equal(again.headers['idempotency-replayed'], 'true')
    t.match(service.log('provider-outcome-unknown').at(-1), { reason: 'shared-result' })
  }
  matchProblem(t, await service.mintWith('k', { locale: 'lt' }), 'idempotency-mismatch')
  t.equal(await service.posts(), 1)
  t.equal((await service.mintWith('l')).status, 201, 'a new key is a new decision of the user')
  service.pass(120)
  t.equal((await service.mintWith('k')).status, 201)
})

t.test('it is stored for the life of the token, but at most an hour', async (t) => {
  const policyOf = (lifetime: number) => ({
    KYB_POLICY_FILE: `${t.testdir({ [`${lifetime}.json`]: JSON.stringify({ session: { lifetime } }) })}/${lifetime}.json`,
  })
  for (const [lifetime, storedSeconds] of [
    [600, 600],
    [86_400, 3600],
  ] as const) {
    const service = await start(t, policyOf(lifetime))
    const first = await service.mintWith('k')
    service.pass(storedSeconds - 2)
    t.equal((await service.mintWith('k')).json.tokenString, first.json.tokenString)
    service.pass(4)
    const { headers, json } = await service.mintWith('k')
    t.equal(headers['idempotency-replayed'], undefined)
    t.not(json.tokenString, first.json.tokenString)
  }
})

t.test(
  'a success that was stored for identical requests counts for a new key, but is not marked as replayed',
  async (t) => {
    const service = await start(t, { KYB_REPLAY_SECONDS: '30' })
    const first = await service.mintWith('k')
    const second = await service.mintWith('l')
    t.equal(second.headers['idempotency-replayed'], undefined)
    t.equal(second.json.tokenString, first.json.tokenString)
    t.equal((await service.mintWith('l')).headers['idempotency-replayed'], 'true')
    t.equal(await service.posts(), 1)
  },
)

t.test('a key is a short string of plain characters', async (t) => {
  const service = await start(t)
  const long = 'k'.repeat(64)
  for (const key of [long, `"${long}"`, 'A1._~+/=:-']) t.equal((await service.mintWith(key)).status, 201, key)
  for (const key of [
    '',
    '""',
    '"k',
    'k"',
    `${long}k`,
    'a b',
    'a,b',
    'k;p=1',
    "'k'",
    'ä',
    '"a\\"b"',
    ':YQ==:;',
  ]) {
    matchProblem(t, await service.mintWith(key), 'malformed-request')
  }
  const twice = await service.mint({ headers: { 'idempotency-key': ['a', 'b'] } })
  matchProblem(t, twice, 'malformed-request')
})
