import { constants, type KeyObject, type SigningOptions, verify } from 'node:crypto'
import type { AccessToken } from './access-token.js'

interface Scheme {
  readonly hash: string | null
  readonly options?: SigningOptions
}

/** With the padding that is node:crypto's own choice. */
const rsa = (bits: number): Scheme => ({ hash: `sha${bits}` })
const rsaPss = (bits: number): Scheme => ({
  hash: `sha${bits}`,
  options: { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST },
})
const ecdsa = (bits: number): Scheme => ({ hash: `sha${bits}`, options: { dsaEncoding: 'ieee-p1363' } })
const ed25519: Scheme = { hash: null }

/** RFC 7518, section 3.1, and RFC 8037 with its successor RFC 9864. */
const schemes: Record<string, Scheme> = {
  RS256: rsa(256),
  RS384: rsa(384),
  RS512: rsa(512),
  PS256: rsaPss(256),
  PS384: rsaPss(384),
  PS512: rsaPss(512),
  ES256: ecdsa(256),
  ES384: ecdsa(384),
  ES512: ecdsa(512),
  EdDSA: ed25519,
  Ed25519: ed25519,
}

/**
 * Whether the holder of the key signed the token.
 *
 * Here and now, not in another thread by way of WebCrypto, which is how jose does it: the way there costs twice what
 * the check of an RS256 signature does, 18 µs.
 *
 * @param key one that goes with the token's algorithm
 */
export function isSignatureOf({ header, signed, signature }: AccessToken, key: KeyObject): boolean {
  const { hash, options } = schemes[header.alg] as Scheme
  // A key beside options costs 8 µs more in Node 24.
  return verify(hash, signed, options ? { key, ...options } : key, signature)
}
