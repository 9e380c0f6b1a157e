import { createPublicKey, type JsonWebKey } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { createLocalJWKSet, type JWK } from 'jose'

/** Members of private and symmetric keys (RFC 7518, section 6). */
const privateMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv']
/** Members of a public key. Others (`key_ops`, `x5c`, ...) are checked here and not needed later. */
const publicMembers = new Set(['kty', 'kid', 'alg', 'crv', 'x', 'y', 'n', 'e'])
const maxLoggedKid = 64

/** Why a member of a key set is not used. */
export type IgnoredKeyReason =
  | 'not-an-object'
  | 'kid'
  | 'use'
  | 'key-ops'
  | 'algorithm'
  | 'weak'
  | 'duplicate-kid'

export interface IgnoredKey {
  /** Cut to 64 characters. Nothing else of a key is logged. */
  readonly kid?: string | undefined
  readonly reason: IgnoredKeyReason
}

export const keySetFaultCodes = [
  'jwks-status',
  'jwks-encoding',
  'jwks-not-json',
  'jwks-form',
  'jwks-private-key',
  'jwks-no-usable-key',
] as const
export type KeySetFaultCode = (typeof keySetFaultCodes)[number]

export interface LintedKeySet {
  readonly keys: JWK[]
  readonly ignored: IgnoredKey[]
}

interface Candidate {
  readonly key: JWK
  /** The accepted algorithms that this key can verify. */
  readonly fits: readonly string[]
}

/**
 * Reads a JWK set (JWKS, RFC 7517) and keeps the keys that can verify these algorithms: public, strong and well-formed. If two
 * of them have the same `kid` and fit the same algorithm, neither is used.
 *
 * @throws KeySetFault `jwks-not-json`, `jwks-form`, `jwks-private-key` (a provider that publishes one is not to be trusted
 *   with the others) or `jwks-no-usable-key`
 */
export async function lintKeySet(text: string, algorithms: readonly string[]): Promise<LintedKeySet> {
  const members = membersOf(text)
  if (members.some(isSecret)) throw new KeySetFault('jwks-private-key', 'a private or symmetric key')

  const ignored: IgnoredKey[] = []
  const candidates: Candidate[] = []
  for (const member of members) {
    const result = await assess(member, algorithms)
    // A set that was merged from others may contain the same key twice.
    if (candidates.some((other) => isDeepStrictEqual(other, result))) continue
    if (typeof result !== 'string') candidates.push(result)
    else ignored.push({ kid: loggable(member?.kid), reason: result })
  }
  const keys: JWK[] = []
  for (const candidate of candidates) {
    if (!candidates.some((other) => other !== candidate && isAmbiguous(candidate, other)))
      keys.push(candidate.key)
    else ignored.push({ kid: loggable(candidate.key.kid), reason: 'duplicate-kid' })
  }
  if (keys.length === 0) throw new KeySetFault('jwks-no-usable-key', 'no key that fits', { ignored })
  return { keys, ignored }
}

type Member = Readonly<Record<string, unknown>> | undefined

/** The keys, without members that are null, which some serializers write for "absent". Undefined for a non-object. */
function membersOf(text: string): Member[] {
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch {
    throw new KeySetFault('jwks-not-json', describeText(text))
  }
  const { keys, jwks_uri: jwksUri } = (document ?? {}) as { keys?: unknown; jwks_uri?: unknown }
  if (jwksUri !== undefined) {
    throw new KeySetFault('jwks-form', 'a discovery document: set AUTH_JWKS_URL to its jwks_uri')
  }
  if (!Array.isArray(keys)) throw new KeySetFault('jwks-form', 'JSON without a list of keys')
  if (keys.length === 0) throw new KeySetFault('jwks-form', 'an empty list of keys')
  return keys.map((key) => {
    if (typeof key !== 'object' || key === null || Array.isArray(key)) return undefined
    return Object.fromEntries(Object.entries(key).filter(([, value]) => value !== null))
  })
}

function describeText(text: string): string {
  if (text.trim() === '') return 'nothing'
  return /^\s*</.test(text) ? 'HTML or XML' : 'text that is not JSON'
}

function isSecret(member: Member): boolean {
  if (!member) return false
  return member.kty === 'oct' || privateMembers.some((name) => Object.hasOwn(member, name))
}

async function assess(member: Member, algorithms: readonly string[]): Promise<Candidate | IgnoredKeyReason> {
  if (!member) return 'not-an-object'
  const { kid, use = 'sig', key_ops: operations } = member
  if (kid !== undefined && typeof kid !== 'string') return 'kid'
  if (use !== 'sig') return 'use'
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes('verify')))
    return 'key-ops'
  const key = Object.fromEntries(Object.entries(member).filter(([name]) => publicMembers.has(name))) as JWK
  const fits: string[] = []
  for (const alg of algorithms) if (await canCheck(key, alg)) fits.push(alg)
  if (fits.length === 0) return 'algorithm'
  return isStrong(key) ? { key, fits } : 'weak'
}

async function canCheck(key: JWK, alg: string): Promise<boolean> {
  try {
    // The same selection as later for a token. It also imports the key, which refuses points outside of the curve.
    await createLocalJWKSet({ keys: [key] })({ alg })
    return true
  } catch {
    return false
  }
}

function isStrong(key: JWK): boolean {
  const { asymmetricKeyDetails = {} } = createPublicKey({ key: key as JsonWebKey, format: 'jwk' })
  const { modulusLength, publicExponent = 0n } = asymmetricKeyDetails
  if (modulusLength === undefined) return true
  // OpenSSL does not support longer keys.
  const isSound = modulusLength >= 2048 && modulusLength <= 16_384
  return isSound && publicExponent >= 65_537n && publicExponent % 2n === 1n
}

/** Whether a token could mean either. */
function isAmbiguous(a: Candidate, b: Candidate): boolean {
  return a.key.kid !== undefined && a.key.kid === b.key.kid && a.fits.some((alg) => b.fits.includes(alg))
}

function loggable(kid: unknown): string | undefined {
  return typeof kid === 'string' ? kid.slice(0, maxLoggedKid) : undefined
}

/** Why no key of a response can be used. The message says what was received instead of a key set. */
export class KeySetFault extends Error {
  override readonly name = 'KeySetFault'

  constructor(
    readonly code: KeySetFaultCode,
    received: string,
    options: { readonly ignored?: readonly IgnoredKey[]; readonly cause?: unknown } = {},
  ) {
    super(received, { cause: options.cause })
    this.ignored = options.ignored
  }

  readonly ignored: readonly IgnoredKey[] | undefined
}
