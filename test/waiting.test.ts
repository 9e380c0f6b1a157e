import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { spawnNode } from './helper.js'
import { inTime, until } from './waiting.js'

const never = new Promise<never>(() => {})
const hour = 3_600_000

// The timers of a wait keep no process alive, and nothing else does here.
const keptAlive = setInterval(() => {}, 1000)
t.teardown(() => clearInterval(keptAlive))

t.test('a wait that takes too long says what it waited for', async (t) => {
  const message = 'timed out after 0.02 s waiting for: the parcel'
  await t.rejects(inTime(never, 'the parcel', 20), { message })
  await t.rejects(
    inTime(never, () => 'the parcel', 20),
    { message },
  )
  await t.rejects(
    until(() => false, 'the parcel', 20),
    { message },
  )
  await t.rejects(
    until(() => never, 'the parcel', 20),
    { message },
    'also if the condition never resolves',
  )
})

t.test('a condition is not checked after its wait has ended', async (t) => {
  let checks = 0
  const isTrue = () => {
    checks += 1
    return false
  }
  await t.rejects(until(isTrue, 'the parcel', 20))
  const before = checks
  await delay(20)
  t.ok(before > 1)
  t.equal(checks, before)
})

t.test('a wait passes on the result and the error', async (t) => {
  t.equal(await inTime(Promise.resolve(5), 'the parcel'), 5)
  t.equal(await inTime(Promise.resolve(undefined), 'the parcel'), undefined)
  await t.rejects(inTime(Promise.reject(new Error('lost')), 'the parcel'), { message: 'lost' })
  await t.rejects(
    until(() => Promise.reject(new Error('lost')), 'the parcel'),
    { message: 'lost' },
  )
  let checks = 0
  await until(() => ++checks === 3, 'the third check')
  t.equal(checks, 3)
})

t.test('a wait leaves no timer behind', async (t) => {
  const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
  const before = timers()
  await inTime(Promise.resolve(), 'the parcel', hour)
  await inTime(Promise.reject(new Error('lost')), 'the parcel', hour).catch((error) => error)
  await until(() => true, 'the parcel', hour)
  t.equal(timers(), before)
})

t.test('a process that ends without the expected output shows its output', async (t) => {
  const { waitFor } = spawnNode(t, ['--eval', 'console.log("one"); console.error("two")'], {})
  await t.rejects(waitFor(/three/), {
    message: /^exited with 0 without output that matches \/three\/; the last output: one\ntwo\n$/,
  })
})
