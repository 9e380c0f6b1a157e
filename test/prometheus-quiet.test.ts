import t from 'tap'
import { needsPromtool, startMonitored } from './prometheus.js'

t.test('a quiet weekend', needsPromtool, async (t) => {
  const service = await startMonitored(t, {}, 240)
  await service.mintFor(5)
  await service.wait(60 * 60)
  service.expectNoneSoFar()
  await service.check(t)
})

t.test('a rolling restart', needsPromtool, async (t) => {
  const service = await startMonitored(t)
  const { start, remove, wait, mintFor } = service
  await mintFor(20)
  const peers = service
  await start('b', { peers })
  await wait(10)
  for (const name of ['a', 'b', 'a', 'b']) {
    await mintFor(3)
    remove(name)
    await wait(2)
    const next = await start(name, { peers })
    await next.mint()
    await wait(3)
  }
  await wait(60)
  service.expectNoneSoFar()
  await service.check(t)
})

t.test(
  'an outage of iDenfy after much traffic, and a quiet night after it has ended',
  needsPromtool,
  async (t) => {
    const service = await startMonitored(t)
    await service.mintFor(50)
    await service.wait(5)
    await service.setFault({ status: 503 })
    for (let minute = 0; minute < 6; minute++) {
      await service.mintFor(1)
      await service.wait(1)
    }
    await service.mintFor(1)
    await service.wait(1)
    service.expect('IdenfyDown', 'IdenfyUnreliable', 'VerificationsWithUnknownOutcome')
    await service.setFault({})
    await service.mintFor(2)
    await service.wait(1)
    service.expect('IdenfyUnreliable', 'VerificationsWithUnknownOutcome')
    await service.wait(61)
    for (let hour = 0; hour < 12; hour++) {
      service.expect()
      await service.wait(60)
    }
    service.expect()
    await service.check(t)
  },
)

t.test('another service whose metrics have the same names', needsPromtool, async (t) => {
  const service = await startMonitored(t)
  service.add('other', async () =>
    [
      'process_start_time_seconds 0',
      'process_open_fds 99',
      'process_max_fds 100',
      'redis_up 0',
      'http_requests_total{outcome="internal-error"} 9',
      'http_request_duration_seconds_bucket{le="2"} 1',
      'http_request_duration_seconds_count 9',
      'authentication_failures_total{reason="claim-iss"} 9',
      'build_info{version="1.0.0"} 1',
    ].join('\n'),
  )
  await service.wait(10)
  service.expectNoneSoFar()
  await service.check(t)
})
