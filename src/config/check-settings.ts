import { checkOriginPattern } from '../services/http/origins.js'
import { checkNamesCompany, checkTemplate } from '../services/kyb/client-identity.js'
import {
  checkHost,
  checkIssuer,
  checkNetwork,
  checkOrigin,
  checkPasswordIsEncrypted,
  checkRedisUrl,
  checkServer,
  checkUrl,
} from './check-values.js'
import { type Environment, type EnvironmentVariable, environmentSchema } from './environment-schema.js'
import type { Faults } from './faults.js'

/** The texts of the variables that are set, with those that were read from files. */
export type GivenValues = Partial<Record<EnvironmentVariable, string>>

const minDrainDelayMs = 100
const minStandbyAgeMs = 1_000

/** Where the signing keys are: as set, or at the usual place below the issuer. */
export function jwksUrlOf({ AUTH_JWKS_URL: url, AUTH_ISSUER: issuer }: GivenValues): string {
  return url ?? `${issuer?.replace(/\/$/, '')}/.well-known/jwks.json`
}

/**
 * Checks what the schema cannot express: URLs, templates, and settings that contradict each other.
 *
 * @param given the texts, also those that break the schema
 * @param values the parsed values; those that break the schema are missing
 */
export function checkSettings(given: GivenValues, values: Partial<Environment>, faults: Faults): void {
  const { check } = faults
  const textOf = (name: EnvironmentVariable): string =>
    given[name] ?? environmentSchema.properties[name].default
  const allowInsecure = given.ALLOW_INSECURE_URLS === 'true'

  check(
    'AUTH_ISSUER',
    () => given.AUTH_ISSUER && checkIssuer(given.AUTH_ISSUER, textOf('AUTH_AUDIENCE'), given.AUTH_JWKS_URL),
  )
  check(given.AUTH_JWKS_URL === undefined ? 'AUTH_ISSUER' : 'AUTH_JWKS_URL', () => {
    const { pathname } = checkUrl(jwksUrlOf(given), allowInsecure)
    if (/\/\.well-known\/(openid-configuration|oauth-authorization-server)/.test(pathname)) {
      throw new Error('is the URL of a discovery document; set the `jwks_uri` that it contains')
    }
  })
  check('IDENFY_BASE_URL', () => checkOrigin(textOf('IDENFY_BASE_URL'), allowInsecure))
  check('IDENFY_UI_URL', () => checkUrl(textOf('IDENFY_UI_URL'), allowInsecure))
  for (const name of ['IDENFY_PROXY_URL', 'REDIS_URL'] as const) {
    check(name, () => given[name] && checkServer(given[name]))
  }
  for (const name of ['HOST', 'MANAGEMENT_HOST'] as const) check(name, () => checkHost(textOf(name)))
  check('CORS_ORIGINS', () => values.CORS_ORIGINS?.forEach(checkOriginPattern))
  check('TRUST_PROXY', () => values.TRUST_PROXY?.forEach(checkNetwork))

  checkRedis(given, allowInsecure, faults)
  checkTemplates(given, textOf, faults)
  checkCombinations(given, values, faults)
}

function checkRedis(given: GivenValues, allowInsecure: boolean, { check }: Faults): void {
  const { REDIS_URL: url, REDIS_REQUIRED: required, STATE_ENCRYPTION_KEY: key } = given
  check('REDIS_URL', () => checkRedisUrl(url))
  check('REDIS_URL', () => url && !allowInsecure && checkPasswordIsEncrypted(url))
  check('STATE_ENCRYPTION_KEY', () => {
    if (url && !key) throw new Error('is required with REDIS_URL')
    if (!url && key) throw new Error('is set without REDIS_URL')
  })
  check('REDIS_REQUIRED', () => {
    if (required !== undefined && required !== 'false' && !url) {
      throw new Error(`is ${required}, which needs REDIS_URL`)
    }
  })
  check('REDIS_CA_FILE', () => {
    if (given.REDIS_CA_FILE !== undefined && !url?.startsWith('rediss:')) {
      throw new Error('needs a REDIS_URL with rediss:')
    }
  })
}

function checkTemplates(
  given: GivenValues,
  textOf: (name: EnvironmentVariable) => string,
  { check }: Faults,
): void {
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
}

/** Each setting may be valid and the combination not. A comparison with a missing value is false. */
function checkCombinations(given: GivenValues, values: Partial<Environment>, { add }: Faults): void {
  const { PORT, MANAGEMENT_PORT, HOST = '', MANAGEMENT_HOST = '' } = values
  const missing = Number.NaN
  const { DRAIN_DELAY_MS: drainMs = missing, SHUTDOWN_TIMEOUT_MS: shutdownMs = missing } = values
  const { IDENFY_TIMEOUT_MS: timeoutMs = missing, IDENFY_CONNECT_TIMEOUT_MS: connectMs = missing } = values
  const {
    RATE_LIMIT_REQUESTS_PER_MINUTE: requests = missing,
    RATE_LIMIT_USER_PER_MINUTE: perUser = missing,
  } = values
  if (PORT !== undefined && PORT === MANAGEMENT_PORT && PORT !== 0 && overlap(HOST, MANAGEMENT_HOST)) {
    add('MANAGEMENT_PORT', `must not be the same as PORT (${PORT})`)
  }
  if (given.IDENFY_CONNECT_TIMEOUT_MS !== undefined && connectMs > timeoutMs) {
    add('IDENFY_CONNECT_TIMEOUT_MS', 'must not be longer than IDENFY_TIMEOUT_MS')
  }
  const { IDENFY_STANDBY_MAX_AGE_MS: standbyMs = missing } = values
  if (standbyMs > 0 && standbyMs < minStandbyAgeMs) {
    add('IDENFY_STANDBY_MAX_AGE_MS', `must be 0 or at least ${minStandbyAgeMs} milliseconds`)
  }
  if (drainMs > 0 && drainMs < minDrainDelayMs) {
    add('DRAIN_DELAY_MS', `must be 0 or at least ${minDrainDelayMs} milliseconds`)
  }
  if (drainMs + timeoutMs > shutdownMs) {
    add(
      'SHUTDOWN_TIMEOUT_MS',
      `must be at least DRAIN_DELAY_MS and IDENFY_TIMEOUT_MS together (${drainMs + timeoutMs}): a request in progress could not finish`,
    )
  }
  if (requests < perUser) {
    add('RATE_LIMIT_REQUESTS_PER_MINUTE', 'must not be less than RATE_LIMIT_USER_PER_MINUTE')
  }
}

/** Whether two listeners on the same port could collide. */
function overlap(host: string, other: string): boolean {
  return host === other || [host, other].some((name) => name === '::' || name === '0.0.0.0')
}
