import t from 'tap'
import { createCircuitBreaker } from '../../../src/services/resilience/circuit-breaker.js'
import { createVirtualClock } from '../../virtual-clock.js'

type Says = 'down' | 'up' | 'nothing'

/** A breaker whose errors say in their message what they mean. */
function setUp() {
  const { clock, skip } = createVirtualClock()
  const classify = (error: unknown) => (error as Error).message as Says
  const breaker = createCircuitBreaker({ classify, clock })
  const fail = (says: Says) => breaker.run(() => Promise.reject(new Error(says))).catch((error) => error)
  const succeed = () => breaker.run(async () => 'result')
  const repeat = async (times: number, call: () => Promise<unknown>) => {
    for (let done = 0; done < times; done++) await call()
  }
  /** A call that the test ends. */
  function begin() {
    let end = (_result: string) => {}
    let fail = (_error: Error) => {}
    const result = breaker.run(
      () =>
        new Promise<string>((resolve, reject) => {
          end = resolve
          fail = reject
        }),
    )
    return { result, end: () => end('result'), fail: (says: Says) => fail(new Error(says)) }
  }
  return { breaker, skip, begin, succeed, down: () => fail('down'), up: () => fail('up'), fail, repeat }
}

/** The refusal that a client may repeat after so many seconds. */
const refusal = (retryAfterSeconds: number) => ({
  code: 'provider-unavailable',
  options: { retryAfterSeconds, diagnosis: { reason: 'circuit-open' } },
})

t.test('a closed circuit passes results and errors on', async (t) => {
  const { breaker, succeed, fail } = setUp()
  t.equal(breaker.isOpen(), false)
  t.doesNotThrow(breaker.check)
  t.equal(await succeed(), 'result')
  t.match(await fail('up'), { message: 'up' })
})

t.test('five outages in a row open the circuit for five seconds', async (t) => {
  const { breaker, down, succeed, skip, repeat } = setUp()
  await repeat(4, down)
  t.equal(breaker.isOpen(), false)
  await down()
  t.equal(breaker.isOpen(), true)
  t.throws(breaker.check, refusal(5))
  let isCalled = false
  const call = async () => {
    isCalled = true
  }
  await t.rejects(breaker.run(call), refusal(5))
  t.equal(isCalled, false, 'the provider is left alone')
  skip(1)
  t.throws(breaker.check, refusal(5))
  skip(3_999)
  t.throws(breaker.check, refusal(1))
  skip(999)
  t.throws(breaker.check, refusal(1))
  t.equal(breaker.isOpen(), true)
  skip(1)
  t.equal(breaker.isOpen(), false)
  t.doesNotThrow(breaker.check)
  t.equal(await succeed(), 'result')
})

t.test('a call that shows that the provider is up ends a row of outages', async (t) => {
  for (const end of ['succeed', 'up'] as const) {
    const { breaker, down, repeat, [end]: isUp } = setUp()
    await repeat(4, down)
    await isUp()
    await repeat(4, down)
    t.equal(breaker.isOpen(), false, end)
    await down()
    t.equal(breaker.isOpen(), true, end)
  }
})

t.test('an error that says nothing about the provider does not count', async (t) => {
  const { breaker, down, fail, repeat } = setUp()
  await repeat(10, () => fail('nothing'))
  await repeat(4, down)
  await fail('nothing')
  t.equal(breaker.isOpen(), false)
  await down()
  t.equal(breaker.isOpen(), true, 'the row goes on')
})

t.test('half of twenty calls open the circuit', async (t) => {
  const { breaker, down, succeed, repeat } = setUp()
  for (let pair = 0; pair < 9; pair++) {
    await succeed()
    await down()
  }
  await succeed()
  t.equal(breaker.isOpen(), false, 'nineteen are not enough')
  await down()
  t.equal(breaker.isOpen(), true)

  const mostlyUp = setUp()
  await mostlyUp.succeed()
  await mostlyUp.succeed()
  await repeat(50, async () => {
    await mostlyUp.succeed()
    await mostlyUp.down()
  })
  t.equal(mostlyUp.breaker.isOpen(), false, 'nor is less than half')
})

t.test('calls that began before the last success began do not open the circuit', async (t) => {
  const { breaker, begin, succeed, down, skip, repeat } = setUp()
  const hanging = Array.from({ length: 5 }, begin)
  skip(1)
  await succeed()
  for (const call of hanging) {
    call.fail('down')
    await call.result.catch(() => {})
  }
  t.equal(breaker.isOpen(), false)
  await repeat(4, down)
  t.equal(breaker.isOpen(), false)
  await down()
  t.equal(breaker.isOpen(), true)
})

t.test('a slow success that began early does not hide the outages of later calls', async (t) => {
  const { breaker, begin, succeed, down, skip, repeat } = setUp()
  const slow = begin()
  skip(1)
  await succeed()
  const hanging = Array.from({ length: 5 }, begin)
  slow.end()
  await slow.result
  for (const call of hanging) {
    call.fail('down')
    await call.result.catch(() => {})
  }
  t.equal(breaker.isOpen(), true, 'they began when the later success did')
  skip(5_000)
  await succeed()
  await repeat(4, down)
  t.equal(breaker.isOpen(), false)
})

t.test('a good call does not open the circuit, whatever came before', async (t) => {
  const { breaker, down, succeed, repeat } = setUp()
  await repeat(3, async () => {
    await repeat(4, down)
    await succeed()
  })
  await repeat(4, succeed)
  t.equal(breaker.isOpen(), false, 'twelve outages in nineteen calls')
  await succeed()
  t.equal(breaker.isOpen(), false)
  await down()
  t.equal(breaker.isOpen(), true, 'the next outage does')
})

t.test('calls are forgotten after half a minute', async (t) => {
  const { breaker, down, succeed, skip, repeat } = setUp()
  // Buckets of three seconds: the clock of the test begins at the start of one.
  await repeat(9, async () => {
    await down()
    await succeed()
  })
  skip(29_900)
  await down()
  t.equal(breaker.isOpen(), false, 'nineteen calls')
  await down()
  t.equal(breaker.isOpen(), true, 'within the time they count')

  const later = setUp()
  await repeat(9, async () => {
    await later.down()
    await later.succeed()
  })
  later.skip(30_000)
  await repeat(4, later.down)
  t.equal(later.breaker.isOpen(), false, 'after it they do not')
})

t.test('calls are forgotten one bucket after the other', async (t) => {
  const { breaker, down, succeed, skip, repeat } = setUp()
  await repeat(8, succeed)
  skip(15_000)
  await repeat(8, succeed)
  skip(15_000)
  await repeat(4, down)
  await succeed()
  await repeat(3, down)
  t.equal(breaker.isOpen(), false, '7 of 16')
  await succeed()
  await repeat(3, down)
  t.equal(breaker.isOpen(), true, '10 of 20')
})

t.test('one call at a time goes through as a probe', async (t) => {
  const { breaker, down, succeed, skip, repeat, begin } = setUp()
  await repeat(5, down)
  skip(5_000)
  const probe = begin()
  t.equal(breaker.isOpen(), true, 'to all others')
  t.throws(breaker.check, refusal(1))
  await t.rejects(succeed(), refusal(1))
  probe.end()
  t.equal(await probe.result, 'result')
  t.equal(breaker.isOpen(), false)
  t.equal(await succeed(), 'result')
})

t.test('a call from before an opening that ends during a probe makes room for no second one', async (t) => {
  const { breaker, down, skip, repeat, begin } = setUp()
  const old = begin()
  await repeat(5, down)
  skip(5_000)
  const probe = begin()
  old.end()
  await old.result
  t.throws(breaker.check, refusal(1))
  probe.end()
  await probe.result
  t.equal(breaker.isOpen(), false)
})

t.test('a bad probe opens the circuit for another five seconds', async (t) => {
  const { breaker, down, skip, repeat, begin } = setUp()
  await repeat(5, down)
  skip(7_000)
  const probe = begin()
  skip(1_000)
  probe.fail('down')
  await t.rejects(probe.result, { message: 'down' })
  t.equal(breaker.isOpen(), true)
  t.throws(breaker.check, refusal(5))
  skip(4_999)
  t.equal(breaker.isOpen(), true)
  skip(1)
  t.equal(breaker.isOpen(), false)
  await down()
  t.equal(breaker.isOpen(), true, 'and so does the next one')
})

t.test('a probe that the provider refuses closes the circuit', async (t) => {
  const { breaker, down, up, skip, repeat } = setUp()
  await repeat(5, down)
  skip(5_000)
  await up()
  t.equal(breaker.isOpen(), false)
  skip(60_000)
  t.equal(breaker.isOpen(), false)
})

t.test('a probe that says nothing leaves the next call to be one', async (t) => {
  const { breaker, down, fail, skip, repeat } = setUp()
  await repeat(5, down)
  skip(5_000)
  await fail('nothing')
  t.equal(breaker.isOpen(), false)
  await down()
  t.equal(breaker.isOpen(), true, 'one outage is enough')
})

t.test('a closed circuit starts afresh', async (t) => {
  const { breaker, down, succeed, skip, repeat } = setUp()
  await repeat(6, succeed)
  await repeat(5, down)
  skip(5_000)
  await succeed()
  await repeat(4, down)
  t.equal(breaker.isOpen(), false, 'the row of outages is over')
  await succeed()
  await repeat(4, down)
  t.equal(breaker.isOpen(), false, 'and the calls before are not counted: 14 of 20')
})

t.test('a call from before an opening is not counted', async (t) => {
  const { breaker, down, succeed, skip, repeat, begin } = setUp()
  const good = begin()
  const bad = begin()
  const later = [begin(), begin()]
  await repeat(5, down)
  good.end()
  t.equal(await good.result, 'result')
  t.equal(breaker.isOpen(), true, 'a success does not close the circuit')
  skip(3_000)
  bad.fail('down')
  await t.rejects(bad.result, { message: 'down' })
  skip(2_000)
  t.equal(breaker.isOpen(), false, 'an outage does not keep it open')
  await succeed()
  await repeat(4, down)
  for (const call of later) {
    call.fail('down')
    await t.rejects(call.result, { message: 'down' })
  }
  t.equal(breaker.isOpen(), false, 'nor does it count after the probe')
})
