import { createPublicKey, type JsonWebKey } from 'node:crypto'
import { Type } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import { importJWK, type JSONWebKeySet, type JWK } from 'jose'

const KeySet = Type.Object({ keys: Type.Array(Type.Object({}), { minItems: 1, maxItems: 50 }) })
const keySetCheck = TypeCompiler.Compile(KeySet)

/** Members of private and symmetric keys (RFC 7518, section 6). */
const privateMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']

/**
 * Reads a JWK set and keeps the keys that signatures may be trusted to: public, strong, well-formed, and alone
 * under their id.
 *
 * @throws Error with the `code` `jwks-not-json`, `jwks-form`, `jwks-private-key` (a provider that publishes
 *   one is not to be trusted with the others) or `jwks-no-usable-key`
 */
export async function lintKeySet(text: string): Promise<JSONWebKeySet> {
  const document = parse(text)
  if (!keySetCheck.Check(document)) throw refused('jwks-form')
  const keys = document.keys as JWK[]
  if (keys.some((key) => key.kty === 'oct' || privateMembers.some((name) => Object.hasOwn(key, name)))) {
    throw refused('jwks-private-key')
  }
  const isAlone = ({ kid }: JWK) => keys.filter((key) => key.kid === kid).length === 1
  const usable = await Promise.all(keys.map(async (key) => isAlone(key) && (await isSound(key))))
  const sound = keys.filter((_key, index) => usable[index])
  if (sound.length === 0) throw refused('jwks-no-usable-key')
  return { keys: sound }
}

async function isSound(key: JWK): Promise<boolean> {
  if (typeof key.kid !== 'string' || (key.use ?? 'sig') !== 'sig') return false
  try {
    // Refuses points that are not on their curve, among other things.
    const { asymmetricKeyType, asymmetricKeyDetails } = createPublicKey({
      key: key as JsonWebKey,
      format: 'jwk',
    })
    if (key.alg !== undefined) await importJWK(key, key.alg)
    if (asymmetricKeyType !== 'rsa') return true
    const { modulusLength, publicExponent } = asymmetricKeyDetails as {
      modulusLength: number
      publicExponent: bigint
    }
    return modulusLength >= 2048 && publicExponent >= 65_537n && publicExponent % 2n === 1n
  } catch {
    return false
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw refused('jwks-not-json')
  }
}

function refused(code: string): Error {
  return Object.assign(new Error('The set of signing keys was refused'), { code })
}
