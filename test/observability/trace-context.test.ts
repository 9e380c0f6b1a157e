import t from 'tap'
import { build } from '../helper.js'

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736'
const good = `00-${traceId}-00f067aa0ba902b7-01`

t.test('every line of a request bears the id of its trace, and iDenfy is not told', async (t) => {
  const service = await build(t)
  await service.mint({ headers: { traceparent: good, tracestate: 'canary=1' } })
  const lines = service.log().filter(({ requestId }) => requestId !== undefined)
  t.match(
    lines.map((line) => [line.msg, line.traceId]),
    [
      ['audit', traceId],
      ['request', traceId],
    ],
  )
  t.notMatch(JSON.stringify(await service.received()), /traceparent|tracestate/)
  t.notMatch(JSON.stringify(service.log()), 'canary')

  await service.mint({ headers: { traceparent: `01-${traceId}-00f067aa0ba902b7-00-of-a-version-to-come` } })
  t.equal(service.log('success').at(-1)?.traceId, traceId)
})

t.test('an invalid trace context is ignored', async (t) => {
  const service = await build(t)
  for (const traceparent of [
    '',
    traceId,
    `${good}-`,
    `${good}0`,
    good.toUpperCase(),
    `ff${good.slice(2)}`,
    `00-${'0'.repeat(32)}-00f067aa0ba902b7-01`,
    `00-${traceId}-${'0'.repeat(16)}-01`,
    `01${good.slice(2)}x`,
    `00-${traceId}"}{-00f067aa0ba902b7-01`,
    [good, good],
  ]) {
    t.equal((await service.mint({ headers: { traceparent } })).status, 201)
    t.equal(service.log('success').at(-1)?.traceId, undefined, String(traceparent))
  }
})
