import { createServer } from 'node:net'
import t, { type Test } from 'tap'
import { addressesOf, listen, send, spawnNode, startPeers } from './helper.js'

const entry = 'dist/server.js'
/** What the image runs. */
const bundle = 'bundle/server.js'
/** The coverage is that of the sources, not of what is made of them and their libraries. */
const uncounted = { _TAPJS_PROCESSINFO_COVERAGE_: '0' }
const anyPort = { PORT: '0', MANAGEMENT_PORT: '0' }

async function start(t: Test, args: string[] = [entry]) {
  const peers = await startPeers(t)
  const server = spawnNode(t, args, { ...peers.environment, ...anyPort }, peers.secrets)
  return { ...server, ...(await addressesOf(server)) }
}

t.test('an address that the service cannot listen on is named', async (t) => {
  const port = await listen(t, createServer())
  const peers = await startPeers(t)
  const noRights =
    'data:text/javascript,process.binding("tcp_wrap").TCP.prototype.bind=()=>process.binding("uv").UV_EACCES'
  const rows: [Record<string, string>, string, string[]?][] = [
    [{ PORT: String(port) }, `PORT ${port} is in use (EADDRINUSE)`],
    [{ MANAGEMENT_PORT: String(port) }, `MANAGEMENT_PORT ${port} is in use (EADDRINUSE)`],
    [{ HOST: '192.0.2.1' }, 'HOST is not an address of this machine (EADDRNOTAVAIL)'],
    [{ MANAGEMENT_HOST: '192.0.2.1' }, 'MANAGEMENT_HOST is not an address of this machine (EADDRNOTAVAIL)'],
    [
      { PORT: '81' },
      'PORT 81 is not open to this user (EACCES); use a port from 1024 on',
      ['--no-deprecation', '--import', noRights],
    ],
  ]
  for (const [variables, fault, args = []] of rows) {
    const { exited, output } = spawnNode(t, [...args, entry], {
      ...peers.environment,
      ...anyPort,
      ...variables,
    })
    t.equal(await exited(), 1)
    t.match(output.stderr, fault)
    t.strictSame(jsonLines(output.stdout).at(-1)?.faults, [fault])
  }
})

t.test('an unexpected error at start is told without what it quotes', async (t) => {
  const inTheWay = 'import h from "node:http";h.createServer=()=>{throw new TypeError("can"+"ary")}'
  // Outside of any promise that the start waits for.
  const beside =
    'process.on("newListener",n=>n==="uncaughtException"&&process.nextTick(()=>{throw new TypeError("can"+"ary")}))'
  const peers = await startPeers(t)
  for (const trap of [inTheWay, beside]) {
    const { exited, output } = spawnNode(t, ['--import', `data:text/javascript,${trap}`, entry], {
      ...peers.environment,
      ...anyPort,
    })
    t.equal(await exited(), 1)
    t.match(jsonLines(output.stdout).at(-1)?.faults, ['unexpected TypeError', /^ +at /])
    t.notMatch(output.stdout + output.stderr, 'canary')
  }
})

t.test('a stderr that cannot be written loses neither the line on stdout nor the exit code', async (t) => {
  const fill = 'import{closeSync as c,openSync as o}from"node:fs";c(2);o("/dev/full","w")'
  const { exited, output } = spawnNode(t, ['--import', `data:text/javascript,${fill}`, entry], { PORT: 'x' })
  t.equal(await exited(), 1)
  t.match(jsonLines(output.stdout).at(-1), { level: 'fatal', msg: 'cannot start' })
})

t.test('--check-config tells the settings, without a connection and without secrets', async (t) => {
  const peers = await startPeers(t)
  const redis = {
    REDIS_URL: 'rediss://user:canary@redis.example/2',
    STATE_ENCRYPTION_KEY: Buffer.alloc(32, 'canary').toString('base64'),
  }
  const env = { ...peers.environment, ...redis, CORS_ORIGINS: 'https://a.example, https://b.example' }
  for (const [file, counting] of [
    [entry, {}],
    [bundle, uncounted],
  ] as const) {
    const { exited, output } = spawnNode(t, [file, '--check-config'], { ...counting, ...env }, peers.secrets)
    t.equal(await exited(), 0)
    t.equal(output.stderr, '')
    t.notMatch(output.stdout, 'canary')
    t.match(JSON.parse(output.stdout), {
      AUTH_ISSUER: env.AUTH_ISSUER,
      AUTH_JWKS_URL: env.AUTH_JWKS_URL,
      IDENFY_API_SECRET: 'set',
      IDENFY_TIMEOUT_MS: 8000,
      IDENFY_PROXY_URL: null,
      REDIS_URL: 'set, rediss://redis.example',
      STATE_ENCRYPTION_KEY: 'set',
      CORS_ORIGINS: ['https://a.example', 'https://b.example'],
    })
  }

  for (const args of [['--check-config', 'canary'], ['--canary=canary']]) {
    const { exited, output } = spawnNode(t, [entry, ...args], env)
    t.equal(await exited(), 1)
    t.strictSame(JSON.parse(output.stdout).faults, [
      'There is an unknown argument. The only one is --check-config',
    ])
  }
  const { exited, output } = spawnNode(t, [entry, '--check-config'], { ...env, AUTH_REQUIRED_SCOPES: 'a' })
  t.equal(await exited(), 1)
  t.match(JSON.parse(output.stdout), {
    faults: ['AUTH_REQUIRED_SCOPES is not known; did you mean AUTH_REQUIRED_SCOPE?'],
  })
})

t.test('the log begins with the settings in force', async (t) => {
  const { output } = await start(t)
  t.match(
    jsonLines(output.stdout).find(({ msg }) => msg === 'started'),
    { settings: { AUTH_AUDIENCE: 'onboarding', IDENFY_API_KEY: 'set', REDIS_URL: null } },
  )
})

t.test('the output of libraries is JSON too', async (t) => {
  const print = [
    'process.on("SIGWINCH",()=>{',
    'console.log("one",1);console.error("two http://a:canary@b/");process.emitWarning("three");',
    'process.stdout.write("four",()=>process.stdout.write("five"))})',
  ].join('')
  const server = await start(t, ['--import', `data:text/javascript,${print}`, entry])
  server.child.kill('SIGWINCH')
  await server.waitFor(/three/)
  server.child.kill('SIGTERM')
  t.equal(await server.exited(), 0)
  t.equal(server.output.stderr, '')
  t.notMatch(server.output.stdout, 'canary')
  t.match(
    jsonLines(server.output.stdout)
      .filter(({ text }) => text !== undefined)
      .map(({ msg, text }) => [msg, text]),
    [
      ['printed', 'one 1'],
      ['printed', 'two http://…@b/'],
      ['printed', 'four'],
      ['printed', 'five'],
      ['Node warning', 'three'],
    ],
  )
})

t.test('signals: four end it in order, two do nothing', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT'] as const) {
    const server = await start(t)
    for (const ignored of ['SIGUSR1', 'SIGUSR2', 'SIGPIPE'] as const) server.child.kill(ignored)
    t.equal((await send(`${server.managementUrl}/livez`)).status, 200)
    server.child.kill(signal)
    t.equal(await server.exited(), 0, signal)
    t.equal(server.output.stderr, '', 'no inspector')
    t.match(jsonLines(server.output.stdout).at(-1), { signal, msg: 'shutting down' })
  }
})

/** Fails for a line that is not JSON. */
function jsonLines(stdout: string): Record<string, unknown>[] {
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
}
