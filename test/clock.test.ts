import t from 'tap'
import { inTime, sleep, systemClock } from '../src/clock.js'

t.test('the clock of the system has timers that fire, and that can be cancelled', async (t) => {
  const fired: string[] = []
  systemClock.clearTimeout(systemClock.setTimeout(() => fired.push('cancelled'), 0))
  systemClock.setTimeout(() => fired.push('negative delay'), -1)
  await new Promise<void>((resolve) => systemClock.setImmediate(resolve))
  await sleep(systemClock, 5)
  t.strictSame(fired, ['negative delay'])
  t.ok(systemClock.now() > 0)
  t.ok(systemClock.monotonicNow() > 0)
})

t.test('a promise that takes too long is replaced, and its error is not', async (t) => {
  t.equal(await inTime(systemClock, Promise.resolve('value'), 60_000, 'late'), 'value')
  t.equal(await inTime(systemClock, new Promise<string>(() => {}), 1, 'late'), 'late')
  await t.rejects(inTime(systemClock, Promise.reject(new Error('failed')), 60_000, 'late'), /failed/)
})
