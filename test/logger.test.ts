import t from 'tap'
import { request } from 'undici'
import { createLogger } from '../src/logger.js'
import { Problem } from '../src/problems.js'

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

t.test('what is thrown need not be an error', async (t) => {
  t.strictSame(logged((logger) => logger.error({ err: 'canary' })).err, { name: 'string' })
  const bare = Object.assign(new Error('canary'), { stack: undefined })
  t.strictSame(logged((logger) => logger.error({ err: bare })).err, { name: 'Error', stack: '' })
})

t.test('a request or an answer that is logged shows nothing of its headers or URL', async (t) => {
  const req = { method: 'GET', url: '/?canary', headers: { authorization: 'canary' } }
  const line = logged((logger) => logger.info({ req, res: { statusCode: 200, headers: { x: 'canary' } } }))
  t.match(line, { req: { method: 'GET' }, res: { statusCode: 200 } })
  t.notMatch(JSON.stringify(line), 'canary')
})
