import type { AuthenticationSettings } from '../services/auth/authenticator.js'
import type { Config } from './config.js'

/** The settings of the authentication service. */
export function authenticationSettings(config: Config): AuthenticationSettings {
  return {
    jwksUrl: config.AUTH_JWKS_URL,
    issuer: config.AUTH_ISSUER,
    audience: config.AUTH_AUDIENCE,
    algorithms: config.AUTH_ALGORITHMS,
    tokenTypes: config.AUTH_TOKEN_TYPES,
    userClaim: config.AUTH_USER_CLAIM,
    companyClaim: config.AUTH_COMPANY_CLAIM,
    requiredScope: config.AUTH_REQUIRED_SCOPE,
    clockToleranceSeconds: config.AUTH_CLOCK_TOLERANCE_SECONDS,
    maxLifetimeSeconds: config.AUTH_MAX_TOKEN_LIFETIME_SECONDS,
    requestTimeoutMs: config.IDENFY_TIMEOUT_MS,
  }
}
