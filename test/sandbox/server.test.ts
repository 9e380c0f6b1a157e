import { execFile, spawnSync } from 'node:child_process'
import { createServer } from 'node:net'
import { networkInterfaces } from 'node:os'
import { promisify } from 'node:util'
import t from 'tap'
import { freePort, listen, send, spawnNode } from '../helper.js'

const entry = 'dist-sandbox/server.js'
const anyPort = {
  SANDBOX_PORT: '0',
  SANDBOX_MANAGEMENT_PORT: '0',
  SANDBOX_IDENFY_PORT: '0',
  SANDBOX_IDENTITY_PORT: '0',
  SANDBOX_DEMO_PORT: '0',
}
/** Without coverage: that of a bundle does not match that of its sources. */
const environment = { ...anyPort, _TAPJS_PROCESSINFO_COVERAGE_: '0' }

const missing = ['curl', 'sed'].filter((tool) => spawnSync(tool, ['--version'], { timeout: 60_000 }).error)
const missingTool = missing.length > 0 && `there is no ${missing.join(' and no ')} on this machine`

const printedCommand = /^ {2}(curl [\s\S]*?)\n\n/m

t.test('one command starts it all, and a token can be had over http', async (t) => {
  const { child, exited, output, waitFor } = spawnNode(t, [entry], environment)
  const [, command = ''] = await waitFor(printedCommand)
  const address = (part: string) => new RegExp(`${part} +(http\\S+)`).exec(output.stdout)?.[1] ?? ''
  const [service, identityProvider] = [address('service'), address('identity provider')]
  t.match(command, `${service}/onboarding/kyb-token`)
  t.match(command, `${identityProvider}/token`)

  const { json } = await send(`${identityProvider}/token`, {
    method: 'POST',
    body: '{"userId":"u-1","companyId":"acme"}',
    headers: { 'content-type': 'application/json' },
  })
  const answer = await send(`${service}/onboarding/kyb-token`, {
    method: 'POST',
    headers: { authorization: `Bearer ${json.access_token}` },
  })
  t.match(answer, {
    status: 201,
    json: { clientId: 'acme', externalRef: 'u-1', redirectUrl: /\?authToken=/ },
  })
  const arrived = (await send(`${address('iDenfy simulator')}/_sandbox/requests`)).json
  t.match(arrived, [
    { url: '/kyb/tokens/', body: { tokenType: 'FORM', clientId: 'acme', externalRef: 'u-1' } },
  ])
  t.equal(arrived.length, 1)
  t.strictSame((await send(`${address('management')}/readyz`)).json, { status: 'ready' })
  t.equal((await send(address('documentation'))).status, 200)
  const demo = address('demo page')
  t.strictSame((await send(`${demo}/settings.json`)).json, {
    serviceUrl: service,
    identityUrl: identityProvider,
    idenfyUrl: address('iDenfy simulator'),
    faultsByCaller: true,
  })
  for (const origin of [demo, demo.replace('127.0.0.1', 'localhost'), 'http://localhost:5173']) {
    const { headers } = await send(`${service}/onboarding/kyb-token`, { method: 'POST', headers: { origin } })
    t.equal(headers['access-control-allow-origin'], origin)
  }

  child.kill('SIGTERM')
  t.equal(await exited(), 0)
  t.equal(output.stderr, '')
})

t.test('the printed curl works as it stands', { skip: missingTool }, async (t) => {
  const { output, waitFor } = spawnNode(t, [entry], environment)
  const [, command = ''] = await waitFor(printedCommand)
  const { stdout } = await promisify(execFile)('sh', ['-c', command], { timeout: 60_000 })
  const answer = JSON.parse(stdout)
  t.match(answer, { clientId: 'acme', externalRef: 'u-1', redirectUrl: /\?authToken=[0-9a-f]{40}$/ })
  t.notMatch(output.stdout, answer.tokenString)
})

t.test('each part starts alone, as compose starts it', async (t) => {
  const parts: [string, string, number][] = [
    ['idenfy-simulator', '/_sandbox/requests', 200],
    ['identity-provider', '/.well-known/jwks.json', 200],
    ['demo', '/settings.json', 200],
  ]
  for (const [part, path, status] of parts) {
    const { child, exited, waitFor } = spawnNode(t, [entry, part], environment)
    const [url] = await waitFor(/http\S+/)
    t.equal((await send(url + path)).status, status, part)
    child.kill('SIGTERM')
    t.equal(await exited(), 0)
  }
})

/** An address of this machine that others in its network reach. */
const ownAddress = Object.values(networkInterfaces())
  .flatMap((list = []) => list)
  .find(({ internal, family }) => !internal && family === 'IPv4')?.address

t.test('every URL follows SANDBOX_HOST', { skip: !ownAddress && 'no network' }, async (t) => {
  for (const SANDBOX_HOST of [String(ownAddress), '0.0.0.0']) {
    const { output, waitFor } = spawnNode(t, [entry], { ...environment, SANDBOX_HOST })
    await waitFor(printedCommand)
    // Without the log lines, which name every address that a wildcard stands for.
    const printed = output.stdout.replace(/^\{.*$/gm, '').match(/http:\/\/[^:/\s]+:\d+/g) ?? []
    t.ok(printed.length > 6)
    for (const url of printed) t.match(url, `http://${ownAddress}:`)
    const demo = String(/demo page +(\S+)/.exec(output.stdout)?.[1])
    const { json: urls } = await send(`${demo}/settings.json`)
    for (const name of ['serviceUrl', 'identityUrl', 'idenfyUrl'])
      t.match(urls[name], `http://${ownAddress}:`)
    const { json } = await send(`${urls.identityUrl}/token`, {
      method: 'POST',
      body: '{"userId":"u-1","companyId":"acme"}',
      headers: { 'content-type': 'application/json' },
    })
    const created = await send(`${urls.serviceUrl}/onboarding/kyb-token`, {
      method: 'POST',
      headers: { authorization: `Bearer ${json.access_token}`, origin: demo },
    })
    t.equal(created.headers['access-control-allow-origin'], demo)
    t.match(created.json.redirectUrl, `${urls.idenfyUrl}/welcome?authToken=`)
  }
})

t.test('the service in the sandbox has the settings of the environment', async (t) => {
  const policy = JSON.stringify({ callerMaySet: { tags: ['vip'] } })
  const { output, waitFor } = spawnNode(t, [entry], {
    ...environment,
    KYB_POLICY_FILE: `${t.testdir({ 'policy.json': policy })}/policy.json`,
    KYB_EXTERNAL_REF: 'user:{userHash}',
    KYB_IDENTITY_KEY: 'k'.repeat(32),
    AUTH_REQUIRED_SCOPE: 'kyb.create',
    IDENFY_API_KEY: 'real-key',
  })
  await waitFor(printedCommand)
  t.match(output.stdout, '\nIgnored, because the sandbox sets them itself: IDENFY_API_KEY\n')
  const address = (part: string) => new RegExp(`${part} +(http\\S+)`).exec(output.stdout)?.[1] ?? ''
  const create = async (scope: string) => {
    const { json } = await send(`${address('identity provider')}/token`, {
      method: 'POST',
      body: JSON.stringify({ userId: 'u-1', companyId: 'acme', scope }),
      headers: { 'content-type': 'application/json' },
    })
    return send(`${address('service')}/onboarding/kyb-token`, {
      method: 'POST',
      body: '{"tags":["vip"]}',
      headers: { authorization: `Bearer ${json.access_token}`, 'content-type': 'application/json' },
    })
  }
  t.match(await create('openid'), { status: 403, json: { code: 'insufficient-scope' } })
  t.match(await create('kyb.create'), { status: 201, json: { externalRef: /^user:.{22}$/, tags: ['vip'] } })
  t.match((await send(`${address('demo page')}/settings.json`)).json, {
    scope: 'kyb.create',
    faultsByCaller: false,
  })
})

t.test('explain uses the configuration of the sandbox, and its identity provider', async (t) => {
  const port = String(await freePort(t))
  const { waitFor, output } = spawnNode(t, [entry], { ...environment, SANDBOX_IDENTITY_PORT: port })
  await waitFor(printedCommand)
  const identity = String(/identity provider +(\S+)/.exec(output.stdout)?.[1])
  const { json } = await send(`${identity}/token`, {
    method: 'POST',
    body: '{"userId":"u-1","companyId":"acme"}',
    headers: { 'content-type': 'application/json' },
  })
  const file = `${t.testdir({ token: json.access_token })}/token`
  const rows: [string[], RegExp, number][] = [
    [['--company', 'acme', '--user', 'u-1'], /"externalRef": "u-1"/, 0],
    [['--token-file', file], /"check":"company","result":"passed".*"externalRef": "u-1"/s, 0],
    [['--help'], /npm run sandbox:explain -- --token-file FILE/, 0],
  ]
  for (const [args, shown, code] of rows) {
    const explain = spawnNode(t, ['dist-sandbox/explain.js', ...args], {
      ...environment,
      SANDBOX_IDENTITY_PORT: port,
    })
    t.equal(await explain.exited(), code)
    t.match(explain.output, { stdout: shown, stderr: '' })
  }
})

t.test('a sandbox that cannot start says why', async (t) => {
  const port = String(await listen(t, createServer()))

  const rows: [string[], Record<string, string>, string | RegExp][] = [
    ...Object.keys(anyPort).map((name): [string[], Record<string, string>, string] => [
      [],
      { [name]: port },
      `Port ${port} is in use; set ${name} to another one`,
    ]),
    // An address of RFC 5737 that no machine has.
    [[], { SANDBOX_HOST: '192.0.2.1' }, 'Cannot listen on SANDBOX_HOST, 192.0.2.1 (EADDRNOTAVAIL)'],
    [[], { SANDBOX_HOST: '' }, 'SANDBOX_HOST must be an address of this machine'],
    [
      [],
      { SANDBOX_CORS_ORIGINS: '*' },
      'SANDBOX_CORS_ORIGINS must be a comma-separated list of origins such as http://localhost:5173',
    ],
    [[], { SANDBOX_HOTS: 'x' }, /^SANDBOX_HOTS is not known; there are SANDBOX_HOST, /],
    [[], { KYB_POLCY_FILE: 'x' }, /KYB_POLCY_FILE is not known; did you mean KYB_POLICY_FILE\?$/],
    [[], { SANDBOX_PORT: 'x' }, 'SANDBOX_PORT must be an integer from 0 to 65535'],
    [['idp'], {}, 'Unknown component "idp"; use idenfy-simulator, identity-provider, demo or all'],
    [[''], {}, 'Unknown component ""; use idenfy-simulator, identity-provider, demo or all'],
  ]
  for (const [args, env, message] of rows) {
    const { exited, output } = spawnNode(t, [entry, ...args], { ...environment, ...env })
    t.equal(await exited(), 1)
    const [, said] = /^The sandbox cannot start\. (.*)\n$/s.exec(output.stderr) ?? []
    if (typeof message === 'string') t.equal(said, message)
    else t.match(said, message)
  }
})

t.test('a name that every object has is no part', async (t) => {
  const { exited, output } = spawnNode(t, [entry, 'toString'], environment)
  t.equal(await exited(), 1)
  t.match(output.stderr, 'Unknown component "toString"; use idenfy-simulator, identity-provider, demo or all')
})
