import t from 'tap'
import { build, until } from '../helper.js'

t.test('each request has one line, with known fields only', async (t) => {
  const service = await build(t)
  await service.mint({
    headers: { 'user-agent': 'canary-agent', 'x-request-id': 'canary-id', cookie: 'canary=1' },
  })
  await service.setFault({ status: 401, identifier: 'UNAUTHORIZED' })
  await service.mint()

  const lines = service.log().filter((line) => line.outcome !== undefined)
  t.strictSame(
    lines.map(({ time, requestId, durationMs, err, ...rest }) => rest),
    [
      {
        level: 'info',
        method: 'POST',
        route: '/onboarding/kyb-token',
        status: 201,
        company: 'acme',
        outcome: 'success',
        msg: 'request',
      },
      {
        level: 'error',
        method: 'POST',
        route: '/onboarding/kyb-token',
        status: 502,
        company: 'acme',
        outcome: 'provider-rejected',
        providerOutcome: 'not-created',
        phase: 'refused',
        upstreamStatus: 401,
        identifier: 'UNAUTHORIZED',
        class: 'credentials',
        msg: 'request',
      },
    ],
  )
  t.match(lines, [
    { time: /^\d{4}-.*Z$/, requestId: /^[0-9a-f-]{36}$/, durationMs: Number },
    { err: { name: 'Problem', stack: String } },
  ])
  t.notMatch(JSON.stringify(service.log()), 'canary-agent')
  t.notMatch(JSON.stringify(service.log()), 'canary-id')
})

t.test('the log level shows whether the operator has to act', async (t) => {
  const service = await build(t)
  const levels: [object, string][] = [
    [{ status: 400, identifier: 'BAD_VALUE' }, 'error'],
    [{ body: '{}' }, 'error'],
    [{ status: 503 }, 'warn'],
    [{ status: 429 }, 'warn'],
    [{ drop: 'before-headers' }, 'warn'],
    [{ status: 409 }, 'info'],
  ]
  for (const [fault, level] of levels) {
    await service.setFault(fault)
    // Identical requests get the same response for a while if its outcome is unknown.
    await service.mint({ token: await service.token({ sub: JSON.stringify(fault).replace(/\W/g, '') }) })
    t.equal(service.log().at(-1)?.level, level, JSON.stringify(fault))
  }
})

t.test('one audit event for each token that is handed out', async (t) => {
  const service = await build(t, { env: { KYB_REPLAY_SECONDS: '30' } })
  const { json } = await service.mint()
  await service.mint()
  const events = service.log().filter(({ event }) => event === 'kyb-token-issued')
  t.match(events, [
    {
      level: 'info',
      requestId: /^[0-9a-f-]{36}$/,
      origin: 'minted',
      company: 'acme',
      user: 'u-1',
      clientId: 'acme',
      externalRef: 'u-1',
      idenfyCompanyId: json.companyId,
      expiration: json.expiration,
      tokenFingerprint: /^[0-9a-f]{16}$/,
    },
    { origin: 'replayed' },
  ])
  t.equal(events[0]?.tokenFingerprint, events[1]?.tokenFingerprint, 'the same token')
  const lines = service.log('success')
  t.strictSame(
    lines.map(({ requestId }) => requestId),
    events.map(({ requestId }) => requestId),
  )
  await service.setFault({ status: 500 })
  await service.mint({ body: { locale: 'lt' } })
  t.equal(
    service.log().filter(({ event }) => event === 'kyb-token-issued').length,
    2,
    'and none for a failure',
  )
})

t.test('each of many identical failures is logged in full', async (t) => {
  const service = await build(t)
  await service.setFault({ status: 402 })
  for (let i = 0; i < 25; i++) await service.mint()
  const lines = service.log('provider-rejected')
  t.equal(lines.length, 25)
  for (const line of lines) {
    t.match(line, { level: 'error', status: 502, class: 'funds', phase: 'refused', err: { name: 'Problem' } })
  }
  t.match(await service.metrics(), 'http_requests_total{outcome="provider-rejected"} 25\n')
})

t.test('a client that disconnects is logged and counted once', async (t) => {
  const service = await build(t)
  await service.setFault({ delayMs: 200 })
  const controller = new AbortController()
  const token = await service.token()
  const disconnected = t.rejects(
    fetch(`${service.url}/onboarding/kyb-token`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
      signal: controller.signal,
    }),
    { name: 'AbortError' },
  )
  await until(async () => (await service.arrived()).length === 1, 'the POST to reach iDenfy')
  controller.abort()
  await disconnected
  await until(() => service.log('client-closed').length === 1, 'the access line of the aborted request')
  t.match(await service.metrics(), 'http_requests_total{outcome="client-closed"} 1\n')
})
