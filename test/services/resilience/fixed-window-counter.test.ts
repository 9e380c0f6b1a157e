import t from 'tap'
import { createFixedWindowCounter } from '../../../src/services/resilience/fixed-window-counter.js'
import { createVirtualClock } from '../../virtual-clock.js'

function setUp(maxKeys = 10) {
  const { clock, skip } = createVirtualClock()
  return { ...createFixedWindowCounter({ windowMs: 1000, maxKeys, clock }), skip }
}

t.test('a window begins with the first event of its key, and ends on time', async (t) => {
  const { count, skip } = setUp()
  t.strictSame(count('a'), { current: 1, ttl: 1000 })
  skip(600)
  t.strictSame(count('a'), { current: 2, ttl: 400 })
  skip(399)
  t.strictSame(count('a'), { current: 3, ttl: 1 })
  skip(1)
  t.strictSame(count('a'), { current: 1, ttl: 1000 }, 'the next window')
})

t.test('each key has a window of its own', async (t) => {
  const { count, skip } = setUp()
  count('a')
  skip(600)
  t.strictSame(count('b'), { current: 1, ttl: 1000 })
  t.strictSame(count('a'), { current: 2, ttl: 400 })
})

t.test('the key that was used least recently is dropped if there are too many', async (t) => {
  const { count } = setUp(2)
  for (const key of ['a', 'b', 'a', 'c']) count(key)
  t.equal(count('a').current, 3)
  t.equal(count('b').current, 1)
})
