import { errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from 'jose'
import { Problem } from '../problems.js'
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

/** Checks a JWT access token (RFC 7519, RFC 8725): signature, issuer, audience, times and type. */
export function createAccessTokenVerifier(options: AccessTokenVerifierOptions) {
  const { signingKeys, issuer, audience, algorithms, clockToleranceSeconds, maxLifetimeSeconds, now } =
    options
  const tokenTypes = options.tokenTypes.map(mediaType)

  const keyFor: JWTVerifyGetKey = (header, jws) => {
    const { kid, typ = 'JWT' } = header
    if (typeof kid !== 'string' || kid === '') throw invalid('key-id')
    if (typeof typ !== 'string' || !tokenTypes.includes(mediaType(typ))) throw invalid('token-type')
    return signingKeys.resolve(header, jws)
  }

  /**
   * @returns the verified claims
   * @throws Problem `invalid-token`, whose diagnosis names the reason, or `auth-keys-unavailable`
   */
  return async (token: string): Promise<JWTPayload> => {
    const nowMs = now()
    try {
      const { payload } = await jwtVerify(token, keyFor, {
        algorithms,
        issuer,
        audience,
        clockTolerance: clockToleranceSeconds,
        currentDate: new Date(nowMs),
        requiredClaims: ['exp', 'iat'],
      })
      const { exp, iat } = payload as { exp: number; iat: number }
      if (iat > nowMs / 1000 + clockToleranceSeconds) throw invalid('issued-in-future')
      if (exp - iat > maxLifetimeSeconds) throw invalid('lifetime')
      return payload
    } catch (error) {
      throw error instanceof errors.JOSEError ? invalid(reasonOf(error), error) : error
    }
  }
}

export type AccessTokenVerifier = ReturnType<typeof createAccessTokenVerifier>

function invalid(reason: string, cause?: unknown): Problem {
  return new Problem('invalid-token', { cause, diagnosis: { reason } })
}

/** `typ` is a media type whose `application/` prefix may be left out (RFC 7515, 4.1.9); case does not matter. */
function mediaType(typ: string): string {
  return typ.toLowerCase().replace(/^application\//, '')
}

const reasons: Record<string, string> = {
  [errors.JWTExpired.code]: 'expired',
  [errors.JOSEAlgNotAllowed.code]: 'algorithm',
  [errors.JWKSNoMatchingKey.code]: 'unknown-key',
  [errors.JWKSMultipleMatchingKeys.code]: 'ambiguous-key',
  [errors.JWSSignatureVerificationFailed.code]: 'signature',
}

function reasonOf(error: errors.JOSEError): string {
  if (error instanceof errors.JWTClaimValidationFailed) return `claim-${error.claim}`
  return reasons[error.code] ?? 'malformed'
}
