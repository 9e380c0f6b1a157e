import t from 'tap'
import { withTimeout } from '../../../src/services/auth/with-timeout.js'
import { createVirtualClock } from '../../virtual-clock.js'

t.test('work that ends in time passes its result or its error on, and leaves no timer', async (t) => {
  const { clock, pendingTimers } = createVirtualClock()
  t.equal(await withTimeout(async () => 'result', 1_000, clock), 'result')
  await t.rejects(
    withTimeout(() => Promise.reject(new Error('lost')), 1_000, clock),
    { message: 'lost' },
  )
  t.equal(pendingTimers(), 0)
})

t.test('work that takes too long is told to stop, and not waited for', async (t) => {
  const { clock, pass } = createVirtualClock()
  let signal: AbortSignal | undefined
  const work = (given: AbortSignal) => {
    signal = given
    return new Promise<never>(() => {})
  }
  const rejected = t.rejects(withTimeout(work, 1_000, clock), {
    name: 'TimeoutError',
    message: 'Not done within 1000 ms',
  })
  await pass(999)
  t.equal(signal?.aborted, false)
  await pass(1)
  await rejected
  t.equal(signal?.aborted, true)
  t.match(signal?.reason, { name: 'TimeoutError' })
})
