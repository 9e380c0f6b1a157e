import { once } from 'node:events'
import t, { type Test } from 'tap'
import { addressesOf, inTime, send, spawnNode, startPeers, until } from '../helper.js'

const entry = 'dist/server.js'
const requestsAtOnce = 50

async function start(t: Test, args = [entry], overrides: Record<string, string> = {}) {
  const { environment, secrets, token } = await startPeers(t)
  // Identical requests get the same token: this is about lines alone.
  const env = { ...environment, PORT: '0', MANAGEMENT_PORT: '0', KYB_REPLAY_SECONDS: '60', ...overrides }
  const server = spawnNode(t, args, env, secrets)
  const { url, managementUrl } = await addressesOf(server)
  const headers = { authorization: `Bearer ${await token()}` }
  const mint = () => send(`${url}/onboarding/kyb-token`, { method: 'POST', headers })
  let count = 0
  return {
    ...server,
    responses: () => count,
    async mintSome(): Promise<void> {
      const responses = await Promise.all(Array.from({ length: requestsAtOnce }, mint))
      t.ok(responses.every(({ status }) => status === 201))
      count += responses.length
    },
    readiness: async () => (await send(`${managementUrl}/readyz`)).status,
    async dropped(): Promise<number> {
      const { text } = await send(`${managementUrl}/metrics`)
      return Number(/^log_lines_dropped_total (\d+)$/m.exec(text)?.[1])
    },
    async failing(): Promise<number> {
      const { text } = await send(`${managementUrl}/metrics`)
      return Number(/^log_output_failing (\d)$/m.exec(text)?.[1])
    },
  }
}

type Server = Awaited<ReturnType<typeof start>>

async function mintUntilDropped({ mintSome, dropped }: Server): Promise<void> {
  await until(async () => {
    await mintSome()
    return (await dropped()) > 0
  }, 'the service to drop log lines')
}

t.test('a log reader that does not read delays no request, and lost lines are counted', async (t) => {
  const server = await start(t)
  t.equal(await server.dropped(), 0)
  server.child.stdout.pause()
  await mintUntilDropped(server)
  const dropped = await server.dropped()
  server.child.stdout.resume()
  server.child.kill('SIGTERM')
  t.equal(await server.exited(), 0)
  const lines = server.output.stdout.trim().split('\n')
  const messages = lines.map((line) => JSON.parse(line).msg)
  t.equal(
    messages.filter((message) => message === 'audit' || message === 'request').length,
    server.responses() * 2 - dropped,
  )
  t.equal(messages.at(-1), 'shutting down')
})

t.test('a full disk delays no request', async (t) => {
  const fill =
    'import{closeSync as c,openSync as o}from"node:fs";process.on("SIGWINCH",()=>{c(1);o("/dev/full","w")})'
  const server = await start(t, ['--import', `data:text/javascript,${fill}`, entry])
  t.equal(await server.failing(), 0)
  server.child.kill('SIGWINCH')
  await server.mintSome()
  await until(
    async () => (await server.failing()) === 1,
    'the metric to report that the log cannot be written',
  )
  await mintUntilDropped(server)
  server.child.kill('SIGTERM')
  t.equal(await server.exited(), 0)
  t.equal(server.output.stderr, '')
})

t.test('a log reader that stops reading delays no request', async (t) => {
  const server = await start(t)
  server.child.stdout.destroy()
  await server.mintSome()
  await server.mintSome()
  server.child.kill('SIGTERM')
  t.equal(await server.exited(), 0)
  t.equal(server.output.stderr, '')
})

t.test('a log reader that never reads does not keep the process from ending', async (t) => {
  const server = await start(t)
  server.child.stdout.pause()
  await mintUntilDropped(server)
  const signalledAt = performance.now()
  server.child.kill('SIGTERM')
  // Not `exited`: that waits for the rest of the output.
  const [code] = await inTime(once(server.child, 'exit'), 'the process to end')
  t.equal(code, 0)
  t.ok(performance.now() - signalledAt < 5000, 'about a second after the last request')
  server.child.stdout.resume()
})

t.test('a second signal ends a process whose output is not read', async (t) => {
  const server = await start(t, [entry], { DRAIN_DELAY_MS: '15000' })
  server.child.stdout.pause()
  await mintUntilDropped(server)
  server.child.kill('SIGTERM')
  await until(async () => (await server.readiness()) === 503, 'the readiness check to return 503')
  server.child.kill('SIGTERM')
  const [code] = await inTime(once(server.child, 'exit'), 'the process to end')
  t.equal(code, 1)
  server.child.stdout.resume()
})
