import t from 'tap'
import { request } from 'undici'
import { createLogger } from '../../src/observability/logger.js'
import { Problem } from '../../src/problems/problem.js'

function logged(write: (logger: ReturnType<typeof createLogger>) => void): Record<string, unknown> {
  const lines: string[] = []
  write(createLogger('info', { write: (line) => lines.push(line) }))
  t.equal(lines.length, 1)
  return JSON.parse(lines[0] ?? '')
}

t.test('an error brings where it happened, never what it quotes', async (t) => {
  const thrown = (run: () => unknown): unknown => {
    try {
      return run()
    } catch (error) {
      return error
    }
  }
  const cause = thrown(() => JSON.parse('canary\n    at canary'))
  const { err } = logged((logger) => logger.error({ err: new Error('canary', { cause }) }))
  t.match(err, {
    name: 'Error',
    stack: /^at .*logger\.test/,
    cause: { name: 'SyntaxError', stack: /^at JSON\.parse/ },
  })
  t.notMatch(JSON.stringify(err), 'canary')
})

t.test('our own words and those of the system pass', async (t) => {
  const cause = await request('http://127.0.0.1:1').catch((error) => error)
  const { err } = logged((logger) => logger.error({ err: new Problem('provider-unavailable', { cause }) }))
  t.match(err, {
    name: 'Problem',
    code: 'provider-unavailable',
    message: 'The verification provider is unavailable',
    cause: { code: 'ECONNREFUSED', syscall: 'connect', message: 'connect ECONNREFUSED 127.0.0.1:1' },
  })
})

t.test('a thrown value does not have to be an error', async (t) => {
  t.strictSame(logged((logger) => logger.error({ err: 'canary' })).err, { name: 'string' })
  const bare = Object.assign(new Error('canary'), { stack: undefined })
  t.strictSame(logged((logger) => logger.error({ err: bare })).err, { name: 'Error', stack: '' })
})

t.test('the log shows no headers and no URL of a request or response', async (t) => {
  const req = { method: 'GET', url: '/?canary', headers: { authorization: 'canary' } }
  const line = logged((logger) => logger.info({ req, res: { statusCode: 200, headers: { x: 'canary' } } }))
  t.match(line, { req: { method: 'GET' }, res: { statusCode: 200 } })
  t.notMatch(JSON.stringify(line), 'canary')
})

t.test("Node's own messages pass without the values in them", async (t) => {
  const thrown = (run: () => unknown): unknown => {
    try {
      return run()
    } catch (error) {
      return error
    }
  }
  const none = undefined as unknown as Record<string, () => unknown>
  const text = 'canary' as unknown as Record<string, unknown>
  const rows: [run: () => unknown, message: string | undefined][] = [
    [() => none.name, "Cannot read properties of undefined (reading 'name')"],
    [() => new Date(Number.NaN).toISOString(), 'Invalid time value'],
    [
      () => Buffer.from(1 as unknown as string),
      'The first argument must be of type string or an instance of Buffer, ArrayBuffer, or Array or an Array-like Object.',
    ],
    [() => Buffer.alloc('canary' as unknown as number), 'The "size" argument must be of type number.'],
    [() => 'x' in text, undefined],
    [() => JSON.parse('canary'), 'Unexpected token'],
    [() => JSON.parse('{"canary":'), 'Unexpected end of JSON input'],
    [() => new Function('canary canary'), undefined],
    [() => new URL('canary'), 'Invalid URL'],
    [() => Buffer.from('x').toString('canary' as BufferEncoding), 'Unknown encoding'],
    [() => new Headers([['x', 'canary\n']]), undefined],
    [
      () => {
        const { name } = none
        return name
      },
      "Cannot destructure property 'name' of 'none' as it is undefined.",
    ],
    [() => Object.keys(none), 'Cannot convert undefined or null to object'],
    [() => JSON.stringify(1n), 'Do not know how to serialize a BigInt'],
    [() => [].reduce((a) => a), 'Reduce of empty array with no initial value'],
  ]
  for (const [run, message] of rows) {
    const line = logged((logger) => logger.error({ err: thrown(run) }))
    t.equal((line.err as { message?: string }).message, message)
    t.notMatch(JSON.stringify(line), 'canary')
  }
})

t.test('an unreadable error does not stop the log', async (t) => {
  const error = Object.defineProperty(new Error('canary'), 'stack', {
    get() {
      throw new Error('canary')
    },
  })
  t.strictSame(logged((logger) => logger.error({ err: error })).err, { name: 'unreadable error' })
  t.strictSame(logged((logger) => logger.error({ err: null })).err, { name: 'null' })
  const line = logged((logger) => logger.error(new Error('canary')))
  t.match(line, { msg: 'error', err: { name: 'Error' } })
  t.notMatch(JSON.stringify(line), 'canary')
})
