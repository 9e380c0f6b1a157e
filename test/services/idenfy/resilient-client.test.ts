import { writeFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { systemClock } from '../../../src/clock.js'
import { Abandoned } from '../../../src/problems/abandoned.js'
import { Problem } from '../../../src/problems/problem.js'
import { classifyFailure, createResilientClient } from '../../../src/services/idenfy/resilient-client.js'
import { createBulkhead } from '../../../src/services/resilience/bulkhead.js'
import { createCircuitBreaker } from '../../../src/services/resilience/circuit-breaker.js'
import { createRetryBudget } from '../../../src/services/resilience/retry-budget.js'
import { created, goodToken, httpResponse, type Script, startFaultServer } from '../../fault-server.js'
import { apiKey, apiSecret, build, createClock, credentialFiles, matchProblem, until } from '../../helper.js'

/** The service before a scripted iDenfy, with a clock that the test moves. */
async function start(t: Test, script: Script, env: Record<string, string | undefined> = {}) {
  const { clocks, pass } = createClock()
  const idenfy = await startFaultServer(t, script)
  const service = await build(t, {
    monotonicNow: clocks.monotonicNow,
    env: { IDENFY_BASE_URL: idenfy.url, ...env },
  })
  service.secrets.add(goodToken.tokenString)
  const mintAs = async (sub: string) => service.mint({ token: await service.token({ sub }) })
  let users = 0
  return {
    ...service,
    idenfy,
    pass,
    isOpen: async () => /idenfy_circuit_open 1/.test(await service.metrics()),
    mintAs,
    /** As a new user each time: an identical request would get a stored response. */
    mint: () => mintAs(`user-${++users}`),
  }
}

const failing = httpResponse('500 Oops')

t.test('the circuit opens after five outages in a row', async (t) => {
  const { mint, mintAs, idenfy, pass, log, isOpen } = await start(t, failing)
  for (let i = 0; i < 5; i++) {
    t.equal(await isOpen(), false)
    matchProblem(t, await mint(), 'provider-outcome-unknown', { outcome: 'unknown' })
  }
  t.equal(await isOpen(), true)
  const response = await mint()
  matchProblem(t, response, 'provider-unavailable', { outcome: 'not-created' })
  t.equal(response.headers['retry-after'], '5')
  t.match(log('provider-unavailable').at(-1), { reason: 'circuit-open' })
  pass(3.5)
  t.equal((await mint()).headers['retry-after'], '2')
  t.equal(idenfy.arrivals.length, 5, 'iDenfy is left alone')

  await t.test('and then lets one through to see', async (t) => {
    let release = (_bytes: string) => {}
    idenfy.script = (socket) => {
      release = (bytes) => socket.write(bytes)
    }
    pass(1.5)
    const probe = mintAs('u-probe')
    await until(() => idenfy.arrivals.length === 6, 'the probe to reach iDenfy')
    for (let i = 0; i < 5; i++) {
      const { json, headers } = await mintAs(`u-${i}`)
      t.strictSame(
        [json.code, json.outcome, headers['retry-after']],
        ['provider-unavailable', 'not-created', '1'],
      )
    }
    t.equal(idenfy.arrivals.length, 6)
    release(failing)
    matchProblem(t, await probe, 'provider-outcome-unknown', { outcome: 'unknown' })
    t.equal(await isOpen(), true)
    t.equal((await mint()).headers['retry-after'], '5', 'for another five seconds')

    pass(5)
    idenfy.script = created
    t.equal((await mint()).status, 201)
    t.equal(await isOpen(), false)
    idenfy.script = failing
    for (let i = 0; i < 4; i++) await mint()
    t.equal(await isOpen(), false, 'it counts from zero again')
  })
})

t.test('in a long outage iDenfy sees a call every five seconds', async (t) => {
  const { mint, idenfy, pass } = await start(t, failing)
  for (let second = 0; second < 300; second += 2.5) {
    await mint()
    await mint()
    pass(2.5)
  }
  // Five calls open the circuit after 5 s. Probes follow after 10 s, 15 s and so on, the last one after 295 s.
  t.equal(idenfy.arrivals.length, 5 + 58)
})

t.test('the circuit opens when half of at least 20 calls were outages', async (t) => {
  const { mint, pass, idenfy, isOpen } = await start(t, created)
  const call = async (script: string, times: number) => {
    idenfy.script = script
    for (let i = 0; i < times; i++) await mint()
  }
  for (let i = 0; i < 3; i++) {
    await call(failing, 3)
    await call(created, 3)
  }
  t.equal(await isOpen(), false, '18 calls are not enough')
  pass(31)
  for (let i = 0; i < 3; i++) {
    await call(failing, 3)
    await call(created, 3)
    pass(3)
  }
  t.equal(await isOpen(), false, 'and those of half a minute ago are forgotten')
  await call(created, 1)
  await call(failing, 1)
  t.equal(await isOpen(), true)
})

t.test('a definitive refusal never counts', async (t) => {
  const { mint, idenfy, isOpen } = await start(t, failing)
  for (const status of ['400 Bad', '401 No', '402 Pay', '403 No', '404 No', '409 Conflict', '429 Slow']) {
    idenfy.script = failing
    for (let i = 0; i < 2; i++) await mint()
    idenfy.script = httpResponse(status)
    for (let i = 0; i < 3; i++) await mint()
  }
  t.equal(await isOpen(), false)
  t.equal(idenfy.arrivals.length, 35)
})

t.test('a call from before the opening neither closes it nor holds it open', async (t) => {
  let release = (_bytes: string) => {}
  const { mint, mintAs, idenfy, isOpen } = await start(t, (socket) => {
    release = (bytes) => socket.write(bytes)
  })
  const old = mintAs('u-old')
  await until(() => idenfy.arrivals.length === 1, 'the first POST to reach iDenfy')
  idenfy.script = failing
  for (let i = 0; i < 5; i++) await mint()
  t.equal(await isOpen(), true)
  release(created)
  t.equal((await old).status, 201)
  t.equal(await isOpen(), true)
})

t.test('a budget stops retries before they double the load', async (t) => {
  const { mintAs, idenfy, metrics } = await start(t, httpResponse('429 Slow', '', { 'Retry-After': '1' }))
  const responses = await Promise.all(Array.from({ length: 13 }, (_, index) => mintAs(`u-${index}`)))
  for (const { json } of responses) t.equal(json.code, 'provider-rate-limited')
  t.equal(idenfy.arrivals.length, 23)
  const retries = /^idenfy_retries_total\{reason="rate-limited",granted="(true|false)"\} (\d+)$/gm
  t.strictSame(
    [...(await metrics()).matchAll(retries)].map(([, granted, count]) => [granted, count]),
    [
      ['true', '10'],
      ['false', '3'],
    ],
  )

  await t.test('and ten successes earn one', async (t) => {
    idenfy.script = created
    for (let i = 0; i < 10; i++) t.equal((await mintAs(`u-${i}`)).status, 201)
    idenfy.script = (socket, { index }) =>
      socket.write(index === 33 ? httpResponse('429 Slow', '', { 'Retry-After': '1' }) : created)
    t.equal((await mintAs('u-1')).status, 201)
    t.equal(idenfy.arrivals.length, 35)
  })
})

t.test('credentials that were replaced on disk are tried once', async (t) => {
  const basic = (secret: string) => `Basic ${Buffer.from(`${apiKey}:${secret}`).toString('base64')}`
  const files = t.testdir({ key: `${apiKey}\n`, secret: apiSecret })
  let accepted = apiSecret
  const { mint, idenfy, metrics, log, secrets } = await start(
    t,
    (socket, { head }) =>
      socket.write(
        head.includes(basic(accepted)) ? created : httpResponse('401 No', { identifier: 'UNAUTHORIZED' }),
      ),
    credentialFiles(files),
  )
  t.equal((await mint()).status, 201)

  accepted = secrets.add('canary-api-secret-new')
  matchProblem(t, await mint(), 'provider-rejected', { outcome: 'not-created' })
  t.equal(idenfy.arrivals.length, 2, 'nothing new on disk, no second try')

  writeFileSync(`${files}/secret`, accepted)
  t.equal((await mint()).status, 201)
  t.equal(idenfy.arrivals.length, 4)
  t.match(await metrics(), 'idenfy_retries_total{reason="new-credentials",granted="true"} 1\n')
  t.equal((await mint()).status, 201)
  t.equal(idenfy.arrivals.length, 5, 'and they stay')

  for (const garbage of ['', 'two words', secrets.add('x'.repeat(513)), '"quoted-secret"']) {
    accepted = apiSecret
    writeFileSync(`${files}/secret`, garbage)
    matchProblem(t, await mint(), 'provider-rejected', { outcome: 'not-created' })
  }
  t.equal(idenfy.arrivals.length, 9, 'what cannot be a secret is not tried')
  t.match(
    log().filter(({ what, fault }) => what === 'credentials' && fault !== undefined),
    [
      { level: 'error', fault: 'IDENFY_API_SECRET is an empty file, given by IDENFY_API_SECRET_FILE' },
      { level: 'error', fault: /^IDENFY_API_SECRET must be / },
      { level: 'error', fault: /^IDENFY_API_SECRET must not have quotes around it, given by / },
    ],
    'each fault is said once',
  )
  accepted = 'canary-api-secret-new'
  t.equal((await mint()).status, 201, 'the old ones stay')
})

t.test('calls that began before the circuit opened do not open it again after a good probe', async (t) => {
  const pending: ((bytes: string) => void)[] = []
  const { mint, idenfy, isOpen, pass } = await start(t, (socket) =>
    pending.push((bytes) => socket.write(bytes)),
  )
  const old = Array.from({ length: 5 }, () => mint())
  await until(() => pending.length === 5, 'five POSTs to reach iDenfy')
  idenfy.script = failing
  for (let i = 0; i < 5; i++) await mint()
  t.equal(await isOpen(), true)
  pass(5)
  idenfy.script = created
  t.equal((await mint()).status, 201)
  t.equal(await isOpen(), false)
  for (const release of pending) release(failing)
  await Promise.all(old)
  t.equal(await isOpen(), false)
})

t.test('a call that began while the circuit was closed says nothing about the probe', async (t) => {
  const pending: ((bytes: string) => void)[] = []
  const { mint, idenfy, isOpen, pass } = await start(t, (socket) =>
    pending.push((bytes) => socket.write(bytes)),
  )
  const old = mint()
  await until(() => pending.length === 1, 'the first POST to reach iDenfy')
  idenfy.script = failing
  for (let i = 0; i < 5; i++) await mint()
  pass(5)
  idenfy.script = (socket) => pending.push((bytes) => socket.write(bytes))
  const probe = mint()
  await until(() => pending.length === 2, 'the probe to reach iDenfy')
  pending[0]?.(created)
  t.equal((await old).status, 201)
  t.match((await mint()).json, { code: 'provider-unavailable' }, 'there is one probe at a time')
  pending[1]?.(created)
  t.equal((await probe).status, 201)
  t.equal(await isOpen(), false)
})

t.test('a probe whose client has gone before it was sent leaves the circuit as it was', async (t) => {
  const { breaker, clock } = await breakerThatIsOpen(t)
  clock.pass(5)
  await t.rejects(
    breaker.run(() => Promise.reject(new Abandoned())),
    { name: 'Abandoned' },
  )
  t.equal(breaker.isOpen(), false, 'it keeps no one back')
  t.equal(await breaker.run(async () => 'the next one is a probe'), 'the next one is a probe')
  t.equal(breaker.isOpen(), false)
})

async function breakerThatIsOpen(t: Test) {
  const { clocks, pass } = createClock()
  const breaker = createCircuitBreaker({ classify: classifyFailure, clock: clocks })
  for (let i = 0; i < 5; i++)
    await t.rejects(
      breaker.run(() => Promise.reject(new Problem('provider-timeout'))),
      { code: 'provider-timeout' },
    )
  t.equal(breaker.isOpen(), true)
  return { breaker, clock: { pass } }
}

t.test('an error that is no problem passes unchanged, and says nothing about iDenfy', async (t) => {
  for (const thrown of [new TypeError('a fault of ours'), 'text', undefined, null, 0, { code: 'x' }]) {
    const outcomes: string[] = []
    const breaker = createCircuitBreaker({ classify: classifyFailure, clock: systemClock })
    const client = createResilientClient({
      client: {
        createKybToken: async () => {
          throw thrown
        },
      },
      breaker,
      bulkhead: createBulkhead({ maxInFlight: 1, clock: systemClock }),
      budget: createRetryBudget(),
      timeoutMs: 1000,
      clock: systemClock,
      onAttempt: (outcome) => outcomes.push(outcome),
      onRetry: () => t.fail('no retry'),
    })
    const call = {
      deadlineMs: systemClock.monotonicNow() + 1000,
      wasSuspended: () => false,
      isAbandoned: () => false,
      admit: async () => {},
      log: { warn: () => t.fail('no line') },
    }
    const caught = await client.createKybToken({ tokenType: 'FORM', clientId: 'acme' }, call).then(
      () => 'nothing',
      (error) => error,
    )
    t.equal(caught, thrown)
    t.strictSame(outcomes, ['internal-error'])
    t.equal(breaker.isOpen(), false)
  }
})

t.test('a POST for which too little time is left is not sent, and says nothing about iDenfy', async (t) => {
  const { clocks, pass } = createClock()
  const breaker = createCircuitBreaker({ classify: classifyFailure, clock: clocks })
  const client = createResilientClient({
    client: { createKybToken: () => t.fail('nothing is sent') as never },
    breaker,
    bulkhead: createBulkhead({ maxInFlight: 1, clock: clocks }),
    budget: createRetryBudget(),
    timeoutMs: 1000,
    clock: clocks,
    onAttempt: () => t.fail('no attempt'),
    onRetry: () => t.fail('no retry'),
  })
  for (let i = 0; i < 6; i++) {
    const call = {
      deadlineMs: clocks.monotonicNow() + 1000,
      wasSuspended: () => false,
      isAbandoned: () => false,
      // A limit that is counted in a slow Redis.
      admit: async () => pass(0.8),
      log: { warn: () => t.fail('no line') },
    }
    await t.rejects(client.createKybToken({ tokenType: 'FORM', clientId: 'acme' }, call), {
      code: 'provider-unavailable',
      options: { diagnosis: { reason: 'no-time-left' } },
    })
  }
  t.equal(breaker.isOpen(), false)
})
