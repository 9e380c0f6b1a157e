import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { addressesOf, matchProblem, openSocket, send, spawnNode, startPeers, until } from './helper.js'

const entry = 'dist/server.js'
/** What the image runs. */
const bundle = 'bundle/server.js'
/** The coverage is that of the sources, not of what is made of them and their libraries. */
const uncounted = { _TAPJS_PROCESSINFO_COVERAGE_: '0' }
const anyPort = { PORT: '0', MANAGEMENT_PORT: '0' }

async function start(t: Test, args: string[] = [entry], env: Record<string, string> = {}) {
  const peers = await startPeers(t)
  const server = spawnNode(t, args, { ...peers.environment, ...anyPort, ...env }, peers.secrets)
  return { ...peers, ...server, ...(await addressesOf(server)) }
}

const handlesRequests = (file: string, env?: Record<string, string>) => async (t: Test) => {
  const server = await start(t, [file], env)
  const headers = { authorization: `Bearer ${await server.token()}` }
  const path = `${server.url}/onboarding/kyb-token`

  t.equal((await send(`${server.managementUrl}/livez`)).status, 200)
  const { status, json } = await send(path, { method: 'POST', headers })
  t.equal(status, 201)
  t.match(json.redirectUrl, /^https:\/\/kyb\.ui\.idenfy\.com\/welcome\?authToken=/)
  t.equal((await send(`${server.managementUrl}/readyz`)).status, 200)
  matchProblem(t, await send(path, { method: 'POST' }), 'unauthenticated')
  await server.waitFor(/"outcome":"unauthenticated"/)

  server.child.kill('SIGTERM')
  t.equal(await server.exited(), 0)
  t.equal(server.output.stderr, '')
  const lines = server.output.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.match(
    lines
      .filter(({ msg }) => msg !== undefined && !/^Server listening/.test(msg))
      .map(({ msg, outcome }) => outcome ?? msg),
    ['started', 'audit', 'success', 'unauthenticated', 'shutting down'],
  )
  t.match(
    lines.find(({ msg }) => msg === 'started'),
    { idenfyEnvironment: 'production' },
  )
}
t.test('the built server handles requests and ends with code 0', handlesRequests(entry))
t.test('the bundle handles requests and ends with code 0', handlesRequests(bundle, uncounted))

t.test('the bundle finds what is loaded only where it is used', async (t) => {
  const redis = {
    REDIS_URL: 'redis://127.0.0.1:1',
    STATE_ENCRYPTION_KEY: Buffer.alloc(32).toString('base64'),
  }
  const server = await start(t, [bundle], { ...uncounted, ...redis, DOCS: 'true' })
  await server.waitFor(/Redis unavailable/)
  for (const path of ['/docs/', '/docs/static/swagger-ui.css', '/problems/overloaded']) {
    t.equal((await send(server.url + path)).status, 200, path)
  }
})

t.test('SIGTERM waits for requests in flight', async (t) => {
  const server = await start(t)
  await server.setFault({ delayMs: 300 })
  const minted = send(`${server.url}/onboarding/kyb-token`, {
    method: 'POST',
    headers: { authorization: `Bearer ${await server.token()}` },
  })
  await until(async () => (await server.arrived()).length === 1, 'the POST to reach iDenfy')
  server.child.kill('SIGTERM')
  t.equal((await minted).status, 201)
  t.equal(await server.exited(), 0)
})

t.test('connections without a request do not hold up the end', async (t) => {
  const server = await start(t)
  const token = await server.token()
  const head = `POST /onboarding/kyb-token HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\n`
  const connections = [
    ['', 'GET / HTTP/1.1\r\nHost: a', `${head}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{`],
    ['', 'GET /livez HTTP/1.1\r\nHost: a'],
  ].flatMap((texts, index) =>
    texts.map((text) => {
      const connection = openSocket(index === 0 ? server.url : server.managementUrl)
      connection.socket.write(text)
      return connection
    }),
  )
  // An idle connection that has been used, too; and what was sent before has arrived.
  t.equal((await send(`${server.url}/none`)).status, 404)
  t.equal((await send(`${server.managementUrl}/livez`)).status, 200)
  const startedAt = performance.now()
  server.child.kill('SIGTERM')
  t.equal(await server.exited(), 0)
  t.ok(performance.now() - startedAt < 2000, 'long before the limit of 25 s')
  const [nothing, half, body] = await Promise.all(connections.map(({ received }) => received()))
  t.strictSame([nothing, half], ['', ''])
  t.match(body, /^HTTP\/1\.1 503 /, 'a request that has begun is sent elsewhere')
})

t.test('the image listens on both families, and on one where there is no other', async (t) => {
  const noIpv6 = 'data:text/javascript,process.binding("tcp_wrap").TCP.prototype.bind6 = () => -97'
  for (const args of [[entry], ['--no-deprecation', '--import', noIpv6, entry]]) {
    const server = await start(t, args, { HOST: '::', MANAGEMENT_HOST: '::' })
    const [, port] = /"port":(\d+)/.exec(server.output.stdout) ?? []
    t.match(server.output.stdout, args.length === 1 ? '"address":"::"' : '"address":"0.0.0.0"')
    t.equal((await send(`http://127.0.0.1:${port}/none`)).status, 404)
  }
})

t.test('idle connections stay open for as long as the balancer wants', async (t) => {
  const server = await start(t, [entry], { KEEP_ALIVE_TIMEOUT_MS: '620000' })
  t.equal((await send(`${server.url}/none`)).headers['keep-alive'], 'timeout=620')
})

t.test('a rejection without a reason is fatal too', async (t) => {
  const trap = 'data:text/javascript,process.on("SIGCONT",()=>{Promise.reject()})'
  const server = await start(t, ['--import', trap, entry])
  server.child.kill('SIGCONT')
  t.equal(await server.exited(), 1)
  t.match(server.output.stdout, /"level":"fatal",.*"msg":"shutting down"/)
})

t.test('SIGTERM: not ready at once, requests are still taken for a while, then it ends', async (t) => {
  const server = await start(t, [entry], { DRAIN_DELAY_MS: '700' })
  const headers = { authorization: `Bearer ${await server.token()}` }
  const mint = () => send(`${server.url}/onboarding/kyb-token`, { method: 'POST', headers })
  t.equal((await mint()).headers.connection, 'keep-alive')
  server.child.kill('SIGTERM')
  await until(
    async () => (await send(`${server.managementUrl}/readyz`)).status === 503,
    'the readiness check to return 503',
  )
  const { status, headers: fields } = await mint()
  t.strictSame([status, fields.connection], [201, 'close'])
  t.equal(await server.exited(), 0)
})

t.test('a shutdown that takes too long is ended', async (t) => {
  const env = { IDENFY_TIMEOUT_MS: '100', SHUTDOWN_TIMEOUT_MS: '500' }
  const neverCloses = 'data:text/javascript,import h from "node:http";h.Server.prototype.close=()=>{}'
  const server = await start(t, ['--import', neverCloses, entry], env)
  server.child.kill('SIGTERM')
  t.equal(await server.exited(), 1)
  t.match(server.output.stdout, /"level":"error",.*killed by timeout/)
})

t.test('a second signal ends it at once', async (t) => {
  const server = await start(t, [entry], { DRAIN_DELAY_MS: '15000' })
  server.child.kill('SIGTERM')
  await server.waitFor(/shutting down/)
  server.child.kill('SIGTERM')
  t.equal(await server.exited(), 1)
})

t.test('a signal while it is being loaded is not lost', async (t) => {
  const trap = `data:text/javascript,const {once} = process; process.once = function (name, ...rest) {
    once.call(this, name, ...rest); if (name === 'SIGINT') process.emit('SIGTERM'); return this }`
  const { exited, output } = spawnNode(t, ['--import', trap, entry], anyPort)
  t.equal(await exited(), 0)
  t.strictSame(output, { stdout: '', stderr: '' })
})

t.test('an uncaught error ends the process and is logged without its message', async (t) => {
  const trap = 'data:text/javascript,process.on("SIGUSR2",()=>{throw new Error("can"+"ary")})'
  const server = await start(t, ['--import', trap, entry])
  server.child.kill('SIGUSR2')
  t.equal(await server.exited(), 1)
  t.match(server.output.stdout, /"level":"fatal",.*"msg":"shutting down"/)
  t.notMatch(server.output.stdout + server.output.stderr, 'canary')
})

t.test('a wrong configuration lists all its faults by name and ends the process', async (t) => {
  const { exited, output } = spawnNode(t, [entry], {
    PORT: 'canary',
    AUTH_ALGORITHMS: 'HS256',
    AUTH_ISSUER: '',
  })
  t.equal(await exited(), 1)
  const { level, msg, faults, ...rest } = JSON.parse(output.stdout)
  t.strictSame([level, msg, Object.keys(rest)], ['fatal', 'cannot start', ['time']])
  t.strictSame(
    faults.map((fault: string) => `  ${fault}`),
    output.stderr.trimEnd().split('\n').slice(1),
    'for machines and for people',
  )
  t.match(output.stderr, /^onboarding-bff cannot start\. The configuration has \d fault\(s\):\n/)
  for (const name of [
    'PORT',
    'AUTH_ALGORITHMS',
    'AUTH_ISSUER',
    'AUTH_AUDIENCE',
    'IDENFY_API_KEY',
    'IDENFY_API_SECRET',
  ]) {
    t.match(output.stderr, new RegExp(`^  ${name} `, 'm'))
  }
  t.notMatch(output.stdout + output.stderr, 'canary')
})

t.test('a file system that hangs does not keep the process from ending', async (t) => {
  const policy = join(t.testdir({ 'policy.json': '{}' }), 'policy.json')
  const server = await start(t, [entry], { KYB_POLICY_FILE: policy })
  rmSync(policy)
  // Opening it waits for a writer, in a thread that Node waits for.
  execFileSync('mkfifo', [policy])
  await server.waitFor(/the file system hangs/)
  server.child.kill('SIGTERM')
  t.equal(await server.exited(), null)
  t.equal(server.child.signalCode, 'SIGKILL')
  t.match(server.output.stdout, /"msg":"shutting down"/)
})

t.test('libraries do not print what they send', async (t) => {
  const redis = {
    REDIS_URL: 'redis://127.0.0.1:1',
    STATE_ENCRYPTION_KEY: Buffer.alloc(32).toString('base64'),
  }
  const server = await start(t, [entry], { DEBUG: '*', ...redis })
  server.child.kill('SIGTERM')
  t.equal(await server.exited(), 0)
  t.notMatch(server.output.stdout + server.output.stderr, 'ioredis')
})
