import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { parse } from 'yaml'
import { loadSandboxConfig } from '../sandbox/config.js'
import { createTokenSigner } from '../sandbox/token-signer.js'
import { systemClock } from '../src/clock.js'
import { secretNames, variableNames } from '../src/config/environment-schema.js'
import type { ConfigError } from '../src/config/faults.js'
import { loadConfig } from '../src/config/load-config.js'
import { listenOn } from '../src/listen.js'
import { detailTexts, problems } from '../src/problems/catalog.js'
import { invalidTokenReasons } from '../src/services/auth/access-token.js'
import { type IgnoredKeyReason, keySetFaultCodes } from '../src/services/auth/key-set.js'
import { redisFailureCauses } from '../src/services/single-flight/redis-failure.js'
import { created, startFaultServer } from './fault-server.js'
import { build, listen, type Overrides, send, signer, spawnNode, until } from './helper.js'
import { startKeyServer } from './key-server.js'
import { needsRedis, startRedis, stateKey } from './redis-server.js'

type Line = Record<string, unknown>

const file = 'docs/troubleshooting.md'
const guide = readFileSync(file, 'utf8')
const prose = guide.replace(/^```[\s\S]*?^```$/gm, '')

/** The section whose title begins so. */
function section(title: string): string {
  const found = prose.split(/^## /m).find((text) => text.startsWith(title))
  if (found === undefined) throw new Error(`There is no section ${title}`)
  return found
}

/** The cells of the table rows of a text, without the heads. */
function rowsOf(text: string): string[][] {
  const rows = [...text.matchAll(/^\| (.*) \|$\n(\|-)?/gm)].filter(([, , head]) => head === undefined)
  return rows.map(([, row = '']) => row.split(' | '))
}

/** What stands in backticks in a text. */
const quoted = (text: string): string[] => [...text.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name)
/** What stands in backticks in the first column of a section. */
const rowNames = (title: string) => rowsOf(section(title)).flatMap(([first = '']) => quoted(first))
const sorted = (names: Iterable<string>): string[] => [...new Set(names)].sort()

/** Every value of a label of a metric. */
const labelValues = (metrics: string, metric: string): string[] =>
  [...metrics.matchAll(new RegExp(`^${metric}\\{\\w+="([^"]+)"`, 'gm'))].map(([, value = '']) => value)

/** The reasons that the sources name themselves, besides the exported lists. */
function reasonsInSources(): string[] {
  const files = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((path) =>
    path.endsWith('.ts'),
  )
  const sources = files.map((path) => readFileSync(join('src', path), 'utf8')).join('\n')
  const named = /(?:\breason: |\bbadResponse\(response, |\bnotMappable\()'([a-z-]+)'(?! \|)/g
  return [...sources.matchAll(named)].map(([, reason = '']) => reason)
}

/** The compiler refuses this list if a reason is missing. */
const ignoredKeyReasons = Object.keys({
  'not-an-object': true,
  kid: true,
  use: true,
  'key-ops': true,
  algorithm: true,
  weak: true,
  'duplicate-kid': true,
} satisfies Record<IgnoredKeyReason, true>)

t.test(
  'every reason, class and cause of the service has a row, and no row is about another one',
  async (t) => {
    const service = await build(t)
    const metrics = await service.metrics()
    t.strictSame(sorted(rowNames('401')), sorted(['unauthenticated', ...invalidTokenReasons]))
    t.strictSame(sorted(rowNames('Signing keys')), sorted(['unreachable', ...keySetFaultCodes]))
    t.strictSame(sorted(rowNames('Redis')), sorted(redisFailureCauses))

    const inTables = new Set(rowsOf(prose).flatMap((cells) => cells.flatMap(quoted)))
    const classes = labelValues(metrics, 'idenfy_failures_total')
    t.strictSame(
      sorted(rowNames('502: `provider-rejected`')),
      sorted(classes.filter((name) => name !== 'connection' && name !== 'egress-proxy')),
    )
    const reasons = reasonsInSources().filter((reason) => !ignoredKeyReasons.includes(reason))
    t.ok(reasons.length > 10, `${reasons.length} reasons`)
    for (const name of [...classes, ...Object.keys(detailTexts), ...reasons]) t.ok(inTables.has(name), name)

    const ofRequests = [...rowNames('400'), ...rowNames('429')]
    t.strictSame(
      ofRequests.filter((name) => !Object.hasOwn(detailTexts, name)),
      [],
    )
    const ignored = readFileSync('docs/identity-providers.md', 'utf8')
    for (const reason of ignoredKeyReasons)
      t.match(ignored, new RegExp(`^\\| .*\`${reason}\`.* \\|`, 'm'), reason)
    for (const what of labelValues(metrics, 'reload_failing'))
      t.ok(quoted(section('Start-up')).includes(what), what)
  },
)

t.test('every code of 403, 409, 422 and 503 has a row', async (t) => {
  for (const [code, { status }] of Object.entries(problems)) {
    const title = { 403: '403', 409: '409', 422: '409', 503: '503' }[status as number]
    if (title) t.ok(rowNames(title).includes(code), code)
    if ('outcome' in problems[code as keyof typeof problems] && status !== 503)
      t.ok(guide.includes(code), code)
  }
})

t.test('every name in the guide exists', async (t) => {
  const service = await build(t, {
    env: { REDIS_URL: 'redis://127.0.0.1:1', STATE_ENCRYPTION_KEY: stateKey },
  })
  const metrics = await service.metrics()
  const rules = parse(readFileSync('deploy/prometheus-rules.yaml', 'utf8'))
  const settings = new Set([
    ...[...variableNames, ...[...secretNames].map((name) => `${name}_FILE`)],
    ...Object.keys(loadSandboxConfig({})),
    // Of Node, of iDenfy and of an egress proxy.
    ...['NODE_EXTRA_CA_CERTS', 'INTERNAL_ERROR', 'PROXY_407'],
    // Mistakes.
    ...['LOG_LEVELL', 'AUTH_JWKS_URL_FILE'],
  ])
  const alerts = new Set(
    rules.groups.flatMap(({ rules }: { rules: { alert?: string }[] }) => rules.map(({ alert }) => alert)),
  )
  const codes = new Set([
    ...Object.keys(problems),
    ...Object.keys(detailTexts),
    ...invalidTokenReasons,
    ...keySetFaultCodes,
    ...redisFailureCauses,
    ...reasonsInSources(),
    ...['http_requests_total', 'idenfy_failures_total', 'reload_failing'].flatMap((name) =>
      labelValues(metrics, name),
    ),
    // Made of the kind of the id, and shown by the test of the log lines. The others are a retry and a directive of browsers.
    ...['user-id', 'company-id', 'clientId-too-long', 'externalRef-too-long', 'idenfy-retry', 'connect-src'],
  ])
  const names = {
    setting: [...guide.matchAll(/\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b/g)].map(([name]) => name),
    alert: quoted(prose).filter((text) => /^([A-Z][a-z]+){2,}$/.test(text)),
    metric: quoted(prose).flatMap((text) => /^(?:[a-z0-9]+_)+[a-z0-9]+(?=$|\{)/.exec(text) ?? []),
    code: quoted(prose).filter((text) => /^[a-zA-Z]+(-[a-z]+)+$/.test(text)),
  }
  for (const [kind, found] of Object.entries(names)) t.ok(found.length >= 5, `${found.length} names: ${kind}`)
  for (const name of names.setting) t.ok(settings.has(name), `setting ${name}`)
  for (const name of names.alert) t.ok(alerts.has(name), `alert ${name}`)
  for (const name of names.metric)
    t.ok(name === 'jwks_uri' || metrics.includes(`# TYPE ${name} `), `metric ${name}`)
  for (const name of names.code) t.ok(codes.has(name), `code ${name}`)
})

t.test('every anchor that the guide links to exists', async (t) => {
  const links = [...guide.matchAll(/\]\(([^)#]*)#([^)]+)\)/g)]
  t.ok(links.length > 20)
  for (const [, target = '', anchor] of links) {
    const path = target === '' ? file : join(dirname(file), target)
    // documentation.test.ts reports a file that is missing.
    if (!existsSync(path)) continue
    const headings = [...readFileSync(path, 'utf8').matchAll(/^#+ (.*)$/gm)]
    const anchors = headings.map(([, text = '']) =>
      text
        .toLowerCase()
        .replace(/[^\w\- ]/g, '')
        .replaceAll(' ', '-'),
    )
    t.ok(anchors.includes(anchor ?? ''), `${path}#${anchor}`)
  }
})

/** Starts services whose lines are kept together. */
function createRecorder(t: Test) {
  const services: Awaited<ReturnType<typeof build>>[] = []
  return {
    start: async (env: Record<string, string> = {}, overrides: Omit<Overrides, 'env'> = {}) => {
      const service = await build(t, { env, ...overrides })
      services.push(service)
      return service
    },
    lines: (): Line[] => services.flatMap(({ log }) => log()),
  }
}

const mintAs = async (service: Awaited<ReturnType<typeof build>>, sub: string) =>
  service.mint({ token: await service.token({ sub }) })

const preflight = (url: string, origin: string) =>
  send(`${url}/onboarding/kyb-token`, {
    method: 'OPTIONS',
    headers: { origin, 'access-control-request-method': 'POST' },
  })

/** The lines of requests that the service itself refuses. */
async function refusedRequests(t: Test): Promise<Line[]> {
  const { start, lines } = createRecorder(t)
  const service = await start({ CORS_ORIGINS: 'https://app.example.com' })
  await service.mint()
  for (const name of ['app', 'other']) await preflight(service.url, `https://${name}.example.com`)
  await send(`${service.url}/onboarding/kyb-token?a=b`, { method: 'POST' })
  for (const claims of [
    { aud: ['account', 'other'] },
    { exp: 1 },
    { company_id: undefined },
    { company_id: 'GB:12345678' },
    { company_id: 'c'.repeat(101) },
    { sub: 'a:b' },
    { sub: 'u'.repeat(41) },
    { azp: 'u-1' },
  ]) {
    await service.mint({ token: await service.token(claims) })
  }
  // Another key under the same id, as after a restart of the sandbox.
  await service.mint({ token: await service.token({}, {}, await createTokenSigner('RS256')) })

  const headers = { 'idempotency-key': 'one' }
  await service.setFault({ delayMs: 500 })
  await Promise.all([service.mint({ headers }), service.mint({ headers })])
  await service.mint({ headers, body: { locale: 'lt' } })

  const strict = await start({ AUTH_REQUIRED_SCOPE: 'kyb.create', RATE_LIMIT_USER_PER_MINUTE: '1' })
  await preflight(strict.url, 'https://app.example.com')
  for (const scope of ['openid profile', 'kyb.create', 'kyb.create']) {
    await strict.mint({ token: await strict.token({ scope }) })
  }
  return lines()
}

/** The lines of requests that iDenfy, its network or too much load makes fail. */
async function failedCalls(t: Test): Promise<Line[]> {
  const { start, lines } = createRecorder(t)
  const service = await start()
  for (const [index, fault] of [
    { status: 401, identifier: 'UNAUTHORIZED' },
    { status: 409 },
    { status: 429 },
    { status: 201, body: {} },
    { status: 500, identifier: 'INTERNAL_ERROR' },
  ].entries()) {
    await service.setFault({ ...fault, times: 1 })
    await mintAs(service, `u-${index}`)
  }
  await mintAs(service, 'u-4')

  const slow = await start({ IDENFY_TIMEOUT_MS: '1000', IDENFY_MAX_IN_FLIGHT: '1' })
  await mintAs(slow, 'first')
  await slow.setFault({ delayMs: 3000 })
  await Promise.all(['a', 'b', 'c'].map((user) => mintAs(slow, user)))
  const late = await start({}, { limits: { eventLoopDelayMs: 0.000001 } })
  await until(async () => (await late.mint()).status === 503, 'a request that is shed')

  const lost = await start({ IDENFY_BASE_URL: 'http://127.0.0.1:1' })
  for (const user of ['a', 'b', 'c', 'd', 'e', 'f']) await mintAs(lost, user)

  const idenfy = await startFaultServer(t, created)
  idenfy.vanish()
  const beganMs = Date.now()
  const waiting = await start(
    { IDENFY_BASE_URL: idenfy.url },
    {
      // Time passes 300 times as fast.
      now: () => beganMs + (Date.now() - beganMs) * 300,
      monotonicNow: () => performance.now() * 300,
      setTimeout: (callback, delayMs) => systemClock.setTimeout(callback, delayMs / 300),
    },
  )
  for (const message of [/^no connection to iDenfy stands by$/, /^a connection .* stands by again$/]) {
    await until(() => waiting.log().some(({ msg }) => message.test(String(msg))), String(message))
    idenfy.comeBack()
  }
  return lines()
}

/** The lines about Redis, signing keys, files and the start. */
async function operatingTrouble(t: Test): Promise<Line[]> {
  const { start, lines } = createRecorder(t)
  const alone = await start({ REDIS_URL: 'redis://127.0.0.1:1', STATE_ENCRYPTION_KEY: stateKey })
  await alone.mint({ headers: { 'idempotency-key': 'one' } })

  const keys = await startKeyServer(t, signer.publicJwk, { ...signer.publicJwk, kid: 'enc', use: 'enc' })
  await mintAs(await start({ AUTH_JWKS_URL: keys.url }), 'u-1')
  keys.respond = (_request, response) => response.writeHead(404).end()
  await mintAs(await start({ AUTH_JWKS_URL: keys.url }), 'u-1')

  const policy = join(t.testdir({ 'policy.json': '{}' }), 'policy.json')
  const reloading = await start({ KYB_POLICY_FILE: policy })
  writeFileSync(policy, '{')
  await until(() => reloading.log().some(({ what }) => what === 'policy'), 'the policy to be refused')

  const { AUTH_AUDIENCE: _, ...environment } = alone.environment
  const { output, exited } = spawnNode(t, ['dist/server.js'], { ...environment, LOG_LEVELL: 'info' })
  t.equal(await exited(), 1)
  return [...lines(), JSON.parse(output.stdout)]
}

/** Whether the line has all that is expected. Ids and the address of the test's key server differ. */
function has(line: unknown, expected: unknown): boolean {
  if (typeof expected !== 'object' || expected === null) return line === expected
  if (typeof line !== 'object' || line === null) return false
  return Object.entries(expected).every(([name, value]) => {
    const found = (line as Line)[name]
    return ['requestId', 'idenfyCompanyId', 'url'].includes(name)
      ? typeof found === 'string'
      : has(found, value)
  })
}

t.test('the service logs every line that the guide shows', async (t) => {
  const logged = [...(await refusedRequests(t)), ...(await failedCalls(t)), ...(await operatingTrouble(t))]
  const shown = [...guide.matchAll(/^\{.*\}$/gm)].map(([text]) => text)
  t.ok(shown.length > 25, `${shown.length} lines`)
  for (const text of shown) {
    const expected = JSON.parse(text)
    const isLogged = logged.some((line) => has(line, expected))
    t.ok(isLogged, text)
  }

  const unmapped = logged.filter(({ outcome }) => outcome === 'identity-not-mappable')
  const reasons = sorted(unmapped.map(({ reason }) => String(reason)))
  t.equal(reasons.length, 5)
  for (const reason of reasons) t.ok(quoted(section('403')).includes(reason), reason)
  const overloaded = logged.filter(({ outcome }) => outcome === 'overloaded')
  t.strictSame(new Set(overloaded.map(({ company }) => company)), new Set(['acme', undefined]))
})

t.test('the marked reasons have expected and received in the log', async (t) => {
  const now = Math.floor(Date.now() / 1000)
  const service = await build(t)
  const claims = [
    { iss: 'https://other.example' },
    { aud: 'other' },
    { exp: now + 10 * 86_400 },
    { exp: 1 },
    { exp: undefined },
    { sub: undefined },
    { iat: 'x' },
    { iat: now + 100 },
    { nbf: now + 100 },
    { at_hash: 'x' },
  ]
  for (const change of claims) await service.mint({ token: await service.token(change) })
  await service.mint({ token: await service.token({}, { typ: 'other' }) })
  await service.mint({ token: await service.token({}, {}, await createTokenSigner('RS256')) })
  await service.mint({ token: 'undefined' })
  const refusals = service.log('invalid-token')
  t.equal(refusals.length, claims.length + 3)
  const marked = rowsOf(section('401')).flatMap(([first = '']) => (first.endsWith('*') ? quoted(first) : []))
  const diagnosed = refusals.filter(
    ({ expected, received }) => expected !== undefined && received !== undefined,
  )
  t.strictSame(sorted(diagnosed.map(({ reason }) => String(reason))), sorted(marked))
  for (const { level, expected } of refusals) t.equal(level, expected === undefined ? 'info' : 'warn')
})

t.test('a different STATE_ENCRYPTION_KEY shows as the guide says', needsRedis, async (t) => {
  const { env } = await startRedis(t)
  const first = await build(t, { env })
  const other = { ...env, STATE_ENCRYPTION_KEY: Buffer.alloc(32, 'x').toString('base64') }
  const second = await build(t, { env: other, peers: first })
  for (const { metrics } of [first, second]) {
    await until(async () => /^redis_up 1$/m.test(await metrics()), 'Redis to be available')
  }
  const headers = { 'idempotency-key': 'one' }
  t.equal((await first.mint({ headers })).status, 201)
  t.equal((await second.mint({ headers })).json.code, 'provider-outcome-unknown')
  t.match(second.log('provider-outcome-unknown'), [{ reason: 'shared-result' }])
})

/** The faults of an environment that is right but for these variables. */
async function faultsOf(t: Test, variables: Record<string, string | undefined>): Promise<readonly string[]> {
  const right = {
    AUTH_ISSUER: 'https://login.example.com/',
    AUTH_AUDIENCE: 'onboarding',
    IDENFY_API_KEY: 'key',
    IDENFY_API_SECRET: 'secret',
  }
  try {
    const config = loadConfig({ ...right, ...variables })
    const app = Fastify()
    t.teardown(() => app.close())
    await listenOn(app, config, '')
  } catch (error) {
    return (error as ConfigError).faults
  }
  throw new Error(`no fault in ${JSON.stringify(variables)}`)
}

t.test('the service reports every start-up fault that the guide shows', async (t) => {
  const directory = t.testdir({ empty: '', list: '{"session":{},}', typo: '{"session":{"lifetim":60}}' })
  const port = String(await listen(t, createServer()))
  const mistakes: Record<string, string | undefined>[] = [
    { AUTH_ISSUER: undefined },
    { LOG_LEVELL: 'info', IDENFY_API_KEY: '', AUTH_AUDIENCE: '"onboarding"', TRUST_PROXY: 'true' },
    { AUTH_JWKS_URL_FILE: '/run/secrets/url', IDENFY_API_KEY_FILE: '/run/secrets/key' },
    { IDENFY_API_KEY: undefined, IDENFY_API_KEY_FILE: join(directory, 'missing') },
    { IDENFY_API_KEY: undefined, IDENFY_API_KEY_FILE: join(directory, 'empty') },
    {
      IDENFY_API_KEY: 'your-api-key',
      AUTH_AUDIENCE: '<audience>',
      AUTH_ISSUER: 'http://login.example.com/',
    },
    { AUTH_JWKS_URL: 'https://login.example.com/.well-known/openid-configuration' },
    { IDENFY_BASE_URL: 'https://ivs.idenfy.com/kyb/tokens/', CORS_ORIGINS: 'https://app.example.com/' },
    { IDENFY_TIMEOUT_MS: '8s', REDIS_URL: 'redis://redis:6379', KYB_EXTERNAL_REF: '{userHash}' },
    { IDENFY_TIMEOUT_MS: '30000', KYB_POLICY_FILE: join(directory, 'list') },
    { KYB_POLICY_FILE: join(directory, 'typo') },
    { PORT: port },
  ]
  const faults = (await Promise.all(mistakes.map((variables) => faultsOf(t, variables)))).flat()
  const [, table = ''] = guide.split(/<!-- \/?start-up-faults.*-->/)
  const shown = rowsOf(table).map(([fault = '']) =>
    fault.replace(/^`|`$/g, '').replace('PORT 3000', `PORT ${port}`),
  )
  t.ok(shown.length >= 20)
  for (const fault of shown) {
    const isCut = fault.endsWith('…')
    const text = fault.replace(/…$/, '')
    t.ok(
      faults.some((given) => (isCut ? given.startsWith(text) : given === text)),
      fault,
    )
  }
})

t.test('the sandbox reports a port in use as the guide says', async (t) => {
  const port = String(await listen(t, createServer()))
  const { output, exited } = spawnNode(t, ['dist-sandbox/server.js'], {
    // Without coverage: that of a bundle does not match that of its sources.
    _TAPJS_PROCESSINFO_COVERAGE_: '0',
    ...Object.fromEntries(
      Object.keys(loadSandboxConfig({}))
        .filter((name) => name.endsWith('PORT'))
        .map((name) => [name, '0']),
    ),
    SANDBOX_PORT: port,
  })
  t.equal(await exited(), 1)
  const [shown = ''] = quoted(section('Sandbox')).filter((text) =>
    text.startsWith('The sandbox cannot start'),
  )
  t.equal(output.stderr.trim(), shown.replace('3000', port))
})
