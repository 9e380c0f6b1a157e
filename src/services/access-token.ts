import { parseStrictObject } from './strict-json.js'

const maxLength = 8192
const compactForm = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)$/
const keyIdForm = /^[A-Za-z0-9._~+/=-]{1,128}$/

/** Header parameters that bring keys along, change how the rest is read, or belong to encryption. */
const refusedParameters = ['jku', 'jwk', 'x5u', 'x5c', 'crit', 'b64', 'zip', 'cty', 'enc']

/** Claims that only other tokens of the same provider have: ID tokens, logout tokens and bound tokens. */
const foreignClaims = ['at_hash', 'c_hash', 's_hash', 'events', 'cnf', 'act']

/** Every reason for which a token is refused, as logged and counted. */
export type InvalidTokenReason =
  | 'too-long'
  | 'not-compact'
  | 'encoding'
  | 'header'
  | 'algorithm'
  | 'token-type'
  | 'key-id'
  | 'header-parameter'
  | 'claims'
  | 'not-an-access-token'
  | 'unknown-key'
  | 'signature'
  | 'claim-iss'
  | 'claim-aud'
  | 'claim-exp'
  | 'claim-nbf'
  | 'claim-iat'
  | 'claim-sub'
  | 'expired'
  | 'issued-in-future'
  | 'lifetime'
  | 'user-claim'

export interface AcceptedTokens {
  readonly algorithms: readonly string[]
  /** `typ` values in lower case, without `application/`. */
  readonly types: readonly string[]
}

/**
 * Reads a JWT strictly and before any cryptography (RFC 8725): what two readers could take for two different
 * tokens, and what asks the reader to fetch, decompress or decrypt, ends here.
 *
 * @returns why the token is refused, or undefined
 */
export function findFault(token: string, accepted: AcceptedTokens): InvalidTokenReason | undefined {
  if (token.length > maxLength) return 'too-long'
  const parts = compactForm.exec(token)?.slice(1)
  if (!parts) return 'not-compact'
  const decoded = parts.map((part) => Buffer.from(part, 'base64url'))
  if (decoded.some((bytes, index) => bytes.toString('base64url') !== parts[index])) return 'encoding'
  const [header, claims] = decoded as [Buffer, Buffer, Buffer]
  return findHeaderFault(header, accepted) ?? findClaimsFault(claims)
}

function findHeaderFault(
  bytes: Buffer,
  { algorithms, types }: AcceptedTokens,
): InvalidTokenReason | undefined {
  const header = parse(bytes)
  if (!header) return 'header'
  const { alg, typ = 'JWT', kid } = header
  if (typeof alg !== 'string' || !algorithms.includes(alg)) return 'algorithm'
  if (typeof typ !== 'string' || !types.includes(mediaType(typ))) return 'token-type'
  if (typeof kid !== 'string' || !keyIdForm.test(kid)) return 'key-id'
  if (refusedParameters.some((name) => Object.hasOwn(header, name))) return 'header-parameter'
  return undefined
}

function findClaimsFault(bytes: Buffer): InvalidTokenReason | undefined {
  const claims = parse(bytes)
  if (!claims) return 'claims'
  const isForeign =
    foreignClaims.some((name) => Object.hasOwn(claims, name)) ||
    // Cognito and Keycloak name the kind of a token in a claim.
    (claims.token_use ?? 'access') !== 'access' ||
    !['Bearer', undefined].includes(claims.typ as string | undefined)
  return isForeign ? 'not-an-access-token' : undefined
}

/** `typ` is a media type whose `application/` may be left out (RFC 7515, 4.1.9); case does not matter. */
export function mediaType(typ: string): string {
  return typ.toLowerCase().replace(/^application\//, '')
}

function parse(bytes: Buffer): Record<string, unknown> | undefined {
  try {
    return parseStrictObject(bytes)
  } catch {
    return undefined
  }
}
