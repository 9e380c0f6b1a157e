import type { NetworkInterfaceInfo } from 'node:os'
import t from 'tap'
import { loadSandboxConfig, loadServiceConfig, originAt, urlHostOf } from '../../sandbox/config.js'

const ports = [
  'SANDBOX_PORT',
  'SANDBOX_MANAGEMENT_PORT',
  'SANDBOX_IDENFY_PORT',
  'SANDBOX_IDENTITY_PORT',
  'SANDBOX_DEMO_PORT',
]

t.test('a misspelt variable is a fault', async (t) => {
  t.throws(() => loadSandboxConfig({ SANDBOX_HOTS: 'x' }), {
    message: /^SANDBOX_HOTS is not known; there are SANDBOX_HOST, SANDBOX_URL_HOST, /,
  })
})

t.test('ports can be moved', async (t) => {
  t.strictSame(loadSandboxConfig({ SANDBOX_IDENFY_PORT: '5010', OTHER: 'x' }), {
    SANDBOX_HOST: '127.0.0.1',
    SANDBOX_PORT: 3000,
    SANDBOX_MANAGEMENT_PORT: 9000,
    SANDBOX_IDENFY_PORT: 5010,
    SANDBOX_IDENTITY_PORT: 4011,
    SANDBOX_DEMO_PORT: 4012,
    SANDBOX_CORS_ORIGINS: 'http://localhost:5173',
  })
  t.equal(loadSandboxConfig({ SANDBOX_HOST: '0.0.0.0' }).SANDBOX_HOST, '0.0.0.0')
  for (const name of ports) {
    for (const value of ['0', '65535'])
      t.match(loadSandboxConfig({ [name]: value }), { [name]: Number(value) })
  }
  t.throws(() => loadSandboxConfig({ SANDBOX_PORT: 'x', SANDBOX_IDENTITY_PORT: '70000' }), {
    message: /SANDBOX_PORT must be an integer from 0 to 65535; SANDBOX_IDENTITY_PORT must be /,
  })
  t.strictSame(
    loadSandboxConfig(),
    loadSandboxConfig(process.env),
    'the environment of the process is the default',
  )
})

t.test('an invalid port is named', async (t) => {
  for (const name of ports) {
    for (const value of ['x', '', '1.5', '-1', '65536']) {
      t.throws(() => loadSandboxConfig({ [name]: value }), { message: new RegExp(name) }, `${name}=${value}`)
    }
  }
})

t.test('a number without an end is no port', async (t) => {
  for (const name of ports) {
    t.throws(() => loadSandboxConfig({ [name]: 'Infinity' }), { message: new RegExp(name) }, name)
  }
})

t.test('URLs have the host that everything listens on, or the one that is set', async (t) => {
  const hostFor = (environment: NodeJS.ProcessEnv) => urlHostOf(loadSandboxConfig(environment))
  t.equal(hostFor({}), '127.0.0.1')
  t.equal(hostFor({ SANDBOX_HOST: '192.168.1.20' }), '192.168.1.20')
  t.equal(hostFor({ SANDBOX_HOST: 'fd00::2' }), '[fd00::2]')
  t.equal(hostFor({ SANDBOX_HOST: '0.0.0.0', SANDBOX_URL_HOST: 'my-computer.local' }), 'my-computer.local')
  for (const SANDBOX_HOST of ['0.0.0.0', '::']) {
    const config = loadSandboxConfig({ SANDBOX_HOST })
    const [loopback, ethernet] = ['127.0.0.1', '192.168.1.20'].map((address) => ({
      address,
      family: 'IPv4' as const,
      internal: address === '127.0.0.1',
      netmask: '255.255.255.0',
      mac: '00:00:00:00:00:00',
      cidr: null,
    })) as [NetworkInterfaceInfo, NetworkInterfaceInfo]
    t.equal(urlHostOf(config, { lo: [loopback], eth0: [ethernet] }), '192.168.1.20')
    t.equal(urlHostOf(config, { lo: [loopback], eth0: undefined }), '127.0.0.1', 'without a network')
    t.not(urlHostOf(config), SANDBOX_HOST)
  }
  t.throws(() => loadSandboxConfig({ SANDBOX_URL_HOST: 'http://x' }), {
    message: 'SANDBOX_URL_HOST must be a host name or an IPv4 address',
  })
  t.equal(originAt('[fd00::2]', 'http://127.0.0.1:4012'), 'http://[fd00::2]:4012')
  t.equal(originAt('localhost', 'http://127.0.0.1:80'), 'http://localhost')
})

const urls = {
  idenfyUrl: 'http://192.168.1.20:4010',
  identityUrl: 'http://192.168.1.20:4011',
  demoUrl: 'http://192.168.1.20:4012',
}

t.test('the variables of the service reach the service', async (t) => {
  const directory = t.testdir({ 'policy.json': '{"callerMaySet":{"tags":true}}' })
  const environment = {
    KYB_POLICY_FILE: `${directory}/policy.json`,
    KYB_EXTERNAL_REF: 'user:{userId}',
    AUTH_REQUIRED_SCOPE: 'kyb.create',
    IDENFY_TIMEOUT_MS: '4000',
    CORS_ORIGINS: 'http://localhost:8080',
    DOCS: 'false',
    SANDBOX_IDENTITY_PORT: '5011',
  }
  const { serviceConfig, ignored } = loadServiceConfig(loadSandboxConfig(environment), urls, environment)
  t.match(serviceConfig, {
    KYB_EXTERNAL_REF: 'user:{userId}',
    AUTH_REQUIRED_SCOPE: 'kyb.create',
    AUTH_ISSUER: 'http://localhost:5011',
    AUTH_JWKS_URL: 'http://192.168.1.20:4011/.well-known/jwks.json',
    IDENFY_TIMEOUT_MS: 4000,
    DOCS: false,
  })
  t.match(await serviceConfig.readPolicy(), 'tags')
  t.strictSame(serviceConfig.CORS_ORIGINS, [
    'http://192.168.1.20:4012',
    'http://127.0.0.1:4012',
    'http://localhost:4012',
    'http://localhost:5173',
    'http://localhost:8080',
  ])
  t.strictSame(ignored, [])
})

t.test('no variable leads the service out of the sandbox', async (t) => {
  const directory = t.testdir({ secret: 'real-secret' })
  const environment = {
    HOST: '0.0.0.0',
    PORT: '8080',
    AUTH_ISSUER: 'https://login.example.com/',
    AUTH_JWKS_URL: 'https://login.example.com/keys',
    IDENFY_API_KEY: 'real-key',
    IDENFY_API_SECRET_FILE: `${directory}/secret`,
    IDENFY_BASE_URL: 'https://ivs.idenfy.com',
    IDENFY_PROXY_URL_FILE: `${directory}/missing`,
    IDENFY_ENVIRONMENT: 'production',
    PATH: '/bin',
  }
  const { serviceConfig, ignored } = loadServiceConfig(loadSandboxConfig({}), urls, environment)
  t.match(serviceConfig, {
    AUTH_ISSUER: 'http://localhost:4011',
    IDENFY_BASE_URL: urls.idenfyUrl,
    IDENFY_UI_URL: `${urls.idenfyUrl}/welcome`,
    IDENFY_PROXY_URL: undefined,
    IDENFY_ENVIRONMENT: 'sandbox',
    PORT: 3000,
  })
  t.equal(serviceConfig.IDENFY_API_KEY, 'sandbox-key')
  t.equal(await serviceConfig.readSecret('IDENFY_API_SECRET'), 'sandbox-secret')
  t.strictSame(
    ignored,
    Object.keys(environment).filter((name) => name !== 'PATH'),
  )
})

t.test('a wrong or misspelt variable of the service is a fault', async (t) => {
  for (const [name, message] of [
    ['KYB_POLCY_FILE', /KYB_POLCY_FILE is not known; did you mean KYB_POLICY_FILE\?/],
    ['KYB_REPLAY_SECONDS', /KYB_REPLAY_SECONDS must be an integer/],
  ] as const) {
    t.throws(() => loadServiceConfig(loadSandboxConfig({}), urls, { [name]: 'x' }), { message })
  }
  t.match(
    loadServiceConfig(loadSandboxConfig({}), urls),
    { ignored: Array },
    'by default that of the process',
  )
})
