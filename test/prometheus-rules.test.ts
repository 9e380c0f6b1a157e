import t from 'tap'
import { build, createClock } from './helper.js'
import { createPrometheus, needsPromtool, promtool, rulesFile } from './prometheus.js'

t.test('promtool accepts the rules', needsPromtool, async (t) => {
  const { failed, output } = await promtool('check', 'rules', rulesFile)
  t.notOk(failed, output)
})
t.test('x', needsPromtool, async (t) => {
  const { clocks, pass } = createClock()
  const service = await build(t, clocks)
  const prometheus = createPrometheus(t, { pass })
  prometheus.add('a', service.metrics)
  await service.mint()
  await prometheus.wait(5)
  await service.setFault({ status: 402, times: 1 })
  await service.mint()
  await prometheus.wait(1)
  prometheus.expect('IdenfyAccountWithoutFunds')
  await prometheus.wait(62)
  prometheus.expect()
  await prometheus.check()
})
