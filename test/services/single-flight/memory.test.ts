import t from 'tap'
import { createMemoryFlights, type Flight } from '../../../src/services/single-flight/memory.js'

t.test('a request that joins another one keeps its own deadline', async (t) => {
  const monotonicNow = () => performance.now()
  const flights = createMemoryFlights<{ text: string }>({ maxStored: 10, monotonicNow })
  const flight = (milliseconds: number): Flight<{ text: string }> => ({
    kind: 'join',
    lifetimeMs: () => 0,
    accepts: () => true,
    deadline: monotonicNow() + milliseconds,
    isAbandoned: () => false,
    mayRunAlone: true,
    unknown: (reason) => ({ text: reason }),
  })
  let end = (_result: { text: string }) => {}
  const work = () =>
    new Promise<{ text: string }>((resolve) => {
      end = resolve
    })
  const first = flights.run('key', work, flight(10_000))
  const joined = flights.run('key', work, flight(5_000))
  t.strictSame(await flights.run('key', work, flight(50)), { origin: 'joined', value: { text: 'late' } })
  end({ text: 'done' })
  t.match(await first, { origin: 'own', value: { text: 'done' } })
  t.match(await joined, { origin: 'joined', value: { text: 'done' } })
})
