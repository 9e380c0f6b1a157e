import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { parse } from 'yaml'
import { certificate, created, httpResponse, startFaultServer } from './fault-server.js'
import {
  apiKey,
  apiSecret,
  audience,
  credentialFiles,
  freePort,
  inTime,
  issuer,
  type Overrides,
  openSocket,
  send,
  signer,
  startPeers,
  until,
} from './helper.js'
import { startKeyServer } from './key-server.js'
import {
  createPrometheus,
  needsPromtool,
  type Prometheus,
  promtool,
  rulesFile,
  startMonitored,
} from './prometheus.js'
import { connectRedis, needsRedis, startRedis } from './redis-server.js'
import { refuseStaleBuild } from './stale-build.js'

const { groups } = parse(readFileSync(rulesFile, 'utf8')) as {
  groups: { rules: { alert?: string }[] }[]
}
const alerts = groups.flatMap(({ rules }) => rules.flatMap(({ alert }) => alert ?? []))
const shown = { firing: new Set<string>(), nearMiss: new Set<string>() }

/** A service whose alerts are shown, each once firing and once not. */
async function show(t: Test, overrides: Overrides = {}, everySeconds = 60) {
  const service = await startMonitored(t, overrides, everySeconds)
  return { ...service, ...recorder(service) }
}

const recorder = ({ wait, expect }: Pick<Prometheus, 'wait' | 'expect'>) => ({
  /** Then, at the next scrape, nothing fires, although `alert` is near. */
  async nearMiss(...alerts: string[]) {
    for (const alert of alerts) shown.nearMiss.add(alert)
    await wait(1)
    expect()
  },
  /** Then, at the next scrape, these fire, and nothing else. */
  async firing(...alerts: string[]) {
    for (const alert of alerts) shown.firing.add(alert.split(' ')[0] ?? '')
    await wait(1)
    expect(...alerts)
  },
})
type Shown = Awaited<ReturnType<typeof show>>

/** Runs a scenario and lets promtool evaluate it. */
function scenario(
  name: string,
  run: (t: Test) => Promise<Pick<Prometheus, 'check'>>,
  options: object = needsPromtool,
) {
  t.test(name, { ...needsPromtool, ...options }, async (t) => {
    const { check } = await run(t)
    await check(t)
  })
}

t.test('promtool accepts the rules', needsPromtool, async (t) => {
  const { failed, output } = await promtool('check', 'rules', rulesFile)
  t.notOk(failed, output)
})

scenario('a wrong API key, but not one that is replaced at this moment', async (t) => {
  const dir = t.testdir({ key: apiKey, secret: apiSecret })
  const refusal = httpResponse('401 Unauthorized', { identifier: 'UNAUTHORIZED' })
  const idenfy = await startFaultServer(t, (socket, { index }) => {
    if (index === 0) writeFileSync(join(dir, 'key'), 'another-key')
    socket.write(index === 0 ? refusal : created)
  })
  const service = await show(t, { env: { IDENFY_BASE_URL: idenfy.url, ...credentialFiles(dir) } })
  await service.mintFor(1)
  t.match(await service.metrics(), 'idenfy_retries_total{reason="new-credentials",granted="true"} 1\n')
  await service.nearMiss('IdenfyRefusesCredentials')
  idenfy.script = refusal
  await service.mintFor(1)
  await service.firing('IdenfyRefusesCredentials')
  await service.wait(61)
  service.expect()
  return service
})

scenario('a wrong API key since the start, of a process that restarts again and again', async (t) => {
  const service = await show(t, { env: { IDENFY_API_KEY: 'of-another-account' } })
  // Before the first scrape: no increase is ever seen.
  await service.mintFor(1)
  await service.firing('IdenfyRefusesCredentials')
  for (let restart = 0; restart < 3; restart++) {
    service.remove('a')
    await service.wait(1)
    const next = await service.start('a', { peers: service })
    await next.mint()
    await service.firing('IdenfyRefusesCredentials')
  }
  await service.wait(61)
  service.expect()
  return service
})

const refusals = [
  ['IdenfyAccountWithoutFunds', { status: 402 }],
  ['IdenfyRefusesAccount', { status: 403, identifier: 'PARTNER_CONTRACT_ERROR' }],
  ['IdenfyRefusesSession', { status: 400, identifier: 'BAD_VALUE' }],
  ['IdenfyBaseUrlWrong', { status: 404 }],
  ['IdenfyResponsesUnusable', { body: 'hello' }],
  ['IdenfyContractDrift', { status: 200 }],
] as const
for (const [alert, fault] of refusals) {
  scenario(`${alert}, but not for a company that has an open session`, async (t) => {
    const service = await show(t)
    await service.mintFor(1)
    await service.setFault({ status: 409, times: 1 })
    await service.mintFor(1)
    await service.nearMiss(alert)
    await service.setFault({ ...fault, times: 1 })
    await service.mintFor(1)
    await service.firing(alert)
    return service
  })
}

scenario('one instance without the CA of iDenfy, beside one with it', async (t) => {
  const tls = await certificate('localhost')
  const idenfy = await startFaultServer(t, created, { tls, host: 'localhost' })
  const IDENFY_CA_FILE = `${t.testdir({ 'ca.pem': tls.cert })}/ca.pem`
  const service = await show(t, { env: { IDENFY_BASE_URL: idenfy.url, IDENFY_CA_FILE } })
  await service.mintFor(3)
  await service.nearMiss('IdenfyCertificateNotTrusted')
  const other = await service.start('b', { env: { IDENFY_BASE_URL: idenfy.url } })
  await other.mint()
  await service.mintFor(3)
  await service.firing('IdenfyCertificateNotTrusted')
  return service
})

scenario('an egress proxy that is down, with three requests an hour', async (t) => {
  const service = await show(t, { env: { IDENFY_PROXY_URL: `http://127.0.0.1:${await freePort(t)}` } })
  await service.mintFor(1)
  await service.nearMiss('EgressProxyDown')
  await service.wait(20)
  await service.mintFor(1)
  await service.firing('EgressProxyDown')
  await service.wait(20)
  await service.mintFor(1)
  await service.firing('EgressProxyDown')
  return service
})

scenario('an egress proxy that is down for one of two instances', async (t) => {
  const service = await show(t)
  const other = await service.start('b', {
    env: { IDENFY_PROXY_URL: `http://127.0.0.1:${await freePort(t)}` },
  })
  for (let i = 0; i < 3; i++) {
    await service.mintFor(10)
    await other.mint()
  }
  await service.firing('EgressProxyDown')
  return service
})

scenario('an iDenfy that cannot be reached, with three requests an hour', async (t) => {
  const service = await show(t, { env: { IDENFY_BASE_URL: `http://127.0.0.1:${await freePort(t)}` } })
  await service.mintFor(1)
  await service.nearMiss('IdenfyDown')
  await service.wait(20)
  await service.mintFor(1)
  await service.firing('IdenfyDown')
  return service
})

scenario('two or three of twenty requests to iDenfy fail', async (t) => {
  const service = await show(t)
  await service.mintFor(17)
  await service.setFault({ drop: 'before-headers', times: 2 })
  await service.mintFor(2)
  await service.nearMiss('IdenfyUnreliable')
  await service.setFault({ drop: 'before-headers', times: 1 })
  await service.mintFor(1)
  await service.firing('IdenfyUnreliable')
  return service
})

scenario('five or six of many requests have an unknown outcome', async (t) => {
  const service = await show(t)
  for (let i = 0; i < 5; i++) {
    await service.mintFor(25)
    await service.setFault({ status: 503, times: 1 })
    await service.mintFor(1)
  }
  await service.nearMiss('VerificationsWithUnknownOutcome')
  await service.setFault({ status: 503, times: 1 })
  await service.mintFor(1)
  await service.firing('VerificationsWithUnknownOutcome')
  return service
})

scenario('iDenfy limits two or three requests', async (t) => {
  const service = await show(t)
  await service.setFault({ status: 429 })
  await service.mintFor(2)
  await service.nearMiss('IdenfyLimitsRequests')
  await service.mintFor(1)
  await service.firing('IdenfyLimitsRequests')
  return service
})

scenario('a wrong issuer, whose key URL is wrong too, in a new deployment', async (t) => {
  const peers = await startPeers(t)
  const service = await show(t, {
    peers,
    env: { AUTH_ISSUER: `${peers.identityUrl}/realms/none`, AUTH_JWKS_URL: undefined },
  })
  await service.nearMiss('SigningKeysUnavailable')
  await service.wait(3)
  await service.firing('SigningKeysUnavailable jwks-status')
  return service
})

scenario('an identity provider that is away for more than a day', async (t) => {
  const keyServer = await startKeyServer(t, signer.publicJwk)
  const service = await show(t, { env: { AUTH_JWKS_URL: keyServer.url } }, 120)
  await service.mintFor(1)
  await service.wait(2)
  await keyServer.stop()
  await service.wait(8)
  await service.nearMiss('SigningKeysOld')
  await service.wait(15)
  await service.firing('SigningKeysOld unreachable')
  await service.wait(11 * 60)
  shown.nearMiss.add('SigningKeysExpireSoon')
  await service.firing('SigningKeysOld unreachable')
  await service.wait(60)
  await service.firing('SigningKeysOld unreachable', 'SigningKeysExpireSoon')
  await service.wait(12 * 60)
  await service.firing('SigningKeysUnavailable unreachable')
  await keyServer.comeBack()
  await service.wait(4)
  service.expect()
  return service
})

const refusedTokens: readonly (readonly [string, object, Record<string, unknown>?, Overrides['env']?])[] = [
  ['AccessTokensForAnotherIssuer', {}, {}, { AUTH_ISSUER: `${issuer}/` }],
  ['AccessTokensForAnotherAudience', {}, {}, { AUTH_AUDIENCE: `https://${audience}` }],
  ['AccessTokensOfAnotherType', {}, {}, { AUTH_TOKEN_TYPES: 'JWT' }],
  ['AccessTokensOfAnotherType', { at_hash: 'x' }],
  ['AccessTokensWithUnusableClaims user-claim', {}, {}, { AUTH_USER_CLAIM: 'uid' }],
  ['AccessTokensWithUnusableClaims lifetime', {}, {}, { AUTH_MAX_TOKEN_LIFETIME_SECONDS: '60' }],
  ['ClockBehind', { iat: 4_000_000_000, exp: 4_000_000_600 }],
  ['MostUsersForbidden', {}, {}, { AUTH_COMPANY_CLAIM: 'org' }],
  ['MostUsersForbidden', {}, {}, { AUTH_REQUIRED_SCOPE: 'onboarding' }],
]
for (const [alert, claims, header, env = {}] of refusedTokens) {
  const cause = JSON.stringify(Object.keys(env).length > 0 ? env : claims)
  scenario(`${alert}: ${cause}, with three requests an hour`, async (t) => {
    const service = await show(t, { env })
    await service.mintFor(1, claims, header)
    await service.wait(20)
    await service.mintFor(1, claims, header)
    await service.nearMiss(alert.split(' ')[0] ?? '')
    await service.wait(20)
    await service.mintFor(1, claims, header)
    await service.firing(alert)
    return service
  })
}

scenario('users of another application, beside those of this one', async (t) => {
  const service = await show(t)
  for (let hour = 0; hour < 3; hour++) {
    await service.mintFor(4)
    await service.mintFor(3, { aud: 'shop' })
    await service.mintFor(3, { iss: 'https://other.example' })
    await service.mintFor(3, {}, { typ: 'logout+jwt' })
    await service.mintFor(3, { company_id: undefined })
    await service.wait(30)
  }
  service.expectNoneSoFar()
  return service
})

scenario('a wrong audience of one of two instances', async (t) => {
  const service = await show(t)
  const other = await service.start('b', { env: { AUTH_AUDIENCE: 'other' }, peers: service })
  for (let i = 0; i < 3; i++) {
    await service.mintFor(5)
    await other.mint()
  }
  await service.firing('AccessTokensForAnotherAudience')
  return service
})

scenario('keys of another identity provider', async (t) => {
  const { createTokenSigner } = await import('../sandbox/token-signer.js')
  const other = await createTokenSigner('RS256', String(signer.publicJwk.kid))
  const service = await show(t)
  await service.mintFor(9, {}, {}, other)
  await service.nearMiss('AccessTokensWithUnknownKeys')
  await service.mintFor(1, {}, {}, other)
  await service.firing('AccessTokensWithUnknownKeys signature')
  await service.mintFor(1)
  await service.wait(1)
  service.expect()
  return service
})

scenario('an id that the templates cannot express', async (t) => {
  const service = await show(t)
  await service.mintFor(1, { sub: 'u'.repeat(40) })
  await service.nearMiss('IdentityNotMappable')
  await service.mintFor(1, { sub: 'u'.repeat(41) })
  await service.firing('IdentityNotMappable')
  return service
})

scenario('a bug', async (t) => {
  const service = await show(t, {
    prepare: (app) =>
      app.get('/bug', async () => {
        throw new Error('a bug')
      }),
  })
  await send(`${service.url}/no-bug`)
  await service.nearMiss('InternalError')
  await send(`${service.url}/bug`)
  await service.firing('InternalError')
  return service
})

const showWithFiles = async (t: Test) => {
  const dir = t.testdir({ policy: '{}', key: apiKey, secret: apiSecret })
  const service = await show(t, { env: { ...credentialFiles(dir), KYB_POLICY_FILE: join(dir, 'policy') } })
  const metricsHave = (line: string) =>
    until(async () => (await service.metrics()).includes(`${line}\n`), `the metric ${line}`)
  return { ...service, file: join(dir, 'policy'), keyFile: join(dir, 'key'), metricsHave }
}

scenario('a policy file that is replaced, is gone, and comes back', async (t) => {
  const service = await showWithFiles(t)
  const { file, metricsHave } = service
  writeFileSync(file, '{"session":{"lifetime":600}}')
  await metricsHave('reloads_total{what="policy",outcome="taken"} 1')
  await service.nearMiss('PolicyFileBroken')
  rmSync(file)
  await metricsHave('reload_failing{what="policy"} 1')
  await service.wait(2)
  await service.firing('PolicyFileBroken')
  await service.wait(90)
  await service.firing('PolicyFileBroken')
  writeFileSync(file, '{}')
  await metricsHave('reload_failing{what="policy"} 0')
  await service.wait(1)
  service.expect()
  return service
})

scenario(
  'a policy file that is no policy, for as long as it is not',
  async (t) => {
    const service = await showWithFiles(t)
    const { file, keyFile, metricsHave } = service
    writeFileSync(file, '{"session":')
    await metricsHave('reloads_total{what="policy",outcome="refused"} 1')
    // The files are read together: by then the policy has been read again too.
    writeFileSync(keyFile, 'another-key')
    await metricsHave('idenfy_credentials_generation 2')
    await service.wait(2)
    await service.firing('PolicyFileBroken')
    return service
  },
  needsPromtool,
)

scenario('a secret file that breaks', async (t) => {
  const service = await showWithFiles(t)
  const { keyFile, metricsHave } = service
  writeFileSync(keyFile, 'another-key')
  await metricsHave('idenfy_credentials_generation 2')
  await service.nearMiss('SecretFileBroken')
  writeFileSync(keyFile, 'two words')
  await metricsHave('reload_failing{what="credentials"} 1')
  await service.wait(2)
  await service.firing('SecretFileBroken')
  return service
})

const needsRedisToo = { ...needsRedis, ...needsPromtool }

scenario(
  'a Redis that is away for a minute, and one that stays away',
  async (t) => {
    const redis = await startRedis(t)
    const service = await show(t, { env: redis.env })
    const isUp = (up: number) =>
      until(
        async () => (await service.metrics()).includes(`redis_up ${up}\n`),
        `the metric redis_up to be ${up}`,
      )
    await isUp(1)
    await service.wait(5)
    await redis.stop()
    await isUp(0)
    await service.wait(1)
    await redis.restart()
    await isUp(1)
    await service.nearMiss('RedisUnavailable')
    await redis.stop()
    await isUp(0)
    await service.wait(2)
    await service.firing('RedisUnavailable')
    return service
  },
  needsRedisToo,
)

scenario(
  'a Redis that refuses what the service needs',
  async (t) => {
    const { env } = await startRedis(t)
    await connectRedis(t, env.REDIS_URL).call('ACL', 'SETUSER', 'default', '-eval', '-evalsha')
    const service = await show(t, { env })
    await service.mintFor(1)
    await until(
      async () => (await service.metrics()).includes('redis_up 0\n'),
      'the service to notice that Redis refuses its commands',
    )
    await service.wait(2)
    await service.firing('RedisUnavailable')
    return service
  },
  needsRedisToo,
)

scenario('more requests at once than an instance can take', async (t) => {
  const service = await show(t, { env: { IDENFY_MAX_IN_FLIGHT: '1' } })
  await service.setFault({ delayMs: 50 })
  await Promise.all([1, 2, 3].map(() => service.mintFor(1)))
  await service.nearMiss('InstanceOverloaded')
  await Promise.all(Array.from({ length: 30 }, () => service.mintFor(1)))
  await service.firing('InstanceOverloaded')
  return service
})

scenario('more connections than allowed', async (t) => {
  const service = await show(t, { limits: { connections: 2 } })
  const first = openSocket(service.url)
  await until(async () => (await connectionsOf(service)) === 1, 'the server to accept the connection')
  await service.nearMiss('ConnectionsDropped')
  const others = [openSocket(service.url), openSocket(service.url), openSocket(service.url)]
  await until(
    async () => /http_connections_dropped_total [1-9]/.test(await service.metrics()),
    'the server to drop a connection',
  )
  for (const { socket } of [first, ...others]) socket.destroy()
  await service.firing('ConnectionsDropped')
  return service
})

const connectionsOf = ({ app }: Shown) => promisify(app.server.getConnections.bind(app.server))()

scenario('two or three requests take longer than two seconds', async (t) => {
  const service = await show(t)
  await service.mintFor(10)
  await service.setFault({ delayMs: 2050, times: 2 })
  await Promise.all([service.mintFor(1), service.mintFor(1)])
  await service.nearMiss('RequestsSlow')
  await service.setFault({ delayMs: 2050, times: 1 })
  await service.mintFor(1)
  await service.firing('RequestsSlow')
  return service
})

scenario('a full disk, and file descriptors that run out', async (t) => {
  const { environment, token } = await startPeers(t)
  const [port, managementPort] = [await freePort(t), await freePort(t)]
  const fill = `import{closeSync as c,openSync as o}from"node:fs";process.on("SIGWINCH",()=>{c(1);o("/dev/full","w")})`
  refuseStaleBuild('dist/server.js')
  const command = `ulimit -n 400; exec node --import 'data:text/javascript,${fill}' dist/server.js >/dev/null`
  const server = spawn('/bin/sh', ['-c', command], {
    env: { ...process.env, ...environment, PORT: String(port), MANAGEMENT_PORT: String(managementPort) },
    stdio: 'inherit',
  })
  const exited = once(server, 'exit')
  t.teardown(() => {
    server.kill('SIGKILL')
    return inTime(exited, 'the process to end')
  })
  const url = `http://127.0.0.1:${port}`
  const managementUrl = `http://127.0.0.1:${managementPort}`
  const isUp = () =>
    send(`${managementUrl}/readyz`).then(
      ({ status }) => status === 200,
      () => false,
    )
  await until(isUp, 'the server to be ready', 60_000)
  const metrics = async () => (await send(`${managementUrl}/metrics`)).text
  const prometheus = createPrometheus()
  prometheus.add('a', metrics)
  const { nearMiss, firing } = recorder(prometheus)

  const mint = async (_: unknown, user: number) => {
    const headers = { authorization: `Bearer ${await token({ sub: `u-${user}` })}` }
    return send(`${url}/onboarding/kyb-token`, { method: 'POST', headers })
  }
  await Promise.all(Array.from({ length: 10 }, mint))
  await nearMiss('LogLinesLost', 'FileDescriptorsRunOut')
  server.kill('SIGWINCH')
  await mint(undefined, 0)
  // Long before the first line is lost.
  await until(
    async () => /^log_output_failing 1$/m.test(await metrics()),
    'the metric to report that the log cannot be written',
  )
  await firing('LogLinesLost')
  const sockets = Array.from({ length: 320 }, () => openSocket(url).socket)
  await until(
    async () => Number(/^process_open_fds (\d+)$/m.exec(await metrics())?.[1]) > 330,
    'the open sockets to count in process_open_fds',
  )
  await prometheus.wait(2)
  await firing('LogLinesLost', 'FileDescriptorsRunOut')
  for (const socket of sockets) socket.destroy()
  return prometheus
})

t.test('each alert is shown firing, and not firing when it nearly could', needsPromtool, async (t) => {
  t.strictSame([...shown.firing].sort(), [...alerts].sort())
  t.strictSame([...shown.nearMiss].sort(), [...alerts].sort())
})
