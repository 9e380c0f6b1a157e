import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { isIP, isIPv6 } from 'node:net'
import { type Static, Type } from '@sinclair/typebox'
import { Check } from '@sinclair/typebox/value'
import { checkOriginPattern } from '../services/http/origins.js'
import { checkNamesCompany, checkTemplate } from '../services/kyb/client-identity.js'
import { parsePolicy } from '../services/kyb/session-policy.js'
import { parseEnvironment } from './parse-environment.js'
import { printableValue } from './printable-value.js'
import { isInjected, unknownVariables } from './unknown-variables.js'

const asymmetricAlgorithms = 'RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA Ed25519'.split(' ')
const networks = 'a comma-separated list of addresses and CIDRs'
const maxSecretFileBytes = 4096
const maxFileBytes = 1024 * 1024
const maxListedFaults = 20
const minDrainDelayMs = 100
/** A value that a shell, a template or an orchestrator should have filled in. */
const notReplaced = /\$\{\w|\$\(\w+\)|^\$\w+$|^\{\{.*\}\}$|^<.*>$|^%\w+%$/

/** A comma-separated list. `expected` is what the fault says, in place of the pattern. */
const list = (item: string, options: { expected: string; default?: string; description: string }) =>
  Type.Unsafe<string[]>(Type.String({ separator: ',', pattern: `^(${item})(,(${item}))*$`, ...options }))

const choice = (values: readonly string[], options: { default: string; description: string }) =>
  Type.String({ pattern: `^(${values.join('|')})$`, expected: `one of ${values.join(', ')}`, ...options })

const port = (number: number, description: string) =>
  Type.Integer({ minimum: 0, maximum: 65_535, default: number, description })

const limit = (perMinute: number | undefined, description: string) =>
  Type.Integer({
    minimum: 1,
    maximum: 1_000_000,
    ...(perMinute !== undefined && { default: perMinute }),
    description,
  })

/** A page that loads three times, with retries, requests more often than it opens verifications. */
const requestsPerVerification = 12

/** Given as `X`, or as `X_FILE`, the path of a file that holds it. */
const secret = (options: { pattern: string; expected: string; description: string; minLength?: number }) =>
  Type.String({ secret: true, maxLength: 512, ...options })

const url = (options: { description: string; default?: string }) => Type.String(options)

/** Every environment variable of the service. The README's table is generated from this schema. */
export const environmentSchema = Type.Object({
  HOST: Type.String({
    default: '127.0.0.1',
    description:
      'Address of the public listener; `::` is every address of IPv6 and IPv4, and what the container image sets',
  }),
  PORT: port(3000, 'Port of the public listener; `0` takes a free one'),
  MANAGEMENT_HOST: Type.String({
    default: '127.0.0.1',
    description: 'Address of the management listener; the container image sets `::`',
  }),
  MANAGEMENT_PORT: port(9000, 'Port of the management listener; never expose it to the outside'),
  LOG_LEVEL: choice(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], {
    default: 'info',
    description: 'Lowest level that is logged',
  }),
  AUTH_ISSUER: Type.String({ description: 'Expected `iss` of access tokens, to the letter' }),
  AUTH_AUDIENCE: Type.String({ description: 'Expected `aud`, or a member of it' }),
  AUTH_JWKS_URL: Type.Optional(
    url({ description: 'Signing keys of the issuer; by default `<AUTH_ISSUER>/.well-known/jwks.json`' }),
  ),
  AUTH_ALGORITHMS: list(asymmetricAlgorithms.join('|'), {
    expected: `a comma-separated list out of ${asymmetricAlgorithms.join(', ')}`,
    default: 'RS256,PS256,ES256,EdDSA',
    description: 'Accepted signature algorithms, asymmetric ones only',
  }),
  AUTH_TOKEN_TYPES: list('[A-Za-z0-9.+/-]+', {
    expected: 'a comma-separated list of token types',
    default: 'at+jwt,JWT',
    description:
      'Accepted `typ` values; a token without one counts as `JWT`. `at+jwt` alone is strict RFC 9068',
  }),
  AUTH_USER_CLAIM: Type.String({
    default: 'sub',
    description: 'Claim with the user id, taken literally; a name that begins with `/` is a JSON Pointer',
  }),
  AUTH_COMPANY_CLAIM: Type.String({
    default: 'company_id',
    description: 'Claim with the company id, or a list of them; named like `AUTH_USER_CLAIM`',
  }),
  AUTH_REQUIRED_SCOPE: Type.Optional(
    Type.String({
      pattern: '^[!#-\\[\\]-~]+$',
      expected: 'one scope',
      description: 'Scope that `scope` or `scp` must hold',
    }),
  ),
  AUTH_CLOCK_TOLERANCE_SECONDS: Type.Integer({
    minimum: 0,
    maximum: 60,
    default: 5,
    description: 'Tolerated difference of clocks when times in tokens are checked',
  }),
  AUTH_MAX_TOKEN_LIFETIME_SECONDS: Type.Integer({
    minimum: 60,
    maximum: 31_536_000,
    default: 86_400,
    description: 'Longest accepted time between `iat` and `exp`',
  }),
  IDENFY_API_KEY: secret({
    pattern: '^[!-9;-~]+$',
    expected: 'printable ASCII without spaces and colons',
    description: 'iDenfy API key',
  }),
  IDENFY_API_SECRET: secret({
    pattern: '^[!-~]+$',
    expected: 'printable ASCII without spaces',
    description: 'iDenfy API secret',
  }),
  IDENFY_BASE_URL: url({
    default: 'https://ivs.idenfy.com',
    description: 'Origin of the iDenfy API, the same for sandbox and production keys',
  }),
  IDENFY_UI_URL: url({
    default: 'https://kyb.ui.idenfy.com/welcome',
    description: 'Page that `redirectUrl` points to',
  }),
  IDENFY_CA_FILE: Type.Optional(
    Type.String({ description: 'PEM file with a CA to trust for iDenfy, besides the usual ones' }),
  ),
  IDENFY_PROXY_URL: Type.Optional(
    secret({
      pattern: '^https?://',
      expected: 'an http: or https: URL',
      description: 'Egress proxy for calls to iDenfy; may hold credentials',
    }),
  ),
  IDENFY_ENVIRONMENT: choice(['production', 'sandbox'], {
    default: 'production',
    description: 'Label for the start-up log: iDenfy tells its environments apart by the key alone',
  }),
  IDENFY_TIMEOUT_MS: Type.Integer({
    minimum: 100,
    maximum: 60_000,
    default: 8000,
    description: 'Total deadline of a call to iDenfy',
  }),
  IDENFY_CONNECT_TIMEOUT_MS: Type.Integer({
    minimum: 100,
    maximum: 60_000,
    default: 2000,
    description: 'Limit for connecting to iDenfy, TLS included; never longer than `IDENFY_TIMEOUT_MS`',
  }),
  IDENFY_MAX_IN_FLIGHT: Type.Integer({
    minimum: 1,
    maximum: 10_000,
    default: 50,
    description: 'Calls to iDenfy at a time; as many again may wait for half a second',
  }),
  KYB_CLIENT_ID: Type.String({
    default: '{companyId}',
    description:
      'Template of `clientId`: text with `{companyId}`, `{userId}`, `{companyHash}`, `{userHash}`, `{requestId}`',
  }),
  KYB_EXTERNAL_REF: Type.String({
    default: '{userId}',
    description: 'Template of `externalRef`, which iDenfy limits to 40 characters',
  }),
  KYB_IDENTITY_KEY: Type.Optional(
    secret({
      pattern: '^[!-~]+$',
      minLength: 32,
      expected: 'at least 32 characters of printable ASCII without spaces',
      description: 'Key of the HMAC behind `{companyHash}` and `{userHash}`',
    }),
  ),
  KYB_POLICY_FILE: Type.Optional(
    Type.String({ description: 'JSON file with the session policy, at most 1 MiB' }),
  ),
  KYB_REPLAY_SECONDS: Type.Integer({
    minimum: 0,
    maximum: 3600,
    default: 30,
    description: 'How long an identical request gets the same token again; `0` turns it off',
  }),
  RATE_LIMIT_USER_PER_MINUTE: limit(10, 'New verifications of one user in a minute'),
  RATE_LIMIT_COMPANY_PER_MINUTE: limit(60, 'New verifications of one company in a minute'),
  RATE_LIMIT_REQUESTS_PER_MINUTE: Type.Optional(
    limit(
      undefined,
      'Authenticated requests of one user in a minute, whatever becomes of them; by default twelve times `RATE_LIMIT_USER_PER_MINUTE`',
    ),
  ),
  RATE_LIMIT_IP_PER_MINUTE: limit(
    300,
    'Failed authentications of one address in a minute (IPv6: of one /64 network)',
  ),
  REDIS_URL: Type.Optional(
    secret({
      pattern: '^rediss?://',
      expected: 'a redis: or rediss: URL',
      description:
        'Redis that the replicas share; may hold credentials. Without it every replica is on its own',
    }),
  ),
  REDIS_CA_FILE: Type.Optional(
    Type.String({ description: 'PEM file with a CA to trust for Redis (`rediss:`), besides the usual ones' }),
  ),
  REDIS_REQUIRED: choice(['false', 'keys', 'true'], {
    default: 'keys',
    description:
      'While Redis is unavailable, refuse requests that could open a second verification: `keys` those with an `Idempotency-Key`, `true` all, `false` none',
  }),
  STATE_ENCRYPTION_KEY: Type.Optional(
    secret({
      pattern: '^[A-Za-z0-9+/]{43}=(,[A-Za-z0-9+/]{43}=){0,2}$',
      expected: '32 bytes in base64, or up to three such keys, comma separated',
      description:
        'Encrypts the tokens in Redis, required with it: 32 bytes in base64. Of several keys, comma separated, the first encrypts and all decrypt',
    }),
  ),
  CORS_ORIGINS: Type.Optional(
    list('[^,]+', {
      expected: 'a comma-separated list of origins',
      description:
        'Origins whose pages may call the service, comma separated: `https://app.example.com`, `capacitor://localhost`, or `https://*.example.com` for one label',
    }),
  ),
  TRUST_PROXY: Type.Optional(
    list('[0-9A-Fa-f.:]+(/[0-9]+)?', {
      expected: networks,
      description: 'Addresses or CIDRs of the proxies whose `X-Forwarded-For` and `X-Request-Id` count',
    }),
  ),
  DOCS: Type.Boolean({
    default: false,
    description: 'Serve the OpenAPI document at `/docs` and a page for each problem at its `type`',
  }),
  KEEP_ALIVE_TIMEOUT_MS: Type.Integer({
    minimum: 1000,
    maximum: 7_200_000,
    default: 72_000,
    description:
      'How long an idle connection stays open, 1000 to 7200000; set it above the idle timeout of your load balancer',
  }),
  DRAIN_DELAY_MS: Type.Integer({
    minimum: 0,
    maximum: 300_000,
    default: 0,
    description: 'How long requests are accepted after SIGTERM, while `/readyz` is 503: `0`, or 100 and more',
  }),
  SHUTDOWN_TIMEOUT_MS: Type.Integer({
    minimum: 100,
    maximum: 600_000,
    default: 25_000,
    description:
      'Limit for all that follows SIGTERM, at least `DRAIN_DELAY_MS` and `IDENFY_TIMEOUT_MS` together; then the process ends with code 1',
  }),
  ALLOW_INSECURE_URLS: Type.Boolean({
    default: false,
    description: 'Accept `http:` URLs of hosts that are not loopback; for test networks only',
  }),
})

type EnvironmentVariable = keyof typeof environmentSchema.properties
type Environment = Static<typeof environmentSchema>

/** The checked configuration. Secrets are not enumerable, so that nothing prints them along with the rest. */
export interface Config extends Readonly<Environment> {
  readonly AUTH_JWKS_URL: string
  readonly RATE_LIMIT_REQUESTS_PER_MINUTE: number
  /** The certificates of `IDENFY_CA_FILE`, PEM. */
  readonly idenfyCa?: string | undefined
  /** The certificates of `REDIS_CA_FILE`, PEM. */
  readonly redisCa?: string | undefined
  /**
   * Reads the text of `KYB_POLICY_FILE`, that of an empty policy without one. It may have been replaced by one that
   * cannot be parsed.
   *
   * @throws Error when it cannot be read
   */
  readPolicy(): Promise<string>
  /**
   * Reads a secret anew: one that was given as a file may have been replaced.
   *
   * @throws Error when the new value is not usable
   */
  readSecret(name: EnvironmentVariable): Promise<string>
  /** Every setting in force, by the name of its variable, for the operator to read: no secrets. */
  readonly settings: Readonly<Record<string, unknown>>
}

/** What is wrong with a configuration, one line each: at most 20, and how many more. No values that could be secret. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'

  readonly faults: readonly string[]

  constructor(all: readonly string[]) {
    const listed = all.slice(0, maxListedFaults)
    if (all.length > maxListedFaults) listed.push(`and ${all.length - maxListedFaults} more`)
    super(`The configuration has ${all.length} fault(s):\n${listed.map((fault) => `  ${fault}`).join('\n')}`)
    this.faults = listed
  }
}

const names = Object.keys(environmentSchema.properties) as EnvironmentVariable[]
const secretNames = new Set(names.filter((name) => environmentSchema.properties[name].secret))

/** Where the management listener is, for the health check: nothing else is read. */
export function loadManagementAddress(environment: NodeJS.ProcessEnv = process.env) {
  const { MANAGEMENT_HOST, MANAGEMENT_PORT } = environmentSchema.properties
  const schema = Type.Object({ MANAGEMENT_HOST, MANAGEMENT_PORT })
  return parseEnvironment(schema, withoutInjected(environment)).values
}

/**
 * Reads and checks the whole configuration, files included.
 *
 * @throws ConfigError with every fault
 */
export function loadConfig(processEnvironment: NodeJS.ProcessEnv = process.env): Config {
  const environment = withoutInjected(processEnvironment)
  const faults = new Map<string, string>()
  /** The first fault of a variable counts. */
  const addFault = (name: string, fault: string) => {
    if (!faults.has(name)) faults.set(name, fault)
  }
  /** Runs a check that throws what is wrong, in words for the operator. */
  const check = <T>(name: EnvironmentVariable, run: () => T): T | undefined => {
    try {
      return run()
    } catch (error) {
      addFault(name, (error as Error).message)
      return undefined
    }
  }

  const given: Partial<Record<EnvironmentVariable, string>> = {}
  for (const name of names) {
    const value = check(name, () => readVariable(name, environment))
    if (value !== undefined) given[name] = value
  }
  const { values, faults: wrongValues } = parseEnvironment(environmentSchema, given)
  for (const [name, fault] of wrongValues) addFault(name, fault)

  for (const [name, fault] of unknownVariables(environment, names, secretNames)) addFault(name, fault)

  const textOf = (name: EnvironmentVariable): string =>
    given[name] ?? environmentSchema.properties[name].default
  const allowInsecure = given.ALLOW_INSECURE_URLS === 'true'
  const jwksUrl = given.AUTH_JWKS_URL ?? `${textOf('AUTH_ISSUER')?.replace(/\/$/, '')}/.well-known/jwks.json`
  check(
    'AUTH_ISSUER',
    () => given.AUTH_ISSUER && checkIssuer(given.AUTH_ISSUER, textOf('AUTH_AUDIENCE'), given.AUTH_JWKS_URL),
  )
  check(given.AUTH_JWKS_URL === undefined ? 'AUTH_ISSUER' : 'AUTH_JWKS_URL', () => {
    const { pathname } = checkUrl(jwksUrl, allowInsecure)
    if (/\/\.well-known\/(openid-configuration|oauth-authorization-server)/.test(pathname)) {
      throw new Error('is the URL of a discovery document; set the `jwks_uri` that it contains')
    }
  })
  check('IDENFY_BASE_URL', () => checkOrigin(textOf('IDENFY_BASE_URL'), allowInsecure))
  check('IDENFY_UI_URL', () => checkUrl(textOf('IDENFY_UI_URL'), allowInsecure))
  for (const name of ['IDENFY_PROXY_URL', 'REDIS_URL'] as const) {
    check(name, () => given[name] && checkServer(given[name]))
  }
  check('REDIS_URL', () => checkRedisUrl(given.REDIS_URL))
  check('REDIS_URL', () => given.REDIS_URL && !allowInsecure && checkPasswordIsEncrypted(given.REDIS_URL))
  check('STATE_ENCRYPTION_KEY', () => checkKeyIsThere(given))
  check('REDIS_REQUIRED', () => {
    if (given.REDIS_REQUIRED !== undefined && given.REDIS_REQUIRED !== 'false' && !given.REDIS_URL) {
      throw new Error(`is ${given.REDIS_REQUIRED}, which needs REDIS_URL`)
    }
  })
  for (const name of ['HOST', 'MANAGEMENT_HOST'] as const) check(name, () => checkHost(textOf(name)))
  checkContradictions()

  check('CORS_ORIGINS', () => values.CORS_ORIGINS?.forEach(checkOriginPattern))
  check('TRUST_PROXY', () => values.TRUST_PROXY?.forEach(checkNetwork))

  const templates = { clientId: textOf('KYB_CLIENT_ID'), externalRef: textOf('KYB_EXTERNAL_REF') }
  const hasIdentityKey = given.KYB_IDENTITY_KEY !== undefined
  check('KYB_CLIENT_ID', () => checkTemplate(templates.clientId, hasIdentityKey))
  check('KYB_EXTERNAL_REF', () => checkTemplate(templates.externalRef, hasIdentityKey))
  check('KYB_CLIENT_ID', () => checkNamesCompany(templates))
  check('KYB_IDENTITY_KEY', () => {
    if (hasIdentityKey && !/Hash\}/.test(templates.clientId + templates.externalRef)) {
      throw new Error(
        'is set, but neither KYB_CLIENT_ID nor KYB_EXTERNAL_REF has {companyHash} or {userHash}',
      )
    }
  })

  const idenfyCa = check(
    'IDENFY_CA_FILE',
    () => given.IDENFY_CA_FILE && readCertificates(given.IDENFY_CA_FILE),
  )
  const redisCa = check('REDIS_CA_FILE', () => {
    if (given.REDIS_CA_FILE === undefined) return undefined
    if (!given.REDIS_URL?.startsWith('rediss:')) throw new Error('needs a REDIS_URL with rediss:')
    return readCertificates(given.REDIS_CA_FILE)
  })
  const { KYB_POLICY_FILE: policyFile } = given
  check('KYB_POLICY_FILE', () => policyFile && parsePolicy(readText(policyFile, maxFileBytes)))
  const readPolicy = async () => (policyFile === undefined ? '{}' : readTextLater(policyFile, maxFileBytes))

  if (environment.NODE_TLS_REJECT_UNAUTHORIZED === '0') {
    addFault(
      'NODE_TLS_REJECT_UNAUTHORIZED',
      'must not be 0: anybody could pass for iDenfy; see IDENFY_CA_FILE',
    )
  }
  if (environment.NODE_OPTIONS?.includes('--insecure-http-parser')) {
    addFault('NODE_OPTIONS', 'must not have --insecure-http-parser')
  }

  if (faults.size > 0) {
    throw new ConfigError([...faults].map(([name, fault]) => `${name} ${fault}${received(name)}`))
  }
  const config = {
    ...values,
    AUTH_JWKS_URL: jwksUrl,
    IDENFY_CONNECT_TIMEOUT_MS: Math.min(values.IDENFY_CONNECT_TIMEOUT_MS, values.IDENFY_TIMEOUT_MS),
    RATE_LIMIT_REQUESTS_PER_MINUTE:
      values.RATE_LIMIT_REQUESTS_PER_MINUTE ?? values.RATE_LIMIT_USER_PER_MINUTE * requestsPerVerification,
    idenfyCa,
    redisCa,
  }
  const settings = Object.fromEntries(names.map((name) => [name, setting(name, config[name])]))
  for (const name of secretNames) Object.defineProperty(config, name, { enumerable: false })
  const readSecret = async (name: EnvironmentVariable): Promise<string> => {
    const path = environment[`${name}_FILE`]
    if (path === undefined) return given[name] as string
    const value = await readTextLater(path, maxSecretFileBytes)
      .then(toSecret)
      .catch(({ message }) => {
        throw new Error(`${name} ${message}, given by ${name}_FILE`)
      })
    const schema = environmentSchema.properties[name]
    if (!Check(schema, value)) throw new Error(`${name} must be ${schema.expected}`)
    return value
  }
  return Object.defineProperties(config, {
    readSecret: { value: readSecret },
    readPolicy: { value: readPolicy },
    settings: { value: settings },
  }) as Config

  /** Each setting may be right and the whole not. Values that are wrong by themselves are not there. */
  function checkContradictions(): void {
    const { PORT, MANAGEMENT_PORT, HOST, MANAGEMENT_HOST, DRAIN_DELAY_MS, SHUTDOWN_TIMEOUT_MS } = values
    const { IDENFY_TIMEOUT_MS, IDENFY_CONNECT_TIMEOUT_MS } = values
    const { RATE_LIMIT_REQUESTS_PER_MINUTE, RATE_LIMIT_USER_PER_MINUTE } = values
    if (PORT === MANAGEMENT_PORT && PORT !== 0 && overlap(HOST, MANAGEMENT_HOST)) {
      addFault('MANAGEMENT_PORT', `must not be the same as PORT (${PORT})`)
    }
    if (given.IDENFY_CONNECT_TIMEOUT_MS !== undefined && IDENFY_CONNECT_TIMEOUT_MS > IDENFY_TIMEOUT_MS) {
      addFault('IDENFY_CONNECT_TIMEOUT_MS', 'must not be longer than IDENFY_TIMEOUT_MS')
    }
    if (DRAIN_DELAY_MS > 0 && DRAIN_DELAY_MS < minDrainDelayMs) {
      addFault('DRAIN_DELAY_MS', `must be 0 or at least ${minDrainDelayMs} milliseconds`)
    }
    if (DRAIN_DELAY_MS + IDENFY_TIMEOUT_MS > SHUTDOWN_TIMEOUT_MS) {
      addFault(
        'SHUTDOWN_TIMEOUT_MS',
        `must be at least DRAIN_DELAY_MS and IDENFY_TIMEOUT_MS together (${DRAIN_DELAY_MS + IDENFY_TIMEOUT_MS}): a request in progress could not finish`,
      )
    }
    if (
      RATE_LIMIT_REQUESTS_PER_MINUTE !== undefined &&
      RATE_LIMIT_REQUESTS_PER_MINUTE < RATE_LIMIT_USER_PER_MINUTE
    ) {
      addFault('RATE_LIMIT_REQUESTS_PER_MINUTE', 'must not be less than RATE_LIMIT_USER_PER_MINUTE')
    }
  }

  function received(name: string): string {
    if (!isEnvironmentVariable(name) || secretNames.has(name) || environment[name] === undefined) return ''
    const text = printableValue(environment[name])
    return text === undefined ? '' : `; got ${JSON.stringify(text)}`
  }

  function setting(name: EnvironmentVariable, value: unknown): unknown {
    if (value === undefined) return null
    if (!secretNames.has(name)) return /_URL$/.test(name) ? withoutQuery(value as string) : value
    const source = environment[name] === undefined ? 'set from file' : 'set'
    return /_URL$/.test(name) ? `${source}, ${serverOf(value as string)}` : source
  }
}

/** Libraries that follow `DEBUG` print what they send, passwords among it. To be called before they are loaded. */
export function forgetDebug(): void {
  delete process.env.DEBUG
}

function isEnvironmentVariable(name: string): name is EnvironmentVariable {
  return Object.hasOwn(environmentSchema.properties, name)
}

function withoutInjected(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(environment).filter(([name, value = '']) => !isInjected(name, value)),
  )
}

function readVariable(name: EnvironmentVariable, environment: NodeJS.ProcessEnv): string | undefined {
  const value = environment[name]
  if (value !== undefined) checkText(value)
  const path = secretNames.has(name) ? environment[`${name}_FILE`] : undefined
  if (path === undefined) return value
  if (value !== undefined) throw new Error(`is given twice, also as ${name}_FILE`)
  try {
    return toSecret(readText(path, maxSecretFileBytes))
  } catch (error) {
    throw new Error(`${(error as Error).message}, given by ${name}_FILE`)
  }
}

/** Mistakes that are easy to make in any variable, and hard to see in a message. */
function checkText(text: string): void {
  // Not a default: a substitution that failed must not turn a check off.
  if (text === '') throw new Error('must not be empty; leave the variable out instead')
  if (text !== text.trim()) throw new Error('must not have white space at its start or end')
  if (/\p{Cc}/u.test(text)) throw new Error('must not have a line break or another control character')
  if (/^(["'`]).*\1$/.test(text)) throw new Error('must not have quotes around it')
  if (/^your-api-(key|secret)$/.test(text)) throw new Error('is still that of .env.example')
  if (notReplaced.test(text)) throw new Error('has the name of a variable that was not replaced')
}

function checkIssuer(issuer: string, audience: string | undefined, jwksUrl: string | undefined): void {
  if (!URL.canParse(issuer)) {
    // Such an issuer exists, but then its keys are somewhere else.
    if (jwksUrl !== undefined) return
    const hint = audience?.includes('://') ? '; AUTH_AUDIENCE is one: are the two swapped?' : ''
    throw new Error(`must be an https: URL${hint}`)
  }
  const { pathname, search, username, password } = new URL(issuer)
  if (username || password) throw new Error('must not contain credentials')
  if (/\/\.well-known\//.test(pathname))
    throw new Error('must be the issuer alone, without /.well-known/ and what follows')
  if (/[{}<>]|%7[bd]|%3[ce]/i.test(pathname)) throw new Error('has a placeholder that was not replaced')
  if (pathname.endsWith('//')) throw new Error('must not end with two slashes')
  if (search) throw new Error('must not have a query')
}

function checkUrl(text: string, allowInsecure: boolean): URL {
  if (!URL.canParse(text)) throw new Error('must be an https: URL')
  const url = new URL(text)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw new Error('must be an https: URL')
  if (url.protocol === 'http:' && !allowInsecure && !isLoopback(url.hostname)) {
    throw new Error('must be an https: URL; ALLOW_INSECURE_URLS=true lets http: through')
  }
  if (url.username || url.password) throw new Error('must not contain credentials')
  if (url.hash) throw new Error('must not have a fragment')
  return url
}

/** A URL, a port after it or brackets around it would only fail once the service listens. */
function checkHost(text: string): void {
  if (!isIPv6(text) && !/^[\w.-]+$/.test(text)) {
    throw new Error('must be an address or a host name, without brackets, scheme and port')
  }
}

function isLoopback(hostname: string): boolean {
  return /^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname)
}

/** A URL that may hold credentials. */
function checkServer(text: string): void {
  if (!URL.canParse(text))
    throw new Error('is not a URL; special characters in a password must be percent-encoded')
  const { username, password, pathname, search, hash } = new URL(text)
  if ((pathname + search + hash).includes('@')) {
    throw new Error('has an @ after the host; special characters in a password must be percent-encoded')
  }
  try {
    decodeURIComponent(username + password)
  } catch {
    throw new Error('has a user name or password that is not percent-encoded')
  }
}

function checkPasswordIsEncrypted(text: string): void {
  const { protocol, password, hostname } = new URL(text)
  if (protocol === 'redis:' && password && !isLoopback(hostname)) {
    throw new Error(
      'must be a rediss: URL: the password would travel unencrypted; ALLOW_INSECURE_URLS=true lets redis: through',
    )
  }
}

function checkRedisUrl(text: string | undefined): void {
  if (text === undefined || !URL.canParse(text)) return
  const { hostname, pathname, search, hash } = new URL(text)
  if (hostname === '') throw new Error('has no host')
  if (!/^\/?\d{0,9}$/.test(pathname + search + hash)) {
    throw new Error('must have nothing after the host and the port but the number of a database')
  }
}

function checkKeyIsThere(given: { REDIS_URL?: string; STATE_ENCRYPTION_KEY?: string }): void {
  if (given.REDIS_URL && !given.STATE_ENCRYPTION_KEY) throw new Error('is required with REDIS_URL')
  if (!given.REDIS_URL && given.STATE_ENCRYPTION_KEY) throw new Error('is set without REDIS_URL')
}

/** Whether two listeners could get in each other's way on the same port. */
function overlap(host: string, other: string): boolean {
  return host === other || [host, other].some((name) => name === '::' || name === '0.0.0.0')
}

function serverOf(url: string): string {
  const { protocol, host } = new URL(url)
  return `${protocol}//${host}`
}

function withoutQuery(url: string): string {
  return url.replace(/\?.*$/, '?…')
}

function checkOrigin(text: string, allowInsecure: boolean): void {
  const { origin, href } = checkUrl(text, allowInsecure)
  if (href !== `${origin}/`) throw new Error('must be an origin, without a path or a query')
}

function checkNetwork(text: string): void {
  const [address = '', prefix] = text.split('/')
  const version = isIP(address)
  if (prefix === '0') throw new Error('must not be every address: clients could name any address as theirs')
  const isNetwork = version !== 0 && (prefix === undefined || Number(prefix) <= (version === 4 ? 32 : 128))
  if (!isNetwork) throw new Error(`must be ${networks}`)
}

/** The secret in a file, whose last line may have an end. */
function toSecret(text: string): string {
  const secret = text.replace(/[\r\n]+$/, '')
  if (secret === '') throw new Error('is an empty file')
  checkText(secret)
  return secret
}

function readText(path: string, maxBytes: number): string {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    throw unreadable(error)
  }
  return toText(bytes, maxBytes)
}

/** For a process that serves requests: a file system that hangs must not stop it. */
async function readTextLater(path: string, maxBytes: number): Promise<string> {
  const bytes = await readFile(path).catch((error) => {
    throw unreadable(error)
  })
  return toText(bytes, maxBytes)
}

function unreadable(error: unknown): Error {
  return new Error(`cannot be read (${(error as NodeJS.ErrnoException).code})`)
}

function toText(bytes: Buffer, maxBytes: number): string {
  if (bytes.length === 0) throw new Error('is an empty file')
  if (bytes.length > maxBytes) throw new Error(`is longer than ${maxBytes} bytes`)
  try {
    // Without the mark that some editors put in front.
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new Error('is not a UTF-8 text')
  }
}

function readCertificates(path: string): string {
  const pem = readText(path, maxFileBytes)
  try {
    new X509Certificate(pem)
  } catch {
    throw new Error('holds no certificate in PEM form')
  }
  return pem
}
