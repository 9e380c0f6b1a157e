import type { JWTPayload } from 'jose'
import { Problem } from '../problems.js'
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

export interface AccessToken {
  readonly header: { readonly alg: string; readonly kid: string }
  readonly claims: JWTPayload
  /** What the signature is of. */
  readonly signed: Buffer
  readonly signature: Buffer
}

/**
 * Reads a JWT strictly and before any cryptography (RFC 8725): what two readers could take for two different
 * tokens, and what asks the reader to fetch, decompress or decrypt, ends here.
 *
 * @throws Problem `invalid-token`, whose diagnosis names the reason
 */
export function readAccessToken(token: string, accepted: AcceptedTokens): AccessToken {
  if (token.length > maxLength) throw invalidToken('too-long')
  const parts = compactForm.exec(token)?.slice(1)
  if (!parts) throw invalidToken('not-compact')
  const decoded = parts.map((part) => Buffer.from(part, 'base64url'))
  if (decoded.some((bytes, index) => bytes.toString('base64url') !== parts[index])) {
    throw invalidToken('encoding')
  }
  const [header, claims, signature] = decoded as [Buffer, Buffer, Buffer]
  return {
    header: readHeader(header, accepted),
    claims: readClaims(claims),
    signed: Buffer.from(token.slice(0, token.lastIndexOf('.'))),
    signature,
  }
}

function readHeader(bytes: Buffer, { algorithms, types }: AcceptedTokens): AccessToken['header'] {
  const header = parse(bytes, 'header')
  const { alg, typ = 'JWT', kid } = header
  if (typeof alg !== 'string' || !algorithms.includes(alg)) throw invalidToken('algorithm')
  if (typeof typ !== 'string' || !types.includes(mediaType(typ))) throw invalidToken('token-type')
  if (typeof kid !== 'string' || !keyIdForm.test(kid)) throw invalidToken('key-id')
  if (refusedParameters.some((name) => Object.hasOwn(header, name))) throw invalidToken('header-parameter')
  return { alg, kid }
}

function readClaims(bytes: Buffer): JWTPayload {
  const claims = parse(bytes, 'claims')
  const isForeign =
    foreignClaims.some((name) => Object.hasOwn(claims, name)) ||
    // Cognito and Keycloak name the kind of a token in a claim.
    (claims.token_use ?? 'access') !== 'access' ||
    !['Bearer', undefined].includes(claims.typ as string | undefined)
  if (isForeign) throw invalidToken('not-an-access-token')
  return claims
}

/** `typ` is a media type whose `application/` may be left out (RFC 7515, 4.1.9); case does not matter. */
export function mediaType(typ: string): string {
  return typ.toLowerCase().replace(/^application\//, '')
}

function parse(bytes: Buffer, part: 'header' | 'claims'): Record<string, unknown> {
  try {
    return parseStrictObject(bytes)
  } catch {
    throw invalidToken(part)
  }
}

export function invalidToken(reason: InvalidTokenReason, cause?: unknown): Problem {
  return new Problem('invalid-token', { cause, diagnosis: { reason } })
}
