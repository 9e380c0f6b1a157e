import t from 'tap'
import { build } from '../helper.js'

t.test('one line a request, of named values only', async (t) => {
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
        level: 30,
        method: 'POST',
        route: '/onboarding/kyb-token',
        status: 201,
        company: 'acme',
        outcome: 'success',
        msg: 'request',
      },
      {
        level: 50,
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

t.test('the level tells who has to act', async (t) => {
  const service = await build(t)
  const levels: [object, number][] = [
    [{ status: 400, identifier: 'BAD_VALUE' }, 50],
    [{ body: '{}' }, 50],
    [{ status: 503 }, 40],
    [{ status: 429 }, 40],
    [{ drop: 'before-headers' }, 40],
    [{ status: 409 }, 30],
  ]
  for (const [fault, level] of levels) {
    await service.setFault(fault)
    await service.mint()
    t.equal(service.log().at(-1)?.level, level, JSON.stringify(fault))
  }
})
