import { execFile, spawnSync } from 'node:child_process'
import { createServer } from 'node:net'
import { promisify } from 'node:util'
import t from 'tap'
import { send, spawnNode } from '../helper.js'

const entry = 'dist/sandbox/server.js'
const anyPort = {
  SANDBOX_PORT: '0',
  SANDBOX_MANAGEMENT_PORT: '0',
  SANDBOX_IDENFY_PORT: '0',
  SANDBOX_IDENTITY_PORT: '0',
}

const noCurl = spawnSync('curl', ['--version']).error && 'there is no curl on this machine'

t.test('one command starts it all, and the printed curl works', { skip: noCurl ?? false }, async (t) => {
  const { child, exited, output, waitFor } = spawnNode(t, [entry], anyPort)
  const [, command = ''] = await waitFor(/^ {2}(curl [\s\S]*?)\n\n/m)
  const { stdout } = await promisify(execFile)('sh', ['-c', command])
  const answer = JSON.parse(stdout)
  t.match(answer, { clientId: 'acme', externalRef: 'u-1', redirectUrl: /\?authToken=[0-9a-f]{40}$/ })
  t.notMatch(output.stdout, answer.tokenString)

  const [, management = ''] = await waitFor(/management +(http\S+)/)
  t.strictSame((await send(`${management}/readyz`)).json, { status: 'ready' })
  child.kill('SIGTERM')
  t.equal(await exited, 0)
  t.equal(output.stderr, '')
})

t.test('each part starts alone, as compose starts it', async (t) => {
  const parts: [string, string, number][] = [
    ['idenfy-simulator', '/_sandbox/requests', 200],
    ['identity-provider', '/.well-known/jwks.json', 200],
  ]
  for (const [part, path, status] of parts) {
    const { child, exited, waitFor } = spawnNode(t, [entry, part], anyPort)
    const [url] = await waitFor(/http\S+/)
    t.equal((await send(url + path)).status, status, part)
    child.kill('SIGTERM')
    t.equal(await exited, 0)
  }
})

t.test('what cannot start says why', async (t) => {
  const squatter = createServer()
  await new Promise<void>((resolve) => squatter.listen(0, '127.0.0.1', resolve))
  t.teardown(() => squatter.close())
  const port = String((squatter.address() as { port: number }).port)

  const rows: [string[], Record<string, string>, string][] = [
    [[], { SANDBOX_IDENFY_PORT: port }, `Port ${port} is in use; set SANDBOX_IDENFY_PORT to another one`],
    [[], { SANDBOX_PORT: port }, `Port ${port} is in use; set SANDBOX_PORT to another one`],
    // An address of RFC 5737 that no machine has.
    [[], { SANDBOX_HOST: '192.0.2.1' }, 'listen EADDRNOTAVAIL: address not available 192.0.2.1'],
    [[], { SANDBOX_PORT: 'x' }, 'env/SANDBOX_PORT must be integer'],
    [['idp'], {}, 'There is no part "idp"; there are idenfy-simulator, identity-provider, and all'],
  ]
  for (const [args, env, message] of rows) {
    const { exited, output } = spawnNode(t, [entry, ...args], { ...anyPort, ...env })
    t.equal(await exited, 1)
    t.equal(output.stderr, `The sandbox cannot start. ${message}\n`)
  }
})
