import dns from 'node:dns'
import t, { type Test } from 'tap'
import { createLookup } from '../../../src/services/idenfy/lookup.js'
import { createVirtualClock } from '../../virtual-clock.js'

type Callback = (...result: unknown[]) => void

/** A resolver that responds when the test says so. */
function stubResolver(t: Test) {
  const { lookup } = dns
  const asked: { name: string; respond: Callback }[] = []
  t.teardown(() => {
    dns.lookup = lookup
  })
  dns.lookup = ((name: string, _options: object, respond: Callback) => asked.push({ name, respond })) as never
  return asked
}

t.test('a name is resolved once at a time, and again later', async (t) => {
  const asked = stubResolver(t)
  const { lookup } = createLookup(createVirtualClock().clock)
  const results: unknown[] = []
  const resolve = (name: string, options = {}) => lookup(name, options, (...result) => results.push(result))
  resolve('a.example')
  resolve('a.example')
  resolve('b.example')
  resolve('a.example', { all: true })
  t.strictSame(
    asked.map(({ name }) => name),
    ['a.example', 'b.example', 'a.example'],
  )
  asked[0]?.respond(null, '192.0.2.1', 4)
  t.strictSame(results, [
    [null, '192.0.2.1', 4],
    [null, '192.0.2.1', 4],
  ])
  resolve('a.example')
  t.equal(asked.length, 4)
  const failure = new Error('ENOTFOUND')
  asked[3]?.respond(failure)
  t.strictSame(results.at(-1), [failure])
})

t.test('a lookup that takes long hangs', async (t) => {
  const asked = stubResolver(t)
  const { clock, skip } = createVirtualClock()
  const { lookup, isHung } = createLookup(clock)
  t.equal(isHung(), false)
  lookup('a.example', {}, () => {})
  t.equal(isHung(), false)
  skip(1_001)
  t.equal(isHung(), true)
  asked[0]?.respond(null, '192.0.2.1', 4)
  t.equal(isHung(), false)
})
