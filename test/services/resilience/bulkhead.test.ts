import t from 'tap'
import { createBulkhead } from '../../../src/services/resilience/bulkhead.js'
import { createVirtualClock } from '../../virtual-clock.js'

const overloaded = { name: 'Problem', code: 'overloaded' }

/** A bulkhead for two calls, and calls that end when the test says so. */
function setUp() {
  const { clock, pass, pendingTimers } = createVirtualClock()
  const bulkhead = createBulkhead({ maxInFlight: 2, clock })
  const begun: string[] = []
  const ends = new Map<string, { resolve: (name: string) => void; reject: (error: Error) => void }>()
  const call = (name: string, maxWaitMs = 500) =>
    bulkhead.run(() => {
      begun.push(name)
      return new Promise<string>((resolve, reject) => ends.set(name, { resolve, reject }))
    }, maxWaitMs)
  const end = async (name: string) => {
    ends.get(name)?.resolve(name)
    await pass(0)
  }
  const fail = async (name: string, error: Error) => {
    ends.get(name)?.reject(error)
    await pass(0)
  }
  return { bulkhead, begun, call, end, fail, pass, pendingTimers }
}

t.test('two calls begin at once, two wait, and more are refused', async (t) => {
  const { bulkhead, begun, call, end, pendingTimers } = setUp()
  const accepted = ['a', 'b', 'c', 'd'].map((name) => call(name))
  await t.rejects(call('e'), overloaded)
  t.strictSame(begun, ['a', 'b'])
  t.strictSame([bulkhead.inFlight(), bulkhead.waiting()], [2, 2])
  await end('b')
  t.strictSame(begun, ['a', 'b', 'c'])
  t.strictSame([bulkhead.inFlight(), bulkhead.waiting()], [2, 1])
  for (const name of ['a', 'c', 'd']) await end(name)
  t.strictSame(await Promise.all(accepted), ['a', 'b', 'c', 'd'])
  t.strictSame([bulkhead.inFlight(), bulkhead.waiting()], [0, 0])
  t.equal(pendingTimers(), 0)
})

t.test('a call that waits too long is refused, and never begins', async (t) => {
  const { bulkhead, begun, call, end, pass, pendingTimers } = setUp()
  const running = [call('a'), call('b')]
  const late = t.rejects(call('c', 500), overloaded)
  await pass(499)
  t.equal(bulkhead.waiting(), 1)
  await pass(1)
  await late
  t.equal(bulkhead.waiting(), 0)
  for (const name of ['a', 'b']) await end(name)
  await Promise.all(running)
  t.strictSame(begun, ['a', 'b'])
  t.equal(pendingTimers(), 0)
})

t.test('a call that has begun may take longer than it may wait', async (t) => {
  const { call, end, pass, pendingTimers } = setUp()
  const running = [call('a'), call('b')]
  const waiting = call('c', 500)
  t.equal(pendingTimers(), 1, 'only a call that waits has a time limit')
  await end('a')
  t.equal(pendingTimers(), 0)
  await pass(10_000)
  for (const name of ['b', 'c']) await end(name)
  t.equal(await waiting, 'c')
  await Promise.all(running)
})

t.test('a call that fails frees its place', async (t) => {
  const { begun, call, end, fail } = setUp()
  const failing = t.rejects(call('a'), { message: 'lost' })
  const others = [call('b'), call('c')]
  await fail('a', new Error('lost'))
  await failing
  t.strictSame(begun, ['a', 'b', 'c'])
  for (const name of ['b', 'c']) await end(name)
  await Promise.all(others)
})
