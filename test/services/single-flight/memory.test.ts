import t from 'tap'
import { systemClock } from '../../../src/clock.js'
import { createMemorySingleFlight } from '../../../src/services/single-flight/memory.js'
import type { RunOptions } from '../../../src/services/single-flight/single-flight.js'

t.test('a request that joins another one keeps its own deadline', async (t) => {
  const singleFlight = createMemorySingleFlight<{ text: string }>({ maxStored: 10, clock: systemClock })
  const optionsOf = (milliseconds: number): RunOptions<{ text: string }> => ({
    mode: 'share',
    lifetimeMs: () => 0,
    accepts: () => true,
    deadlineMs: systemClock.monotonicNow() + milliseconds,
    isAbandoned: () => false,
    mayRunAlone: true,
    unknownResult: (reason) => ({ text: reason }),
  })
  let end = (_result: { text: string }) => {}
  const work = () =>
    new Promise<{ text: string }>((resolve) => {
      end = resolve
    })
  const first = singleFlight.run('key', work, optionsOf(10_000))
  const shared = singleFlight.run('key', work, optionsOf(5_000))
  t.strictSame(await singleFlight.run('key', work, optionsOf(50)), {
    origin: 'shared',
    value: { text: 'late' },
  })
  end({ text: 'done' })
  t.match(await first, { origin: 'own', value: { text: 'done' } })
  t.match(await shared, { origin: 'shared', value: { text: 'done' } })
})
