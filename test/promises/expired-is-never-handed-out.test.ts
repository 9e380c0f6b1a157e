import t, { type Test } from 'tap'
import { goodToken, httpResponse, startFaultServer } from '../fault-server.js'
import { build, createClock, type HttpResponse, matchProblem, type Overrides, until } from '../helper.js'
import { needsRedis, startRedis } from '../redis-server.js'

const hour = 3_600_000
const startedAtMs = Date.parse('2026-11-25T12:00:00Z')

/** A wall clock that jumps, beside one that does not: a virtual machine that slept, or a clock that was corrected. */
function createJumpingClock() {
  const { clocks, pass } = createClock(startedAtMs)
  let offsetMs = 0
  return {
    clocks: { now: () => clocks.now() + offsetMs, monotonicNow: clocks.monotonicNow },
    pass,
    jump: (milliseconds: number) => {
      offsetMs += milliseconds
    },
  }
}

/** By iDenfy's clock, which does not jump. */
function checkToken(t: Test, response: HttpResponse, nowMs: number, iDenfyNowMs = nowMs): void {
  t.equal(response.status, 201)
  const { expiresIn, expiration } = response.json
  t.ok(expiresIn > 0, `expires in ${expiresIn} s`)
  t.ok(expiresIn <= 3600, 'no token lives longer than it did when it came')
  t.ok(Date.parse(expiration) > iDenfyNowMs, 'it works at iDenfy')
  t.ok(Date.parse(expiration) > nowMs)
}

t.test('in one replica', async (t) => {
  for (const [direction, jumpMs] of [
    ['forward', hour],
    ['back', -hour],
  ] as const) {
    for (const [name, headers] of [
      ['a replay', {}],
      ['an idempotency key', { 'idempotency-key': 'k' }],
    ] as [string, Record<string, string>][]) {
      await t.test(`the wall clock jumps an hour ${direction}, then ${name}`, async (t) => {
        const { clocks, jump } = createJumpingClock()
        const service = await build(t, { ...clocks, env: { KYB_REPLAY_SECONDS: '3600' } })
        const first = await service.mint({ headers })
        t.equal(first.status, 201)
        jump(jumpMs)
        const second = await service.mint({ headers })
        t.equal(second.status, 201)
        checkToken(t, second, clocks.now())
        if (jumpMs < 0) t.equal(second.json.tokenString, first.json.tokenString, 'it still works')
        else t.not(second.json.tokenString, first.json.tokenString, 'a new one')
      })
    }
  }

  for (const [name, iDenfyJumps] of [
    ['of the service', false],
    ['of the service and of iDenfy', true],
  ] as const) {
    await t.test(`the clock ${name} jumps two hours forward while iDenfy is called`, async (t) => {
      const { clocks, jump } = createJumpingClock()
      const idenfy = await startFaultServer(t, (socket) => {
        const before = clocks.now()
        jump(2 * hour)
        const expiration = new Date((iDenfyJumps ? clocks.now() : before) + hour).toISOString()
        socket.write(httpResponse('201 Created', { ...goodToken, expiration }))
      })
      const service = await build(t, { ...clocks, env: { IDENFY_BASE_URL: idenfy.url } })
      service.secrets.add(goodToken.tokenString)
      const response = await service.mint()
      if (iDenfyJumps) checkToken(t, response, clocks.now())
      else matchProblem(t, response, 'provider-bad-response', { outcome: 'unknown' })
    })
  }

  await t.test('a limit that was reached ends with its window, whatever the wall clock does', async (t) => {
    const { clocks, jump, pass } = createJumpingClock()
    const service = await build(t, { ...clocks, env: { RATE_LIMIT_IP_PER_MINUTE: '1' } })
    await service.mint({ token: 'x' })
    jump(-hour)
    const refused = await service.mint({ token: 'x' })
    t.equal(refused.status, 429)
    const retryAfter = Number(refused.headers['retry-after'])
    t.ok(retryAfter >= 1 && retryAfter <= 60, `${retryAfter} s`)
    pass(61)
    t.equal((await service.mint({ token: 'x' })).status, 401)
  })
})

t.test('between two replicas', needsRedis, async (t) => {
  await t.test('the second one, whose clock is an hour ahead, waits for the first', async (t) => {
    const redis = await startRedis(t)
    const { clocks } = createClock(startedAtMs)
    const env = { ...redis.env, KYB_REPLAY_SECONDS: '0' }
    const first = await build(t, { ...clocks, env })
    const ahead = { now: () => clocks.now() + hour, monotonicNow: clocks.monotonicNow }
    const second = await build(t, { ...ahead, env, peers: first })
    await first.setFault({ delayMs: 500 })
    const token = await first.token({ exp: startedAtMs / 1000 + 7200 })
    const own = first.mint({ token })
    await until(
      async () => (await first.arrived()).length === 1,
      'the POST of the first replica to reach iDenfy',
    )
    t.match((await second.mint({ token })).json, { code: 'provider-bad-response', outcome: 'unknown' })
    t.equal((await own).status, 201)
    t.equal((await first.arrived()).length, 1)
  })

  for (const [name, skewMs] of [
    ['an hour ahead', hour],
    ['half an hour ahead', hour / 2],
    ['an hour behind', -hour],
  ] as const) {
    await t.test(`the second one's clock is ${name}`, async (t) => {
      const redis = await startRedis(t)
      const { clocks, pass } = createClock(startedAtMs)
      const env = { ...redis.env, KYB_REPLAY_SECONDS: '3600' }
      const first = await build(t, { ...clocks, env })
      const skewed = { now: () => clocks.now() + skewMs, monotonicNow: clocks.monotonicNow }
      const replica: Overrides = { ...skewed, env, peers: first }
      const second = await build(t, replica)
      for (const headers of [{}, { 'idempotency-key': 'k' }] as Record<string, string>[]) {
        // An access token that is valid by both clocks.
        const [iat, exp] = [startedAtMs / 1000 - 7200, startedAtMs / 1000 + 7200]
        const token = await first.token({ sub: `u${Object.keys(headers)}`, iat, exp })
        const made = await first.mint({ token, headers })
        t.equal(made.status, 201)
        for (const elapsed of [0, 60]) {
          pass(elapsed)
          const read = await second.mint({ token, headers })
          // By the clock that is an hour ahead every token of an hour has expired when it comes.
          if (skewMs === hour) matchProblem(t, read, 'provider-bad-response', { outcome: 'unknown' })
          else {
            checkToken(t, read, skewed.now(), clocks.now())
            t.equal(read.json.tokenString, made.json.tokenString)
          }
        }
      }
    })
  }
})
