import { inspect } from 'node:util'
import selfsigned from 'selfsigned'
import t from 'tap'
import { environmentSchema } from '../../src/config/environment-schema.js'
import { ConfigError } from '../../src/config/faults.js'
import { loadConfig } from '../../src/config/load-config.js'

const required = {
  AUTH_ISSUER: 'https://idp.example',
  AUTH_AUDIENCE: 'onboarding',
  IDENFY_API_KEY: 'canary-key',
  IDENFY_API_SECRET: 'canary-secret',
}
const stateKey = Buffer.alloc(32, 'canary').toString('base64')
type Environment = Record<string, string | undefined>

const secrets = Object.entries({
  IDENFY_API_KEY: 'canary-file',
  IDENFY_API_SECRET: 'canary-file',
  KYB_IDENTITY_KEY: 'canary-file'.repeat(4),
  IDENFY_PROXY_URL: 'http://canary-file@proxy.example',
  STATE_ENCRYPTION_KEY: stateKey,
})

interface IntegerSchema {
  readonly type: string
  readonly minimum: number
  readonly maximum?: number
}
const integers = Object.entries(
  environmentSchema.properties as unknown as Record<string, IntegerSchema>,
).filter(([, { type }]) => type === 'integer')

function faultsOf(environment: Environment): string[] {
  try {
    loadConfig({ ...required, ...environment })
    return []
  } catch (error) {
    if (error instanceof ConfigError) return [...error.faults]
    throw error
  }
}

t.test('defaults', async (t) => {
  t.strictSame(
    { ...loadConfig(required) },
    {
      HOST: '127.0.0.1',
      PORT: 3000,
      MANAGEMENT_HOST: '127.0.0.1',
      MANAGEMENT_PORT: 9000,
      LOG_LEVEL: 'info',
      AUTH_ISSUER: 'https://idp.example',
      AUTH_AUDIENCE: 'onboarding',
      AUTH_JWKS_URL: 'https://idp.example/.well-known/jwks.json',
      AUTH_ALGORITHMS: ['RS256', 'PS256', 'ES256', 'EdDSA'],
      AUTH_TOKEN_TYPES: ['at+jwt', 'JWT'],
      AUTH_USER_CLAIM: 'sub',
      AUTH_COMPANY_CLAIM: 'company_id',
      AUTH_CLOCK_TOLERANCE_SECONDS: 5,
      AUTH_MAX_TOKEN_LIFETIME_SECONDS: 86_400,
      IDENFY_BASE_URL: 'https://ivs.idenfy.com',
      IDENFY_UI_URL: 'https://kyb.ui.idenfy.com/welcome',
      IDENFY_ENVIRONMENT: 'production',
      IDENFY_TIMEOUT_MS: 8000,
      IDENFY_CONNECT_TIMEOUT_MS: 2000,
      IDENFY_STANDBY_MAX_AGE_MS: 45_000,
      IDENFY_CONNECTION_MAX_AGE_MS: 120_000,
      IDENFY_MAX_IN_FLIGHT: 50,
      KYB_CLIENT_ID: '{companyId}',
      KYB_EXTERNAL_REF: '{userId}',
      KYB_REPLAY_SECONDS: 30,
      RATE_LIMIT_USER_PER_MINUTE: 10,
      RATE_LIMIT_COMPANY_PER_MINUTE: 60,
      RATE_LIMIT_REQUESTS_PER_MINUTE: 120,
      RATE_LIMIT_IP_PER_MINUTE: 300,
      REDIS_REQUIRED: 'keys',
      KEEP_ALIVE_TIMEOUT_MS: 72_000,
      DRAIN_DELAY_MS: 0,
      SHUTDOWN_TIMEOUT_MS: 25_000,
      ALLOW_INSECURE_URLS: false,
      DOCS: false,
      idenfyCa: undefined,
      redisCa: undefined,
    },
  )
})

t.test('secrets are there, but nothing prints them along with the rest', async (t) => {
  const config = loadConfig({
    ...required,
    KYB_IDENTITY_KEY: 'canary'.repeat(6),
    KYB_CLIENT_ID: '{companyHash}',
  })
  t.equal(config.IDENFY_API_KEY, 'canary-key')
  t.equal(config.IDENFY_API_SECRET, 'canary-secret')
  t.notMatch(inspect(config, { depth: null }) + JSON.stringify(config), 'canary')
})

t.test('every fault at once, by name and never by value', async (t) => {
  t.strictSame(
    faultsOf({
      AUTH_ISSUER: undefined,
      AUTH_AUDIENCE: '',
      IDENFY_API_KEY: 'canary:key',
      PORT: 'canary',
      MANAGEMENT_PORT: '65536',
      LOG_LEVEL: 'canary',
      AUTH_ALGORITHMS: 'RS256,HS256',
      IDENFY_TIMEOUT_MS: '99.5',
      ALLOW_INSECURE_URLS: 'canary',
      KYB_CLIENT_ID: 'canary-{tenant}',
    }).sort(),
    [
      'ALLOW_INSECURE_URLS must be true or false',
      'AUTH_ALGORITHMS must be a comma-separated list out of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519; got "RS256,HS256"',
      'AUTH_AUDIENCE must not be empty; leave the variable out instead',
      'AUTH_ISSUER is required',
      'IDENFY_API_KEY must be printable ASCII without spaces and colons',
      'IDENFY_TIMEOUT_MS must be an integer from 100 to 60000 milliseconds; got "99.5"',
      'KYB_CLIENT_ID has an unknown placeholder; known are {companyId}, {userId}, {companyHash}, {userHash}, {requestId}; got "{tenant}"',
      'LOG_LEVEL must be one of fatal, error, warn, info, debug, trace, silent',
      'MANAGEMENT_PORT must be an integer from 0 to 65535; got "65536"',
      'PORT must be an integer from 0 to 65535',
    ],
  )
})

t.test('every missing required variable is a fault', async (t) => {
  t.throws(() => loadConfig({ PORT: 'canary' }), {
    name: 'ConfigError',
    message:
      /^The configuration has 5 fault\(s\):\n( {2}\w+ (is required|must be an integer from 0 to 65535)\n?){5}$/,
  })
  const nothing = Object.fromEntries(Object.keys(required).map((name) => [name, undefined]))
  t.strictSame(
    faultsOf(nothing).sort(),
    Object.keys(required)
      .map((name) => `${name} is required`)
      .sort(),
  )
})

t.test('an empty value is a fault, of every variable', async (t) => {
  for (const name of Object.keys(environmentSchema.properties)) {
    t.strictSame(faultsOf({ [name]: '' }), [`${name} must not be empty; leave the variable out instead`])
  }
})

t.test('numbers keep to their range', async (t) => {
  /** With these, no value of one of them contradicts the others. */
  const compatible: Environment = {
    IDENFY_TIMEOUT_MS: '60000',
    SHUTDOWN_TIMEOUT_MS: '600000',
    RATE_LIMIT_USER_PER_MINUTE: '1',
  }
  t.ok(integers.length > 5)
  for (const [name, { minimum, maximum = minimum }] of integers) {
    for (const value of [name === 'SHUTDOWN_TIMEOUT_MS' ? 60_000 : minimum, maximum])
      t.strictSame(faultsOf({ ...compatible, [name]: String(value) }), [], name)
    const outside = [minimum - 1, ...(maximum > minimum ? [maximum + 1] : [])]
    for (const value of [...outside, 'canary', '100.5', '100ms', '1,000', 'NaN']) {
      const faults = faultsOf({ ...compatible, [name]: String(value) })
      t.match(faults, [new RegExp(`^${name} must be `)], `${name}=${value}`)
      t.notMatch(faults.join(), 'canary')
    }
  }
})

t.test('a number without an end is no integer', async (t) => {
  const accepted = integers.flatMap(([name]) =>
    ['Infinity', '-Infinity', '1e999']
      .filter((value) => faultsOf({ [name]: value }).length === 0)
      .map((value) => `${name}=${value}`),
  )
  t.strictSame(accepted, [])
})

t.test('URLs', async (t) => {
  const hosts: Environment = {
    AUTH_JWKS_URL: '/keys',
    IDENFY_BASE_URL: '',
    IDENFY_UI_URL: '/welcome',
  }
  for (const [name, path] of Object.entries(hosts)) {
    const of = (authority: string) => ({ [name]: `${authority}${path}` })
    const good = ['https://a.example', 'http://localhost:1', 'http://127.0.0.1:1', 'http://[::1]:1']
    for (const authority of good) t.strictSame(faultsOf(of(authority)), [], `${name} ${authority}`)

    const insecure = of('http://a.example')
    t.match(faultsOf(insecure), [
      `${name} must be an https: URL; ALLOW_INSECURE_URLS=true lets http: through`,
    ])
    t.match(faultsOf({ ...insecure, ALLOW_INSECURE_URLS: 'false' }), [`${name} must be an https: URL; `])
    t.strictSame(faultsOf({ ...insecure, ALLOW_INSECURE_URLS: 'true' }), [])

    const bad: [string, string][] = [
      ['canary', 'must be an https: URL'],
      ['ftp://a.example', 'must be an https: URL'],
      ['http://localhost.a.example', 'must be an https: URL; '],
      ['http://127.0.0.1.a.example', 'must be an https: URL; '],
      ['https://canary@a.example', 'must not contain credentials'],
      ['https://:canary@a.example', 'must not contain credentials'],
      ['https://a.example/#canary', 'must not have a fragment'],
    ]
    for (const [value, fault] of bad) {
      const faults = faultsOf({ [name]: value, ALLOW_INSECURE_URLS: 'false' })
      t.equal(faults.length, 1, value)
      t.ok(faults[0]?.startsWith(`${name} ${fault}`), `${name} ${fault}`)
      t.notMatch(faults[0], 'canary')
    }
  }
})

t.test('one variable at a time', async (t) => {
  const good: Environment[] = [
    { PORT: '0' },
    { ALLOW_INSECURE_URLS: 'true' },
    { AUTH_ALGORITHMS: 'ES384' },
    { AUTH_TOKEN_TYPES: 'at+jwt' },
    { AUTH_REQUIRED_SCOPE: 'api://onboarding/kyb:create' },
    { AUTH_JWKS_URL: 'https://idp.example/keys?p=policy' },
    { AUTH_ISSUER: 'accounts.example', AUTH_JWKS_URL: 'https://idp.example/keys' },
    { AUTH_ISSUER: 'http://localhost:4011' },
    { AUTH_JWKS_URL: 'http://127.1.2.3/keys' },
    { IDENFY_BASE_URL: 'http://[::1]:4010' },
    { IDENFY_BASE_URL: 'https://ivs.idenfy.com/' },
    { IDENFY_BASE_URL: 'http://simulator:4010', ALLOW_INSECURE_URLS: 'true' },
    { IDENFY_UI_URL: 'https://kyb.acme.example/start?a=b' },
    { CORS_ORIGINS: 'https://app.acme.example,http://localhost:5173' },
    { CORS_ORIGINS: 'capacitor://localhost,ionic://localhost,tauri://localhost,app://acme.example:1' },
    { CORS_ORIGINS: 'https://*.acme.com,https://*.app.acme.co.uk:8443,https://*.acme.github.io' },
    { TRUST_PROXY: '10.0.0.0/8,192.168.1.1,fd00::/8' },
    { IDENFY_PROXY_URL: 'http://user:password@proxy.example:3128' },
    { REDIS_URL: 'rediss://:password@redis.example:6379/2', STATE_ENCRYPTION_KEY: stateKey },
    { REDIS_URL: 'redis://redis', STATE_ENCRYPTION_KEY: [stateKey, stateKey, stateKey].join(',') },
    { AUTH_ALGORITHMS: 'RS256, ES256' },
    { KYB_CLIENT_ID: '{userHash}', KYB_EXTERNAL_REF: '{companyHash}', KYB_IDENTITY_KEY: 'k'.repeat(32) },
  ]
  for (const environment of good) t.strictSame(faultsOf(environment), [], JSON.stringify(environment))

  const bad: [string, Environment][] = [
    ['AUTH_ALGORITHMS', { AUTH_ALGORITHMS: 'none' }],
    ['AUTH_ALGORITHMS', { AUTH_ALGORITHMS: 'HS256' }],
    ['AUTH_ALGORITHMS', { AUTH_ALGORITHMS: 'rs256' }],
    ['AUTH_REQUIRED_SCOPE', { AUTH_REQUIRED_SCOPE: 'two scopes' }],
    ['AUTH_REQUIRED_SCOPE', { AUTH_REQUIRED_SCOPE: 'quo"te' }],
    ['AUTH_REQUIRED_SCOPE', { AUTH_REQUIRED_SCOPE: '' }],
    ['AUTH_CLOCK_TOLERANCE_SECONDS', { AUTH_CLOCK_TOLERANCE_SECONDS: '61' }],
    ['AUTH_ISSUER', { AUTH_ISSUER: 'accounts.example' }],
    ['AUTH_ISSUER', { AUTH_ISSUER: 'http://idp.example' }],
    ['AUTH_JWKS_URL', { AUTH_JWKS_URL: 'http://idp.example/keys' }],
    ['AUTH_JWKS_URL', { AUTH_JWKS_URL: 'file:///etc/keys' }],
    ['IDENFY_BASE_URL', { IDENFY_BASE_URL: 'http://169.254.169.254' }],
    ['IDENFY_BASE_URL', { IDENFY_BASE_URL: 'https://key:secret@ivs.idenfy.com' }],
    ['IDENFY_BASE_URL', { IDENFY_BASE_URL: 'https://ivs.idenfy.com/api' }],
    ['IDENFY_BASE_URL', { IDENFY_BASE_URL: 'https://ivs.idenfy.com/?a' }],
    ['IDENFY_BASE_URL', { IDENFY_BASE_URL: 'http://127.0.0.1.example' }],
    ['IDENFY_UI_URL', { IDENFY_UI_URL: 'https://kyb.ui.idenfy.com/#/welcome' }],
    ['IDENFY_UI_URL', { IDENFY_UI_URL: 'javascript:alert(1)' }],
    ['IDENFY_API_SECRET', { IDENFY_API_SECRET: 'with space' }],
    ['ALLOW_INSECURE_URLS', { ALLOW_INSECURE_URLS: '1' }],
    ['ALLOW_INSECURE_URLS', { ALLOW_INSECURE_URLS: 'TRUE' }],
    ['IDENFY_API_KEY', { IDENFY_API_KEY: 'k'.repeat(513) }],
    ['KYB_CLIENT_ID', { KYB_CLIENT_ID: '{companyHash}' }],
    ['KYB_CLIENT_ID', { KYB_CLIENT_ID: '{companyId' }],
    ['KYB_CLIENT_ID', { KYB_CLIENT_ID: 'é{companyId}' }],
    ['KYB_EXTERNAL_REF', { KYB_EXTERNAL_REF: '{companyId}{userId}' }],
    ['KYB_EXTERNAL_REF', { KYB_EXTERNAL_REF: '{userHash}' }],
    ['KYB_CLIENT_ID', { KYB_CLIENT_ID: '{userId}' }],
    ['KYB_IDENTITY_KEY', { KYB_IDENTITY_KEY: 'short' }],
    ['IDENFY_PROXY_URL', { IDENFY_PROXY_URL: 'socks5://proxy.example' }],
    ['IDENFY_PROXY_URL', { IDENFY_PROXY_URL: 'http://' }],
    ['REDIS_REQUIRED', { REDIS_REQUIRED: 'true' }],
    ['REDIS_REQUIRED', { REDIS_REQUIRED: 'always' }],
    ['REDIS_URL', { REDIS_URL: 'http://redis.example', STATE_ENCRYPTION_KEY: stateKey }],
    ['REDIS_URL', { REDIS_URL: 'redis://[', STATE_ENCRYPTION_KEY: stateKey }],
    ['REDIS_URL', { REDIS_URL: 'redis:///2', STATE_ENCRYPTION_KEY: stateKey }],
    ['REDIS_URL', { REDIS_URL: 'redis://redis.example/two', STATE_ENCRYPTION_KEY: stateKey }],
    ['REDIS_URL', { REDIS_URL: 'redis://redis.example/2/3', STATE_ENCRYPTION_KEY: stateKey }],
    ['REDIS_URL', { REDIS_URL: 'redis://redis.example?db=2', STATE_ENCRYPTION_KEY: stateKey }],
    ['REDIS_URL', { REDIS_URL: 'redis://:canary%@redis.example', STATE_ENCRYPTION_KEY: stateKey }],
    ['REDIS_CA_FILE', { REDIS_CA_FILE: 'package.json' }],
    [
      'REDIS_CA_FILE',
      { REDIS_CA_FILE: 'package.json', REDIS_URL: 'redis://redis.example', STATE_ENCRYPTION_KEY: stateKey },
    ],
    [
      'REDIS_CA_FILE',
      { REDIS_CA_FILE: 'package.json', REDIS_URL: 'rediss://redis.example', STATE_ENCRYPTION_KEY: stateKey },
    ],
    ['STATE_ENCRYPTION_KEY', { REDIS_URL: 'redis://redis.example' }],
    ['STATE_ENCRYPTION_KEY', { STATE_ENCRYPTION_KEY: stateKey.slice(4) }],
    ['STATE_ENCRYPTION_KEY', { STATE_ENCRYPTION_KEY: `${stateKey},` }],
    ['STATE_ENCRYPTION_KEY', { STATE_ENCRYPTION_KEY: Array(4).fill(stateKey).join(',') }],
    ['RATE_LIMIT_USER_PER_MINUTE', { RATE_LIMIT_USER_PER_MINUTE: '0' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: '*' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'https://*.com' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'https://*.co.uk' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'https://*.github.io' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'https://*.localhost' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'https://*.127.0.0.1' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'https://a*.acme.com' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'https://*.*.acme.com' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'https://app.*.acme.com' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'https://*.ACME.com' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'https://*.acme.com/' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: '*://app.acme.com' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'file://' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'file://a' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'capacitor://' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'capacitor://localhost/' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'Capacitor://localhost' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'capacitor://user@localhost' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'https://app.acme.example/' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'https://app.acme.example:443' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'https://APP.acme.example' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'null' }],
    ['CORS_ORIGINS', { CORS_ORIGINS: 'https://[' }],
    ['NODE_TLS_REJECT_UNAUTHORIZED', { NODE_TLS_REJECT_UNAUTHORIZED: '0' }],
    ['SHUTDOWN_TIMEOUT_MS', { DRAIN_DELAY_MS: '5000', SHUTDOWN_TIMEOUT_MS: '12999' }],
    ['NODE_OPTIONS', { NODE_OPTIONS: '--insecure-http-parser' }],
    ['KEEP_ALIVE_TIMEOUT_MS', { KEEP_ALIVE_TIMEOUT_MS: '0' }],
    ['TRUST_PROXY', { TRUST_PROXY: '1' }],
    ['TRUST_PROXY', { TRUST_PROXY: 'true' }],
    ['TRUST_PROXY', { TRUST_PROXY: '10.0.0.0/33' }],
    ['TRUST_PROXY', { TRUST_PROXY: '10.0.0/8' }],
  ]
  for (const [name, environment] of bad) {
    const faults = faultsOf(environment)
    t.equal(faults.length, 1, JSON.stringify(environment))
    t.match(faults[0], new RegExp(`^${name} `))
  }
})

t.test('the key set of an issuer, with a slash at its end or without', async (t) => {
  for (const AUTH_ISSUER of ['https://tenant.example/', 'https://tenant.example']) {
    const config = loadConfig({ ...required, AUTH_ISSUER })
    t.equal(config.AUTH_JWKS_URL, 'https://tenant.example/.well-known/jwks.json')
    t.equal(config.AUTH_ISSUER, AUTH_ISSUER, 'to the letter')
  }
})

t.test('secrets from files', async (t) => {
  const dir = t.testdir({
    lf: 'canary-file\n',
    crlf: 'canary-file\r\n',
    two: 'canary-file\n\n',
    bom: '\ufeffcanary-file',
    lines: 'canary-file\ncanary',
    utf16: Buffer.from('\ufeffcanary-file', 'utf16le'),
    empty: '',
    long: 'x'.repeat(4097),
    key: 'k'.repeat(40),
  })
  for (const file of ['lf', 'crlf', 'two', 'bom']) {
    const environment = {
      ...required,
      IDENFY_API_KEY: undefined,
      IDENFY_API_KEY_FILE: `${dir}/${file}`,
      IDENFY_API_SECRET: undefined,
      IDENFY_API_SECRET_FILE: `${dir}/${file}`,
      KYB_IDENTITY_KEY_FILE: `${dir}/key`,
      KYB_CLIENT_ID: '{companyHash}',
    }
    const { IDENFY_API_KEY, IDENFY_API_SECRET, KYB_IDENTITY_KEY } = loadConfig(environment)
    t.strictSame(
      [IDENFY_API_KEY, IDENFY_API_SECRET, KYB_IDENTITY_KEY],
      ['canary-file', 'canary-file', 'k'.repeat(40)],
    )
  }
  const rows: [string, RegExp][] = [
    ['lines', / must not have a line break .*, given by \w+_FILE$/],
    ['utf16', /is not a UTF-8 text, given by \w+_FILE$/],
    ['empty', /is an empty file, given by \w+_FILE$/],
    ['long', /is longer than 4096 bytes, given by \w+_FILE$/],
    ['missing', /cannot be read \(ENOENT\), given by \w+_FILE$/],
    ['.', /cannot be read \(EISDIR\), given by \w+_FILE$/],
  ]
  for (const [name, value] of secrets) {
    for (const [file, fault] of rows) {
      const faults = faultsOf({ [name]: undefined, [`${name}_FILE`]: `${dir}/${file}` })
      t.equal(faults.length, 1, `${name} ${file}`)
      t.match(faults[0], new RegExp(`^${name} `))
      t.match(faults[0], fault)
      t.notMatch(faults[0], /canary|xxx/)
    }
    t.strictSame(faultsOf({ [name]: value, [`${name}_FILE`]: `${dir}/lf` }), [
      `${name} is given twice, also as ${name}_FILE`,
    ])
  }
  t.strictSame(faultsOf({ PORT_FILE: `${dir}/lf` }), [
    'PORT_FILE is not known: only secrets are read from files; set PORT itself',
  ])
})

t.test('other files', async (t) => {
  const { cert } = await selfsigned.generate([{ name: 'commonName', value: 'ca' }])
  const dir = t.testdir({
    'ca.pem': cert,
    'not.pem': 'canary',
    'policy.json': '{"session":{"lifetime":60}}',
    'broken.json': '{canary',
    'wrong.json': '{"session":{"lifetime":1},"companies":{"acme":{"callerMaySet":{"canary":true}}}}',
    'conflict.json': JSON.stringify({
      session: { questionnaire: 'canary' },
      companies: { acme: { session: { flow: '7b1d8a1e-6c1b-4d53-9d3a-0c5a3f2e9a10' } } },
    }),
    long: ' '.repeat(1024 * 1024 + 1),
  })
  const config = loadConfig({
    ...required,
    IDENFY_CA_FILE: `${dir}/ca.pem`,
    KYB_POLICY_FILE: `${dir}/policy.json`,
  })
  t.equal(config.idenfyCa, cert)
  t.strictSame(JSON.parse(await config.readPolicy()), { session: { lifetime: 60 } })
  t.strictSame(faultsOf({ IDENFY_CA_FILE: `${dir}/not.pem`, KYB_POLICY_FILE: `${dir}/broken.json` }), [
    'IDENFY_CA_FILE holds no certificate in PEM form',
    'KYB_POLICY_FILE is not JSON, which has no comments and no trailing commas',
  ])
  const unreadable: [string, string][] = [
    ['none', 'cannot be read (ENOENT)'],
    ['.', 'cannot be read (EISDIR)'],
    ['long', 'is longer than 1048576 bytes'],
  ]
  for (const [file, fault] of unreadable) {
    t.strictSame(faultsOf({ IDENFY_CA_FILE: `${dir}/${file}`, KYB_POLICY_FILE: `${dir}/${file}` }), [
      `IDENFY_CA_FILE ${fault}`,
      `KYB_POLICY_FILE ${fault}`,
    ])
  }
  const [fault] = faultsOf({ KYB_POLICY_FILE: `${dir}/wrong.json` })
  t.match(fault, /^KYB_POLICY_FILE is not valid: .*\/session\/lifetime /)
  t.match(fault, '/companies/acme/callerMaySet/canary ', 'a name is no value')
  t.strictSame(faultsOf({ KYB_POLICY_FILE: `${dir}/conflict.json` }), [
    'KYB_POLICY_FILE is not valid: /companies/acme/session has a flow and a questionnaire, but iDenfy ignores a questionnaire next to a flow',
  ])
})

t.test('the environment of the process is the default', async (t) => {
  t.throws(() => loadConfig(), { name: 'ConfigError' })
})
