import type { JWTHeaderParameters, JWTPayload } from 'jose'
import { Problem } from '../../problems/problem.js'

/** Fits into 16 KiB of headers together with the other fields. */
export const maxTokenLength = 15_000
const maxKidLength = 512
/** Characters of a claim in the log. */
const maxShown = 200
const compactForm = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)$/
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const byteOrderMark = Buffer.from('\ufeff')

/** Header parameters that contain or name keys, change how the token is read, or belong to encryption. */
export const refusedParameters = ['jku', 'jwk', 'x5u', 'x5c', 'crit', 'b64', 'zip', 'cty', 'enc']

/** Claims of other tokens of the same provider: ID tokens, logout tokens and sender-constrained tokens. */
export const foreignClaims = ['at_hash', 'c_hash', 's_hash', 'events', 'cnf', 'act']

/** Every reason for which a token is refused, as logged and counted. */
export const invalidTokenReasons = [
  'too-long',
  'not-compact',
  'encoding',
  'header',
  'algorithm',
  'token-type',
  'key-id',
  'header-parameter',
  'claims',
  'not-an-access-token',
  'unknown-key',
  'ambiguous-key',
  'signature',
  'claim-iss',
  'claim-aud',
  'claim-exp',
  'claim-nbf',
  'claim-iat',
  'claim-sub',
  'expired',
  'issued-in-future',
  'lifetime',
  'user-claim',
] as const
export type InvalidTokenReason = (typeof invalidTokenReasons)[number]

/**
 * Checks what jose does not, before any key is looked up (RFC 8725): the length, the encoding, and header parameters
 * that ask the reader to fetch, decompress or decrypt.
 *
 * @throws Problem `invalid-token`, whose diagnosis names the reason
 */
export function checkHeader(token: string, algorithms: readonly string[]): JWTHeaderParameters {
  if (token.length > maxTokenLength) throw invalidToken('too-long')
  const parts = compactForm.exec(token)?.slice(1)
  if (!parts) throw invalidToken('not-compact')
  const decoded = parts.map((part) => Buffer.from(part, 'base64url'))
  if (decoded.some((bytes, index) => bytes.toString('base64url') !== parts[index])) {
    throw invalidToken('encoding')
  }
  const [header, claims] = decoded as [Buffer, Buffer]
  // jose would ignore it.
  if (claims.subarray(0, 3).equals(byteOrderMark)) throw invalidToken('claims')
  return readHeader(header, algorithms)
}

function readHeader(bytes: Buffer, algorithms: readonly string[]): JWTHeaderParameters {
  const header = parseObject(bytes)
  const { alg, kid } = header
  if (typeof alg !== 'string' || !algorithms.includes(alg)) throw invalidToken('algorithm')
  // It is only used in comparisons.
  const isKid = typeof kid === 'string' && kid.length <= maxKidLength
  if (kid !== undefined && !isKid) throw invalidToken('key-id')
  if (refusedParameters.some((name) => Object.hasOwn(header, name))) throw invalidToken('header-parameter')
  return { alg, ...(isKid && { kid }) }
}

/** @throws Problem `invalid-token` for tokens of other kinds */
export function checkIsAccessToken(claims: JWTPayload): void {
  const isForeign =
    foreignClaims.some((name) => Object.hasOwn(claims, name)) ||
    // Cognito and Keycloak name the kind of a token in a claim.
    (claims.token_use ?? 'access') !== 'access' ||
    !['Bearer', undefined].includes(claims.typ as string | undefined)
  if (isForeign) throw invalidToken('not-an-access-token')
}

/**
 * A refusal whose log line shows what was expected and what was received. The operator sees which setting is wrong.
 *
 * @param received from a token whose signature was verified
 */
export function unexpected(
  reason: InvalidTokenReason,
  expected: string,
  received: unknown,
  cause?: unknown,
): Problem {
  return invalidToken(reason, cause, { expected, received: shown(received) })
}

/** Control characters and others that could change what a terminal shows. */
const invisible = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Surrogate}]/gu

/** A claim as the log may show it, cut to 200 characters, without control characters. */
export function shown(claim: unknown): string {
  const values = Array.isArray(claim) ? claim : [claim]
  const texts = values.map((value) =>
    ['string', 'number'].includes(typeof value) ? String(value) : value === undefined ? 'none' : typeof value,
  )
  return texts.join(', ').slice(0, maxShown).replace(invisible, '\ufffd')
}

/** `typ` is a media type whose `application/` may be left out (RFC 7515, 4.1.9); case does not matter. */
export function mediaType(typ: string): string {
  return typ.toLowerCase().replace(/^application\//, '')
}

function parseObject(bytes: Buffer): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(utf8.decode(bytes))
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>
    }
  } catch {
    // Refused below.
  }
  throw invalidToken('header')
}

export function invalidToken(
  reason: InvalidTokenReason,
  cause?: unknown,
  diagnosis: Readonly<Record<string, string>> = {},
): Problem {
  return new Problem('invalid-token', { cause, diagnosis: { reason, ...diagnosis } })
}
