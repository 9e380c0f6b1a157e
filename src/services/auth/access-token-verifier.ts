import { hash } from 'node:crypto'
import { type CryptoKey, errors, type JWTPayload, jwtVerify } from 'jose'
import { LRUCache } from 'lru-cache'
import type { Clock } from '../../clock.js'
import { Problem } from '../../problems/problem.js'
import {
  checkHeader,
  checkIsAccessToken,
  type InvalidTokenReason,
  invalidToken,
  mediaType,
  unexpected,
} from './access-token.js'
import type { SigningKeys } from './signing-keys.js'
import { withTimeout } from './with-timeout.js'

export interface AccessTokenVerifierOptions {
  readonly signingKeys: Pick<SigningKeys, 'fetches' | 'refreshIfStale' | 'has' | 'resolve' | 'refetch'>
  readonly issuer: string
  readonly audience: string
  readonly algorithms: string[]
  /** Accepted `typ` values. A token without one counts as `JWT`. jose can compare with only one value. */
  readonly tokenTypes: readonly string[]
  readonly clockToleranceSeconds: number
  readonly maxLifetimeSeconds: number
  /** How long the verification of a new token may take, including the wait for keys. */
  readonly timeoutMs: number
  readonly clock: Clock
}

const maxCacheBytes = 5 * 1024 * 1024
/** Size of a cache entry without its claims. */
const entryBytes = 600
/** Parsed claims take more memory than the token. */
const bytesPerCharacter = 2

type Claims = JWTPayload & { readonly exp: number }

/** The claims of a token, and the key that its signature was checked with. */
interface Verified {
  readonly claims: Claims
  readonly key: CryptoKey
}

/** Verifies JWT access tokens (RFC 7519, RFC 8725): form, signature, issuer, audience and times. */
export function createAccessTokenVerifier(options: AccessTokenVerifierOptions) {
  const { signingKeys, algorithms, issuer, audience, clockToleranceSeconds, timeoutMs, clock } = options
  const { now } = clock
  const types = options.tokenTypes.map(mediaType)

  // Most requests bring a token that was verified before. Its times and its key are checked at every use.
  const cache = new LRUCache<string, Verified>({ maxSize: maxCacheBytes })

  async function verifyWithJose(text: string, since: number) {
    return jwtVerify(text, (header) => signingKeys.resolve(header, since), {
      algorithms,
      issuer,
      audience,
      requiredClaims: ['exp', 'sub'],
      currentDate: new Date(now()),
      clockTolerance: clockToleranceSeconds,
    })
  }

  async function verifyNew(text: string): Promise<Verified> {
    const { kid } = checkHeader(text, algorithms)
    const since = signingKeys.fetches()
    const { payload, protectedHeader, key } = await verifyWithJose(text, since).catch(async (error) => {
      // A token without a key id does not name its key. A wrong signature may mean that there is a new key.
      const mayBeNewKey = kid === undefined && error instanceof errors.JWSSignatureVerificationFailed
      if (mayBeNewKey && (await signingKeys.refetch(since))) return verifyWithJose(text, since)
      throw error
    })
    const { typ = 'JWT' } = protectedHeader as { typ?: unknown }
    if (typeof typ !== 'string' || !types.includes(mediaType(typ))) {
      throw unexpected('token-type', options.tokenTypes.join(', '), typ)
    }
    checkIsAccessToken(payload)
    if (typeof payload.sub !== 'string') throw invalidToken('claim-sub')
    return { claims: payload as Claims, key }
  }

  function checkTimes(claims: Claims): void {
    const fault = findTimeFault(claims, now() / 1000, options)
    if (fault === 'lifetime') {
      const lifetimeSeconds = claims.exp - (claims.iat ?? now() / 1000)
      throw unexpected(fault, `at most ${options.maxLifetimeSeconds} seconds`, Math.round(lifetimeSeconds))
    }
    if (fault) throw invalidToken(fault)
  }

  /**
   * @returns the verified claims
   * @throws Problem `invalid-token`, whose diagnosis names the reason, or `auth-keys-unavailable`
   */
  return async (text: string): Promise<JWTPayload> => {
    const digest = hash('sha256', text, 'base64url')
    const known = cache.get(digest)
    if (known) {
      await signingKeys.refreshIfStale()
      if (signingKeys.has(known.key)) {
        checkTimes(known.claims)
        return known.claims
      }
    }
    const verified = await withTimeout(() => verifyNew(text), timeoutMs, clock).catch((error) => {
      throw toProblem(error, { iss: issuer, aud: audience })
    })
    checkTimes(verified.claims)
    cache.set(digest, verified, { size: entryBytes + bytesPerCharacter * text.length })
    return verified.claims
  }
}

export type AccessTokenVerifier = ReturnType<typeof createAccessTokenVerifier>

/** Times are in seconds. jose also checks `exp` and `nbf`, but only for a new token. */
function findTimeFault(
  { iat, nbf, exp }: Claims,
  now: number,
  { clockToleranceSeconds, maxLifetimeSeconds }: AccessTokenVerifierOptions,
): InvalidTokenReason | undefined {
  if (exp <= now - clockToleranceSeconds) return 'expired'
  if (nbf !== undefined && nbf > now + clockToleranceSeconds) return 'claim-nbf'
  if (iat !== undefined && iat > now + clockToleranceSeconds) return 'issued-in-future'
  // Without `iat` the lifetime counts from now.
  if (exp - (iat ?? now + clockToleranceSeconds) > maxLifetimeSeconds) return 'lifetime'
  return undefined
}

/** Maps errors of jose and {@link withTimeout} to problems. Other errors stay as they are. jose checks the signature first. */
function toProblem(error: unknown, expected: Readonly<Record<string, string>>): unknown {
  if (error instanceof errors.JWTClaimValidationFailed) {
    const { claim, payload } = error
    const reason = `claim-${claim}` as InvalidTokenReason
    return expected[claim] === undefined
      ? invalidToken(reason, error)
      : unexpected(reason, expected[claim], payload[claim], error)
  }
  if (error instanceof errors.JWTExpired) return invalidToken('expired', error)
  if (error instanceof errors.JWSSignatureVerificationFailed) return invalidToken('signature', error)
  if (error instanceof errors.JWTInvalid) return invalidToken('claims', error)
  if ((error as Error).name === 'TimeoutError') return new Problem('auth-keys-unavailable', { cause: error })
  return error
}
