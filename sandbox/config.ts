import { isIPv6 } from 'node:net'
import { networkInterfaces } from 'node:os'
import { type Static, Type } from '@sinclair/typebox'
import type { Config } from '../src/config/config.js'
import { loadConfig } from '../src/config/load-config.js'
import { parseEnvironment } from '../src/config/parse-environment.js'

const port = (number: number) => Type.Integer({ minimum: 0, maximum: 65_535, default: number })

const SandboxConfig = Type.Object({
  /** The address that everything listens on. */
  SANDBOX_HOST: Type.String({
    default: '127.0.0.1',
    pattern: '^[A-Za-z0-9.:-]+$',
    expected: 'an address of this machine',
  }),
  /** The host in all URLs, if it is not that address: in a container, and behind a name. */
  SANDBOX_URL_HOST: Type.Optional(
    Type.String({ pattern: '^[A-Za-z0-9.-]+$', expected: 'a host name or an IPv4 address' }),
  ),
  SANDBOX_PORT: port(3000),
  SANDBOX_MANAGEMENT_PORT: port(9000),
  SANDBOX_IDENFY_PORT: port(4010),
  SANDBOX_IDENTITY_PORT: port(4011),
  SANDBOX_DEMO_PORT: port(4012),
  /** Origins of your own pages, in addition to the demo page. The default is Vite's development server. */
  SANDBOX_CORS_ORIGINS: Type.String({
    default: 'http://localhost:5173',
    pattern: '^[a-z][a-z0-9+.-]*://[^\\s,/]+( *, *[a-z][a-z0-9+.-]*://[^\\s,/]+)*$',
    expected: 'a comma-separated list of origins such as http://localhost:5173',
  }),
})
export type SandboxConfig = Static<typeof SandboxConfig>

/** Where the parts of the sandbox are. */
export interface SandboxUrls {
  readonly idenfyUrl: string
  readonly identityUrl: string
  readonly demoUrl: string
}

/** What the simulators accept. Settings of the service do not change it. */
export const credentials = { apiKey: 'sandbox-key', apiSecret: 'sandbox-secret' }
export const audience = 'onboarding-bff'

/** The sandbox has its own variables for these. */
const listeners = ['HOST', 'PORT', 'MANAGEMENT_HOST', 'MANAGEMENT_PORT']
const wildcardHosts = ['0.0.0.0', '::']

/** @throws Error that names every invalid variable */
export function loadSandboxConfig(environment: NodeJS.ProcessEnv = process.env): SandboxConfig {
  const { values, faults: wrongValues } = parseEnvironment(SandboxConfig, environment)
  const faults = new Map(wrongValues)
  const known = Object.keys(SandboxConfig.properties)
  const unknown = Object.keys(environment).filter(
    (name) => name.startsWith('SANDBOX_') && !known.includes(name),
  )
  for (const name of unknown) faults.set(name, `is not known; there are ${known.join(', ')}`)
  if (faults.size > 0) throw new Error([...faults].map(([name, fault]) => `${name} ${fault}`).join('; '))
  return values
}

/** The host of all URLs. A wildcard address becomes the address of this machine in its network. */
export function urlHostOf(
  { SANDBOX_HOST, SANDBOX_URL_HOST }: SandboxConfig,
  interfaces = networkInterfaces(),
): string {
  if (SANDBOX_URL_HOST !== undefined) return SANDBOX_URL_HOST
  if (!wildcardHosts.includes(SANDBOX_HOST)) return isIPv6(SANDBOX_HOST) ? `[${SANDBOX_HOST}]` : SANDBOX_HOST
  const addresses = Object.values(interfaces).flat()
  const own = addresses.find((address) => address?.internal === false && address.family === 'IPv4')
  return own?.address ?? '127.0.0.1'
}

/** The same origin at another host. Without the port if it is the default one, as browsers write it. */
export function originAt(host: string, url: string): string {
  return Object.assign(new URL(url), { hostname: host }).origin
}

/** The `iss` of the identity provider's tokens: a name that is the same at every host. */
export function issuerOf({ SANDBOX_IDENTITY_PORT }: SandboxConfig): string {
  return `http://localhost:${SANDBOX_IDENTITY_PORT}`
}

/**
 * The configuration of the service in the sandbox: the variables of the environment, but for those that would take it out of
 * the sandbox.
 *
 * @returns also the names of the variables that are ignored
 * @throws ConfigError with every fault
 */
export function loadServiceConfig(
  config: SandboxConfig,
  { idenfyUrl, identityUrl, demoUrl }: SandboxUrls,
  environment: NodeJS.ProcessEnv = process.env,
): { readonly serviceConfig: Config; readonly ignored: readonly string[] } {
  const fixed = {
    AUTH_ISSUER: issuerOf(config),
    AUTH_AUDIENCE: audience,
    AUTH_JWKS_URL: `${identityUrl}/.well-known/jwks.json`,
    // The sandbox's tokens fit the defaults of these.
    AUTH_ALGORITHMS: undefined,
    AUTH_TOKEN_TYPES: undefined,
    AUTH_USER_CLAIM: undefined,
    AUTH_COMPANY_CLAIM: undefined,
    AUTH_MAX_TOKEN_LIFETIME_SECONDS: undefined,
    IDENFY_API_KEY: credentials.apiKey,
    IDENFY_API_SECRET: credentials.apiSecret,
    IDENFY_BASE_URL: idenfyUrl,
    IDENFY_UI_URL: `${idenfyUrl}/welcome`,
    IDENFY_CA_FILE: undefined,
    IDENFY_PROXY_URL: undefined,
    IDENFY_ENVIRONMENT: 'sandbox',
    ALLOW_INSECURE_URLS: 'true',
  }
  const isFixed = (name: string) =>
    [...listeners, ...Object.keys(fixed)].some((other) => name === other || name === `${other}_FILE`)
  const { CORS_ORIGINS, ...own } = Object.fromEntries(
    Object.entries(environment).filter(([name]) => !isFixed(name) && !name.startsWith('SANDBOX_')),
  )
  const origins = [
    ...new Set([demoUrl, originAt('127.0.0.1', demoUrl), originAt('localhost', demoUrl)]),
    config.SANDBOX_CORS_ORIGINS,
    ...(CORS_ORIGINS === undefined ? [] : [CORS_ORIGINS]),
  ]
  return {
    serviceConfig: loadConfig({ DOCS: 'true', ...own, ...fixed, CORS_ORIGINS: origins.join() }),
    ignored: Object.keys(environment).filter(isFixed),
  }
}
