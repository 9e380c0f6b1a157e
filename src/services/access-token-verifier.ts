import { errors, type JWTPayload, jwtVerify } from 'jose'
import { Problem } from '../problems.js'
import { findFault, type InvalidTokenReason, mediaType } from './access-token.js'
import type { SigningKeys } from './signing-keys.js'

export interface AccessTokenVerifierOptions {
  readonly signingKeys: SigningKeys
  readonly issuer: string
  readonly audience: string
  readonly algorithms: string[]
  /** Accepted `typ` values; a token without one counts as `JWT`. */
  readonly tokenTypes: readonly string[]
  readonly clockToleranceSeconds: number
  readonly maxLifetimeSeconds: number
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number
}

/** Checks a JWT access token (RFC 7519, RFC 8725): form, signature, issuer, audience and times. */
export function createAccessTokenVerifier(options: AccessTokenVerifierOptions) {
  const { signingKeys, issuer, audience, algorithms, clockToleranceSeconds, maxLifetimeSeconds, now } =
    options
  const accepted = { algorithms, types: options.tokenTypes.map(mediaType) }

  /**
   * @returns the verified claims
   * @throws Problem `invalid-token`, whose diagnosis names the reason, or `auth-keys-unavailable`
   */
  return async (token: string): Promise<JWTPayload> => {
    const fault = findFault(token, accepted)
    if (fault) throw invalidToken(fault)
    const nowMs = now()
    try {
      // jose, not fast-jwt: RS256 costs 52 µs of CPU against 25, but in another thread, and the clock can be given.
      const { payload } = await jwtVerify(token, signingKeys.resolve, {
        algorithms,
        issuer,
        audience,
        clockTolerance: clockToleranceSeconds,
        currentDate: new Date(nowMs),
        requiredClaims: ['exp', 'iat', 'sub'],
      })
      const { exp, iat, sub } = payload as { exp: number; iat: number; sub: unknown }
      if (typeof sub !== 'string') throw invalidToken('claim-sub')
      if (iat > nowMs / 1000 + clockToleranceSeconds) throw invalidToken('issued-in-future')
      if (exp - iat > maxLifetimeSeconds) throw invalidToken('lifetime')
      return payload
    } catch (error) {
      throw error instanceof errors.JOSEError ? invalidToken(reasonOf(error), error) : error
    }
  }
}

export type AccessTokenVerifier = ReturnType<typeof createAccessTokenVerifier>

export function invalidToken(reason: InvalidTokenReason, cause?: unknown): Problem {
  return new Problem('invalid-token', { cause, diagnosis: { reason } })
}

const reasons: Record<string, InvalidTokenReason> = {
  [errors.JWTExpired.code]: 'expired',
  [errors.JWKSNoMatchingKey.code]: 'unknown-key',
}

const claimReasons: Record<string, InvalidTokenReason> = {
  iss: 'claim-iss',
  aud: 'claim-aud',
  exp: 'claim-exp',
  nbf: 'claim-nbf',
  iat: 'claim-iat',
  sub: 'claim-sub',
}

function reasonOf(error: errors.JOSEError): InvalidTokenReason {
  const byClaim = error instanceof errors.JWTClaimValidationFailed && claimReasons[error.claim]
  return byClaim || (reasons[error.code] ?? 'signature')
}
