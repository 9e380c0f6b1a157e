import { hash, KeyObject } from 'node:crypto'
import { type CryptoKey, errors, type JWTPayload } from 'jose'
import { LRUCache } from 'lru-cache'
import {
  type AccessToken,
  type InvalidTokenReason,
  invalidToken,
  mediaType,
  readAccessToken,
} from './access-token.js'
import { isSignatureOf } from './signature.js'
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

const maxRemembered = 5_000

/** A token whose form and signature are good, and the key that says so. */
interface Signed extends Pick<AccessToken, 'header' | 'claims'> {
  readonly key: CryptoKey
}

/** Checks a JWT access token (RFC 7519, RFC 8725): form, signature, issuer, audience and times. */
export function createAccessTokenVerifier(options: AccessTokenVerifierOptions) {
  const { signingKeys, algorithms, now } = options
  const accepted = { algorithms, types: options.tokenTypes.map(mediaType) }

  // A repetition brings the same token. What it says and whether this key signed it cannot change; all else is checked anew.
  const remembered = new LRUCache<string, Signed>({ max: maxRemembered })

  async function keyOf({ header }: Pick<AccessToken, 'header'>): Promise<CryptoKey> {
    try {
      return await signingKeys.resolve(header)
    } catch (error) {
      throw error instanceof errors.JWKSNoMatchingKey ? invalidToken('unknown-key', error) : error
    }
  }

  async function verify(text: string, digest: string): Promise<Signed> {
    const token = readAccessToken(text, accepted)
    const key = await keyOf(token)
    if (!isSignatureOf(token, KeyObject.from(key))) throw invalidToken('signature')
    const signed = { header: token.header, claims: token.claims, key }
    remembered.set(digest, signed)
    return signed
  }

  /**
   * @returns the verified claims
   * @throws Problem `invalid-token`, whose diagnosis names the reason, or `auth-keys-unavailable`
   */
  return async (text: string): Promise<JWTPayload> => {
    const digest = hash('sha256', text, 'base64url')
    const known = remembered.get(digest)
    const { claims } = known && known.key === (await keyOf(known)) ? known : await verify(text, digest)
    const fault = findClaimFault(claims, now() / 1000, options)
    if (fault) throw invalidToken(fault)
    return claims
  }
}

export type AccessTokenVerifier = ReturnType<typeof createAccessTokenVerifier>

/** RFC 7519, section 4.1, and RFC 9068, section 4; times are in seconds. */
function findClaimFault(
  { iss, aud, sub, iat, nbf, exp }: Record<string, unknown>,
  now: number,
  { issuer, audience, clockToleranceSeconds, maxLifetimeSeconds }: AccessTokenVerifierOptions,
): InvalidTokenReason | undefined {
  if (iss !== issuer) return 'claim-iss'
  if (aud !== audience && !(Array.isArray(aud) && aud.includes(audience))) return 'claim-aud'
  if (typeof sub !== 'string') return 'claim-sub'
  if (typeof iat !== 'number') return 'claim-iat'
  if (typeof exp !== 'number') return 'claim-exp'
  if (nbf !== undefined && !(typeof nbf === 'number' && nbf <= now + clockToleranceSeconds))
    return 'claim-nbf'
  if (exp <= now - clockToleranceSeconds) return 'expired'
  if (iat > now + clockToleranceSeconds) return 'issued-in-future'
  if (exp - iat > maxLifetimeSeconds) return 'lifetime'
  return undefined
}
