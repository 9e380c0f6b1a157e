import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ConfigError } from '../../src/config/faults.js'
import { loadConfig } from '../../src/config/load-config.js'
import { spawnNode } from '../helper.js'

type Variables = Readonly<Record<string, string | undefined>>

/** In every secret and in every value that could be one; it must never be seen. */
const canary = 'canary7Q'
const stateKey = Buffer.alloc(32, canary).toString('base64')
const good: Variables = {
  AUTH_ISSUER: 'https://login.example.com/',
  AUTH_AUDIENCE: 'https://onboarding.example.com',
  IDENFY_API_KEY: `key-${canary}`,
  IDENFY_API_SECRET: `secret-${canary}`,
}
const redis = { REDIS_URL: `rediss://:${canary}@redis.example`, STATE_ENCRYPTION_KEY: stateKey }
const hashed = { KYB_CLIENT_ID: '{companyHash}', KYB_IDENTITY_KEY: canary.repeat(4) }

function load(variables: Variables) {
  try {
    const config = loadConfig({ ...good, ...variables })
    return { config, faults: [] }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return { faults: error.faults }
  }
}

/** Variables, and the start of the only fault: a name, what is expected, and what was received. */
type FaultRow = readonly [Variables, string]

function expectFaults(t: Test, rows: readonly FaultRow[]): void {
  for (const [variables, expected] of rows) {
    const { faults } = load(variables)
    t.equal(faults.length, 1, JSON.stringify(variables))
    t.equal(faults[0], expected)
    t.notMatch(faults.join(), /canary/i)
    t.notMatch(faults.join(), stateKey)
  }
}

/** Variables that are accepted, and what they come to. */
type AcceptedRow = readonly [Variables, Readonly<Record<string, unknown>>]

function expectSettings(t: Test, rows: readonly AcceptedRow[]): void {
  for (const [variables, expected] of rows) {
    const { config, faults } = load(variables)
    t.strictSame(faults, [], JSON.stringify(variables))
    t.match(config?.settings, expected, JSON.stringify(variables))
    t.notMatch(JSON.stringify(config?.settings), /canary/i)
  }
}

t.test('names', async (t) => {
  const known = (name: string, right: string): FaultRow => [
    { [name]: canary },
    `${name} is not known; did you mean ${right}?`,
  ]
  expectFaults(t, [
    known('AUTH_REQUIRED_SCOPES', 'AUTH_REQUIRED_SCOPE'),
    known('AUTH_REQUIRE_SCOPE', 'AUTH_REQUIRED_SCOPE'),
    known('AUTH_ISSUER_URL', 'AUTH_ISSUER'),
    known('AUTH_AUDIENCES', 'AUTH_AUDIENCE'),
    known('AUTH_JWKS_URI', 'AUTH_JWKS_URL'),
    known('AUTH_ALGORITHM', 'AUTH_ALGORITHMS'),
    known('IDENFY_API_KEYFILE', 'IDENFY_API_KEY_FILE'),
    known('IDENFY_TIMEOUT', 'IDENFY_TIMEOUT_MS'),
    known('IDENIFY_PROXY_URL', 'IDENFY_PROXY_URL'),
    known('KYB_POLICYFILE', 'KYB_POLICY_FILE'),
    known('KBY_POLICY_FILE', 'KYB_POLICY_FILE'),
    known('RATE_LIMIT_USERS_PER_MINUTE', 'RATE_LIMIT_USER_PER_MINUTE'),
    known('REDIS_URI', 'REDIS_URL'),
    known('CORS_ORIGIN', 'CORS_ORIGINS'),
    known('TRUST_PROXIES', 'TRUST_PROXY'),
    known('STATE_ENCRYPTON_KEY', 'STATE_ENCRYPTION_KEY'),
    known('KEEPALIVE_TIMEOUT_MS', 'KEEP_ALIVE_TIMEOUT_MS'),
    known('SHUTDWON_TIMEOUT_MS', 'SHUTDOWN_TIMEOUT_MS'),
    known('auth_issuer', 'AUTH_ISSUER'),
    known('Idenfy_Api_Key_File', 'IDENFY_API_KEY_FILE'),
    [
      { AUTH_CLIENT_SECRET: canary },
      'AUTH_CLIENT_SECRET is not known; docs/configuration.md lists all variables',
    ],
    [{ REDIS_PASSWORD: canary }, 'REDIS_PASSWORD is not known; docs/configuration.md lists all variables'],
    [{ REDIS_PORT: '6379' }, 'REDIS_PORT is not known; did you mean REDIS_URL?'],
    [
      { [`AUTH_ISSUER:${canary}`]: '1' },
      'AUTH_ISSUER… is not known; docs/configuration.md lists all variables',
    ],
    [
      { AUTH_ISSUER_FILE: '/x' },
      'AUTH_ISSUER_FILE is not known: only secrets are read from files; set AUTH_ISSUER itself',
    ],
    [
      { IDENFY_CA_FILE_FILE: '/x' },
      'IDENFY_CA_FILE_FILE is not known: only secrets are read from files; set IDENFY_CA_FILE itself',
    ],
    [{ PORT_FILE: '/x' }, 'PORT_FILE is not known: only secrets are read from files; set PORT itself'],
  ])
})

t.test('names that others set', async (t) => {
  const address = 'tcp://10.0.0.1:6379'
  expectSettings(t, [
    [
      {
        REDIS_PORT: address,
        REDIS_PORT_6379_TCP: address,
        REDIS_PORT_6379_TCP_ADDR: '10.0.0.1',
        REDIS_PORT_6379_TCP_PORT: '6379',
        REDIS_PORT_6379_TCP_PROTO: 'tcp',
        REDIS_SERVICE_HOST: '10.0.0.1',
        REDIS_SERVICE_PORT: '6379',
        REDIS_SERVICE_PORT_CLIENT: '6379',
        REDIS_NAME: '/bff/redis',
        REDIS_ENV_REDIS_VERSION: '8',
      },
      { REDIS_URL: null },
    ],
    [{ IDENFY_SIMULATOR_PORT_4010_TCP_ADDR: '10.0.0.1', AUTH_SERVICE_HOST: '10.0.0.1' }, {}],
    // A service that is called `management`.
    [{ MANAGEMENT_PORT: 'tcp://10.0.0.1:80' }, { MANAGEMENT_PORT: 9000 }],
    [
      {
        REDIS_URL: 'redis://a',
        STATE_ENCRYPTION_KEY: stateKey,
        REDIS_TLS_URL: `rediss://:${canary}@a`,
        REDIS_PASSWORD: canary,
        REDIS_HOST: 'a',
        REDIS_PORT: '6379',
      },
      { REDIS_URL: 'set, redis://a' },
    ],
    [{ STATE_DIRECTORY: '/var/lib/a', LOG_FORMAT: 'json', HOSTNAME: 'a', PATH: '/bin' }, {}],
    [{ PS1: '', LS_COLORS: '', npm_config_cache: '/a', http_proxy: 'http://a', NODE_VERSION: '24' }, {}],
  ])
})

t.test('URLs', async (t) => {
  const https = 'must be an https: URL'
  const origin = 'must be an origin, without a path or a query'
  const origins =
    'must be a comma-separated list of origins such as https://app.example.com or https://*.example.com, with a scheme and without a path or a slash at the end'
  expectFaults(t, [
    [
      { AUTH_ISSUER: 'login.example.com' },
      `AUTH_ISSUER ${https}; AUTH_AUDIENCE is one: are the two swapped?; got "login.example.com"`,
    ],
    [
      { AUTH_ISSUER: 'login.example.com', AUTH_AUDIENCE: 'a' },
      `AUTH_ISSUER ${https}; got "login.example.com"`,
    ],
    [{ AUTH_ISSUER: canary, AUTH_AUDIENCE: 'a' }, `AUTH_ISSUER ${https}`],
    [{ AUTH_ISSUER: 'https:/' }, `AUTH_ISSUER ${https}; AUTH_AUDIENCE is one: are the two swapped?`],
    [
      { AUTH_ISSUER: 'https://login.example.com//' },
      'AUTH_ISSUER must not end with two slashes; got "https://login.example.com//"',
    ],
    [
      { AUTH_ISSUER: 'https://login.example.com/.well-known/openid-configuration' },
      'AUTH_ISSUER must be the issuer alone, without /.well-known/ and what follows; got "https://login.example.com/.well-known/openid-configuration"',
    ],
    [
      { AUTH_ISSUER: `https://login.example.com/?a=${canary}` },
      'AUTH_ISSUER must not have a query; got "https://login.example.com/?…"',
    ],
    [
      { AUTH_ISSUER: `https://login.example.com/#${canary}` },
      'AUTH_ISSUER must not have a fragment; got "https://login.example.com/#…"',
    ],
    [{ AUTH_ISSUER: `https://${canary}@login.example.com` }, 'AUTH_ISSUER must not contain credentials'],
    [
      { AUTH_ISSUER: `https://:${canary}@login.example.com`, AUTH_JWKS_URL: 'https://a.example' },
      'AUTH_ISSUER must not contain credentials',
    ],
    [
      { AUTH_ISSUER: ' https://login.example.com' },
      'AUTH_ISSUER must not have white space at its start or end',
    ],
    [
      { AUTH_ISSUER: 'https://login.example.com\n' },
      'AUTH_ISSUER must not have white space at its start or end',
    ],
    [
      { AUTH_ISSUER: 'https://login.example.com/{tenant}/v2.0' },
      'AUTH_ISSUER has a placeholder that was not replaced; got "https://login.example.com/{tenant}/v2.0"',
    ],
    [{ AUTH_ISSUER: '"https://login.example.com"' }, 'AUTH_ISSUER must not have quotes around it'],
    [
      { AUTH_ISSUER: `$${'{ISSUER}'}` },
      'AUTH_ISSUER contains a placeholder that was not replaced; got "{ISSUER}"',
    ],
    [{ AUTH_AUDIENCE: '$(AUDIENCE)' }, 'AUTH_AUDIENCE contains a placeholder that was not replaced'],
    [{ AUTH_AUDIENCE: '$AUDIENCE' }, 'AUTH_AUDIENCE contains a placeholder that was not replaced'],
    [{ AUTH_AUDIENCE: `\${AUDIENCE:-x}-y` }, 'AUTH_AUDIENCE contains a placeholder that was not replaced'],
    [{ IDENFY_API_KEY: '{{ secret }}' }, 'IDENFY_API_KEY contains a placeholder that was not replaced'],
    [{ IDENFY_API_KEY: '<api-key>' }, 'IDENFY_API_KEY contains a placeholder that was not replaced'],
    [{ IDENFY_API_KEY: '%KEY%' }, 'IDENFY_API_KEY contains a placeholder that was not replaced'],
    [
      { IDENFY_PROXY_URL: `http://user:${canary}%@proxy.example` },
      'IDENFY_PROXY_URL has a user name or password that is not percent-encoded',
    ],
    [{ AUTH_AUDIENCE: 'a\nb' }, 'AUTH_AUDIENCE must not have a line break or another control character'],
    [
      { AUTH_JWKS_URL: 'https://login.example.com/.well-known/openid-configuration' },
      'AUTH_JWKS_URL is the URL of a discovery document; set the `jwks_uri` that it contains; got "https://login.example.com/.well-known/openid-configuration"',
    ],
    [{ AUTH_JWKS_URL: '/.well-known/jwks.json' }, `AUTH_JWKS_URL ${https}`],
    [
      { AUTH_JWKS_URL: `https://a.example/${canary.repeat(3)}/#a` },
      'AUTH_JWKS_URL must not have a fragment; got "https://a.example/…/#…"',
    ],
    [{ IDENFY_BASE_URL: 'ivs.idenfy.com' }, `IDENFY_BASE_URL ${https}; got "ivs.idenfy.com"`],
    [
      { IDENFY_BASE_URL: 'https://ivs.idenfy.com/api/v2' },
      `IDENFY_BASE_URL ${origin}; got "https://ivs.idenfy.com/api/v2"`,
    ],
    [
      { IDENFY_BASE_URL: 'https://ivs.idenfy.com//' },
      `IDENFY_BASE_URL ${origin}; got "https://ivs.idenfy.com//"`,
    ],
    [
      { IDENFY_BASE_URL: 'https://kyb.ui.idenfy.com/welcome' },
      `IDENFY_BASE_URL ${origin}; got "https://kyb.ui.idenfy.com/welcome"`,
    ],
    [
      { IDENFY_BASE_URL: 'http://ivs.idenfy.com' },
      `IDENFY_BASE_URL ${https}; ALLOW_INSECURE_URLS=true lets http: through; got "http://ivs.idenfy.com"`,
    ],
    [{ IDENFY_UI_URL: 'kyb.ui.idenfy.com/welcome' }, `IDENFY_UI_URL ${https}`],
    [{ IDENFY_PROXY_URL: 'proxy.example:3128' }, 'IDENFY_PROXY_URL must be an http: or https: URL'],
    [
      { IDENFY_PROXY_URL: `http://u:${canary}#b@proxy.example` },
      'IDENFY_PROXY_URL is not a URL; special characters in a password must be percent-encoded',
    ],
    [
      { IDENFY_PROXY_URL: `http://u:1/${canary}@proxy.example` },
      'IDENFY_PROXY_URL has an @ after the host; special characters in a password must be percent-encoded',
    ],
    [
      { ...redis, REDIS_URL: `redis://:${canary}@redis.example` },
      'REDIS_URL must be a rediss: URL: the password would travel unencrypted; ALLOW_INSECURE_URLS=true lets redis: through',
    ],
    [{ ...redis, REDIS_URL: 'redis.example:6379' }, 'REDIS_URL must be a redis: or rediss: URL'],
    [{ CORS_ORIGINS: 'https://app.example.com/' }, `CORS_ORIGINS ${origins}; got "https://app.example.com/"`],
    [
      { CORS_ORIGINS: 'https://app.example.com/start' },
      `CORS_ORIGINS ${origins}; got "https://app.example.com/start"`,
    ],
    [{ CORS_ORIGINS: '*' }, `CORS_ORIGINS ${origins}; got "*"`],
    [{ CORS_ORIGINS: 'app.example.com' }, `CORS_ORIGINS ${origins}; got "app.example.com"`],
    [{ CORS_ORIGINS: `https://a.example,${canary}` }, `CORS_ORIGINS ${origins}; got "https://a.example,…"`],
    [
      { CORS_ORIGINS: 'https://a.example;https://b.example' },
      `CORS_ORIGINS ${origins}; got "https://a.example;https://b.example"`,
    ],
    [
      { CORS_ORIGINS: 'https://a.example,,https://b.example' },
      'CORS_ORIGINS must be a comma-separated list of origins; got "https://a.example,,https://b.example"',
    ],
    [{ CORS_ORIGINS: 'https://A.example' }, `CORS_ORIGINS ${origins}; got "https://A.example"`],
    [
      { CORS_ORIGINS: 'https://*.com' },
      'CORS_ORIGINS must not have a wildcard below a public suffix: it would allow pages of other companies; got "https://*.com"',
    ],
    [
      { CORS_ORIGINS: `https://${'a'.repeat(60)}.example/` },
      `CORS_ORIGINS ${origins}; got "https://${'a'.repeat(52)}…"`,
    ],
  ])
  expectSettings(t, [
    [{ AUTH_AUDIENCE: 'https://login.example.com/' }, { AUTH_AUDIENCE: good.AUTH_ISSUER }],
    [
      { AUTH_ISSUER: 'accounts.example', AUTH_JWKS_URL: 'https://a.example/keys' },
      { AUTH_ISSUER: 'accounts.example' },
    ],
    [
      { AUTH_JWKS_URL: `https://a.example/keys?key=${canary}` },
      { AUTH_JWKS_URL: 'https://a.example/keys?…' },
    ],
    [
      { AUTH_ISSUER: 'https://login.example.com' },
      { AUTH_JWKS_URL: 'https://login.example.com/.well-known/jwks.json' },
    ],
    [
      { CORS_ORIGINS: 'https://a.example , https://b.example' },
      { CORS_ORIGINS: ['https://a.example', 'https://b.example'] },
    ],
    [
      { IDENFY_PROXY_URL: `http://u:${canary}@proxy.example:3128` },
      { IDENFY_PROXY_URL: 'set, http://proxy.example:3128' },
    ],
    [redis, { REDIS_URL: 'set, rediss://redis.example', STATE_ENCRYPTION_KEY: 'set' }],
    [{ ...redis, REDIS_URL: 'redis://redis.example' }, { REDIS_URL: 'set, redis://redis.example' }],
    [{ ...redis, REDIS_URL: `redis://:${canary}@127.0.0.1` }, { REDIS_URL: 'set, redis://127.0.0.1' }],
    [
      { ...redis, REDIS_URL: `redis://:${canary}@redis.example`, ALLOW_INSECURE_URLS: 'true' },
      { REDIS_URL: 'set, redis://redis.example' },
    ],
  ])
})

t.test('numbers, units, choices and addresses', async (t) => {
  const timeout = 'IDENFY_TIMEOUT_MS must be an integer from 100 to 60000 milliseconds'
  const received = (values: readonly string[]): FaultRow[] =>
    values.map((value) => [{ IDENFY_TIMEOUT_MS: value }, `${timeout}; got ${JSON.stringify(value)}`])
  const booleans = (values: readonly string[]): FaultRow[] =>
    values.map((value) => [
      { ALLOW_INSECURE_URLS: value },
      `ALLOW_INSECURE_URLS must be true or false; got "${value}"`,
    ])
  const algorithms =
    'AUTH_ALGORITHMS must be a comma-separated list out of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519'
  const networks = 'TRUST_PROXY must be a comma-separated list of addresses and CIDRs'
  const host = 'must be an address or a host name, without brackets, scheme and port'
  expectFaults(t, [
    ...received([
      '8',
      '8s',
      '8 s',
      '8000ms',
      '8,000',
      '8.000',
      '8_000',
      '8e3',
      '0x1f40',
      '-8000',
      '8000.5',
      'Infinity',
      'NaN',
    ]),
    [{ IDENFY_TIMEOUT_MS: canary }, timeout],
    [
      { KEEP_ALIVE_TIMEOUT_MS: '72' },
      'KEEP_ALIVE_TIMEOUT_MS must be an integer from 1000 to 7200000 milliseconds; got "72"',
    ],
    [
      { IDENFY_STANDBY_MAX_AGE_MS: '999' },
      'IDENFY_STANDBY_MAX_AGE_MS must be 0 or at least 1000 milliseconds; got "999"',
    ],
    [{ DRAIN_DELAY_MS: '5' }, 'DRAIN_DELAY_MS must be 0 or at least 100 milliseconds; got "5"'],
    [
      { SHUTDOWN_TIMEOUT_MS: '25' },
      'SHUTDOWN_TIMEOUT_MS must be an integer from 100 to 600000 milliseconds; got "25"',
    ],
    [
      { KYB_REPLAY_SECONDS: '30000' },
      'KYB_REPLAY_SECONDS must be an integer from 0 to 3600 seconds; got "30000"',
    ],
    [
      { AUTH_CLOCK_TOLERANCE_SECONDS: '5000' },
      'AUTH_CLOCK_TOLERANCE_SECONDS must be an integer from 0 to 60 seconds; got "5000"',
    ],
    [
      { RATE_LIMIT_USER_PER_MINUTE: '0' },
      'RATE_LIMIT_USER_PER_MINUTE must be an integer from 1 to 1000000; got "0"',
    ],
    [{ PORT: '99999' }, 'PORT must be an integer from 0 to 65535; got "99999"'],
    ...booleans(['yes', '1', 'TRUE', 'on', 'enabled', 'tru']),
    [{ ALLOW_INSECURE_URLS: canary }, 'ALLOW_INSECURE_URLS must be true or false'],
    [
      { LOG_LEVEL: 'warning' },
      'LOG_LEVEL must be one of fatal, error, warn, info, debug, trace, silent; got "warning"',
    ],
    [
      { LOG_LEVEL: 'INFO' },
      'LOG_LEVEL must be one of fatal, error, warn, info, debug, trace, silent; got "INFO"',
    ],
    [
      { IDENFY_ENVIRONMENT: 'Sandbox' },
      'IDENFY_ENVIRONMENT must be one of production, sandbox; got "Sandbox"',
    ],
    [{ ...redis, REDIS_REQUIRED: 'always' }, 'REDIS_REQUIRED must be one of false, keys, true; got "always"'],
    [{ AUTH_ALGORITHMS: 'HS256' }, `${algorithms}; got "HS256"`],
    [{ AUTH_ALGORITHMS: 'rs256' }, `${algorithms}; got "rs256"`],
    [{ AUTH_ALGORITHMS: 'RS256;ES256' }, `${algorithms}; got "RS256;ES256"`],
    [{ AUTH_ALGORITHMS: 'RS256,' }, `${algorithms}; got "RS256,"`],
    [{ AUTH_ALGORITHMS: `${canary},${canary}` }, algorithms],
    [{ AUTH_TOKEN_TYPES: 'at+jwt;JWT' }, 'AUTH_TOKEN_TYPES must be a comma-separated list of token types'],
    [{ AUTH_REQUIRED_SCOPE: 'kyb read' }, 'AUTH_REQUIRED_SCOPE must be one scope'],
    [{ TRUST_PROXY: 'true' }, `${networks}; got "true"`],
    [{ TRUST_PROXY: '10.0.0.0/33' }, `${networks}; got "10.0.0.0/33"`],
    [
      { TRUST_PROXY: '0.0.0.0/0' },
      'TRUST_PROXY must not be every address: clients could claim any address; got "0.0.0.0/0"',
    ],
    [{ TRUST_PROXY: '10.0.0/8' }, `${networks}; got "10.0.0/8"`],
    [{ TRUST_PROXY: 'fd00::/129' }, `${networks}; got "fd00::/129"`],
    [{ TRUST_PROXY: 'proxy.example.com' }, `${networks}; got "proxy.example.com"`],
    [{ HOST: '[::1]' }, `HOST ${host}; got "[::1]"`],
    [{ HOST: 'https://a.example' }, `HOST ${host}; got "https://a.example"`],
    [{ MANAGEMENT_HOST: '127.0.0.1:9000' }, `MANAGEMENT_HOST ${host}`],
  ])
  expectSettings(t, [
    [{ AUTH_ALGORITHMS: 'RS256, ES256' }, { AUTH_ALGORITHMS: ['RS256', 'ES256'] }],
    [{ TRUST_PROXY: '10.0.0.0/8, 192.168.1.1' }, { TRUST_PROXY: ['10.0.0.0/8', '192.168.1.1'] }],
    [{ IDENFY_TIMEOUT_MS: '08000' }, { IDENFY_TIMEOUT_MS: 8000 }],
    [{ IDENFY_TIMEOUT_MS: '300' }, { IDENFY_CONNECT_TIMEOUT_MS: 300 }],
    [
      { HOST: '::', MANAGEMENT_HOST: 'fe80::1%eth0' },
      { HOST: '::', MANAGEMENT_HOST: 'fe80::1%eth0' },
    ],
  ])
})

t.test('settings that contradict each other', async (t) => {
  const shutdown = (sum: number) =>
    `SHUTDOWN_TIMEOUT_MS must be at least DRAIN_DELAY_MS and IDENFY_TIMEOUT_MS together (${sum}): a request in progress could not finish`
  expectFaults(t, [
    [
      { IDENFY_CONNECT_TIMEOUT_MS: '9000' },
      'IDENFY_CONNECT_TIMEOUT_MS must not be longer than IDENFY_TIMEOUT_MS; got "9000"',
    ],
    [{ IDENFY_TIMEOUT_MS: '60000' }, shutdown(60_000)],
    [{ DRAIN_DELAY_MS: '5000', SHUTDOWN_TIMEOUT_MS: '10000' }, `${shutdown(13_000)}; got "10000"`],
    [
      { RATE_LIMIT_REQUESTS_PER_MINUTE: '9' },
      'RATE_LIMIT_REQUESTS_PER_MINUTE must not be less than RATE_LIMIT_USER_PER_MINUTE; got "9"',
    ],
    [{ REDIS_REQUIRED: 'true' }, 'REDIS_REQUIRED is true, which needs REDIS_URL; got "true"'],
    [{ REDIS_REQUIRED: 'keys' }, 'REDIS_REQUIRED is keys, which needs REDIS_URL; got "keys"'],
    [{ STATE_ENCRYPTION_KEY: stateKey }, 'STATE_ENCRYPTION_KEY is set without REDIS_URL'],
    [{ REDIS_URL: redis.REDIS_URL }, 'STATE_ENCRYPTION_KEY is required with REDIS_URL'],
    [
      { KYB_IDENTITY_KEY: hashed.KYB_IDENTITY_KEY },
      'KYB_IDENTITY_KEY is set, but neither KYB_CLIENT_ID nor KYB_EXTERNAL_REF has {companyHash} or {userHash}',
    ],
    [
      { KYB_CLIENT_ID: '{companyHash}' },
      'KYB_CLIENT_ID uses a hash placeholder, which needs KYB_IDENTITY_KEY; got "{companyHash}"',
    ],
    [
      { KYB_CLIENT_ID: '{tenantId}' },
      'KYB_CLIENT_ID has an unknown placeholder; known are {companyId}, {userId}, {companyHash}, {userHash}, {requestId}; got "{tenantId}"',
    ],
    [
      { KYB_CLIENT_ID: '{userId}' },
      'KYB_CLIENT_ID or KYB_EXTERNAL_REF must name the company: {companyId} or {companyHash}; got "{userId}"',
    ],
    [{ MANAGEMENT_PORT: '3000' }, 'MANAGEMENT_PORT must not be the same as PORT (3000); got "3000"'],
    [{ PORT: '9000', HOST: '::' }, 'MANAGEMENT_PORT must not be the same as PORT (9000)'],
    [
      { PORT: '9000', HOST: '10.0.0.1', MANAGEMENT_HOST: '0.0.0.0' },
      'MANAGEMENT_PORT must not be the same as PORT (9000)',
    ],
  ])
  expectSettings(t, [
    [
      { PORT: '9000', HOST: '10.0.0.1' },
      { PORT: 9000, MANAGEMENT_PORT: 9000 },
    ],
    [
      { PORT: '0', MANAGEMENT_PORT: '0' },
      { PORT: 0, MANAGEMENT_PORT: 0 },
    ],
    [{ REDIS_REQUIRED: 'false' }, { REDIS_REQUIRED: 'false', REDIS_URL: null }],
    [hashed, { KYB_CLIENT_ID: '{companyHash}', KYB_IDENTITY_KEY: 'set' }],
    [{ DRAIN_DELAY_MS: '5000', SHUTDOWN_TIMEOUT_MS: '13000' }, { DRAIN_DELAY_MS: 5000 }],
  ])
})

t.test('secrets and their files', async (t) => {
  const secret = `secret-${canary}`
  const dir = t.testdir({
    good: secret,
    newline: `${secret}\n\n`,
    crlf: `${secret}\r\n`,
    bom: `\ufeff${secret}`,
    utf16: Buffer.from(`\ufeff${secret}`, 'utf16le'),
    wide: Buffer.from(secret, 'utf16le'),
    empty: '',
    newlines: '\n',
    inQuotes: `"${secret}"`,
    space: `${secret} `,
    quoted: `"${secret}`,
    two: `${secret}\n${secret}`,
    long: canary.repeat(1000),
    forbidden: secret,
  })
  chmodSync(join(dir, 'forbidden'), 0)
  const at = (file: string): Variables => ({
    IDENFY_API_SECRET: undefined,
    IDENFY_API_SECRET_FILE: join(dir, file),
  })
  const of = (what: string) => `IDENFY_API_SECRET ${what}, given by IDENFY_API_SECRET_FILE`
  expectFaults(t, [
    [at('none'), of('cannot be read (ENOENT)')],
    [at('.'), of('cannot be read (EISDIR)')],
    [at('empty'), of('is an empty file')],
    [at('long'), of('is longer than 4096 bytes')],
    [at('utf16'), of('is not a UTF-8 text')],
    [at('wide'), of('must not have a line break or another control character')],
    [at('newlines'), of('is an empty file')],
    [at('inQuotes'), of('must not have quotes around it')],
    [at('space'), of('must not have white space at its start or end')],
    [at('two'), of('must not have a line break or another control character')],
    [{ IDENFY_API_SECRET: 'your-api-secret' }, 'IDENFY_API_SECRET is still the placeholder of .env.example'],
    [{ IDENFY_API_SECRET: 'two words' }, 'IDENFY_API_SECRET must be printable ASCII without spaces'],
    [{ LOGLEVEL: 'debug' }, 'LOGLEVEL is not known; did you mean LOG_LEVEL?'],
    [
      { IDENFY_API_SECRET_FILE: join(dir, 'good') },
      'IDENFY_API_SECRET is given twice, also as IDENFY_API_SECRET_FILE',
    ],
    [{ IDENFY_API_SECRET: undefined }, 'IDENFY_API_SECRET is required'],
    [{ IDENFY_API_SECRET: '' }, 'IDENFY_API_SECRET must not be empty; leave the variable out instead'],
    [{ IDENFY_API_SECRET: `${canary} ` }, 'IDENFY_API_SECRET must not have white space at its start or end'],
    [{ IDENFY_API_SECRET: `'${canary}'` }, 'IDENFY_API_SECRET must not have quotes around it'],
    [
      { IDENFY_API_KEY: `${canary}:${canary}` },
      'IDENFY_API_KEY must be printable ASCII without spaces and colons',
    ],
    [
      { ...hashed, KYB_IDENTITY_KEY: canary },
      'KYB_IDENTITY_KEY must be at least 32 characters of printable ASCII without spaces',
    ],
    [
      { ...redis, STATE_ENCRYPTION_KEY: canary.repeat(4) },
      'STATE_ENCRYPTION_KEY must be 32 bytes in base64, or up to three such keys, comma separated',
    ],
    // Root may read everything.
    ...(process.getuid?.() === 0 ? [] : [[at('forbidden'), of('cannot be read (EACCES)')] as const]),
  ])
  for (const file of ['good', 'newline', 'crlf', 'bom']) {
    const { config } = load(at(file))
    t.equal(config?.IDENFY_API_SECRET, secret, file)
    t.match(config?.settings, { IDENFY_API_KEY: 'set', IDENFY_API_SECRET: 'set from file' })
  }
})

t.test('policies and certificates', async (t) => {
  const dir = t.testdir({})
  let count = 0
  const policy = (text: string | Buffer): Variables => {
    count += 1
    writeFileSync(join(dir, String(count)), text)
    return { KYB_POLICY_FILE: join(dir, String(count)) }
  }
  const notJson = 'KYB_POLICY_FILE is not JSON, which has no comments and no trailing commas'
  mkdirSync(join(dir, 'directory'))
  expectFaults(t, [
    [policy(`{"a": ${canary}}`), notJson],
    [policy('{ // all\n "session": {} }'), notJson],
    [policy('{"session": {},}'), notJson],
    [policy(''), 'KYB_POLICY_FILE is an empty file'],
    [policy(Buffer.from('\ufeff{}', 'utf16le')), 'KYB_POLICY_FILE is not a UTF-8 text'],
    [policy(' '.repeat(1024 * 1024 + 1)), 'KYB_POLICY_FILE is longer than 1048576 bytes'],
    [{ KYB_POLICY_FILE: '{"session":{}}' }, 'KYB_POLICY_FILE cannot be read (ENOENT)'],
    [{ KYB_POLICY_FILE: join(dir, 'directory') }, 'KYB_POLICY_FILE cannot be read (EISDIR)'],
    [{ IDENFY_CA_FILE: policy(canary).KYB_POLICY_FILE }, 'IDENFY_CA_FILE holds no certificate in PEM form'],
  ])
  const paths: readonly [unknown, string][] = [
    [[], '/'],
    [{ sessions: {} }, '/sessions'],
    [{ session: { lifetime: '3600' } }, '/session/lifetime'],
    [{ session: { lifetime: 1 } }, '/session/lifetime'],
    [{ session: { tags: canary } }, '/session/tags'],
    [{ callerMaySet: { locales: true } }, '/callerMaySet/locales'],
    [{ callerMaySet: { locale: 'all' } }, '/callerMaySet/locale'],
    [{ callerMaySet: { lifetime: { maximum: 0 } } }, '/callerMaySet/lifetime'],
    [{ companies: { acme: { session: { locale: 1 } } } }, '/companies/acme/session/locale'],
    [{ companies: { acme: { callerMaySet: { theme: 5 } } } }, '/companies/acme/callerMaySet/theme'],
  ]
  for (const [document, path] of paths) {
    const { faults } = load(policy(JSON.stringify(document)))
    t.equal(faults.length, 1)
    t.ok(faults[0]?.startsWith('KYB_POLICY_FILE is not valid: '))
    t.match(faults[0], `${path} `)
    t.notMatch(faults[0], canary)
  }
  t.strictSame(load(policy('\ufeff{"session":{"lifetime":60}}\r\n')).faults, [])
})

t.test('many faults stay readable', async (t) => {
  const companies = Object.fromEntries(
    Array.from({ length: 5000 }, (_, index) => [`c${index}`, { session: { lifetime: 1 } }]),
  )
  const long = { [`a\n${'b'.repeat(10_000)}`]: 1 }
  const dir = t.testdir({
    'many.json': JSON.stringify({ companies }),
    'long.json': JSON.stringify(long),
  })
  const [many = ''] = load({ KYB_POLICY_FILE: join(dir, 'many.json') }).faults
  t.match(many, /; and 4980 more$/)
  t.ok(many.length < 5000)
  const [name = ''] = load({ KYB_POLICY_FILE: join(dir, 'long.json') }).faults
  t.ok(name.length < 500)
  t.notMatch(name, '\n')

  const unknown = Array.from({ length: 30 }, (_, index) => [`AUTH_OTHER_${index}`, canary])
  const { faults } = load(Object.fromEntries(unknown))
  t.equal(faults.length, 21)
  t.equal(faults.at(-1), 'and 10 more')
})

t.test('neither output of the process has a value that could be secret', async (t) => {
  const { exited, output } = spawnNode(t, ['dist/server.js'], {
    AUTH_ISSUER: `https://user:${canary}@login.example.com`,
    AUTH_AUDIENCE: ` ${canary}`,
    IDENFY_API_KEY: `${canary}:${canary}`,
    IDENFY_API_SECRET: `"${canary}"`,
    IDENFY_PROXY_URL: `socks5://u:${canary}@proxy.example`,
    REDIS_URL: `redis://:${canary}@redis.example`,
    STATE_ENCRYPTION_KEY: canary,
    KYB_IDENTITY_KEY: canary,
    PORT: canary,
    LOG_LEVEL: canary,
    CORS_ORIGINS: canary,
    AUTH_TOKEN: canary,
  })
  t.equal(await exited(), 1)
  const { faults } = JSON.parse(output.stdout)
  t.equal(faults.length, 12)
  t.notMatch(output.stdout + output.stderr, canary)
})
