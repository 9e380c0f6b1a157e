import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'

const algorithm = 'aes-256-gcm'
const ivBytes = 12
const tagBytes = 16

/**
 * Encrypts what is stored outside of this process, with AES-256-GCM. The storage key is authenticated with the text:
 * someone with write access to Redis cannot move a token to the key of another company.
 *
 * @param keys 32 bytes each, base64. The first one encrypts, all decrypt, so keys can be rotated
 */
export function createStateCipher(keys: readonly string[]) {
  const byId = new Map(
    keys.map((text): [string, Buffer] => {
      const key = Buffer.from(text, 'base64')
      return [createHash('sha256').update(key).digest('hex').slice(0, 8), key]
    }),
  )
  const [[currentId, currentKey]] = [...byId] as [[string, Buffer]]

  return {
    encrypt(text: string, storageKey: string): string {
      const iv = randomBytes(ivBytes)
      const cipher = createCipheriv(algorithm, currentKey, iv).setAAD(Buffer.from(storageKey))
      const parts = [iv, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]
      return `${currentId}.${Buffer.concat(parts).toString('base64')}`
    },
    /** @returns undefined if the text was encrypted with another key, for another storage key, or not at all */
    decrypt(ciphertext: string, storageKey: string): string | undefined {
      const [id = '', data = ''] = ciphertext.split('.')
      const key = byId.get(id)
      const bytes = Buffer.from(data, 'base64')
      if (!key || bytes.length < ivBytes + tagBytes) return undefined
      const decipher = createDecipheriv(algorithm, key, bytes.subarray(0, ivBytes), {
        authTagLength: tagBytes,
      })
      decipher.setAAD(Buffer.from(storageKey)).setAuthTag(bytes.subarray(-tagBytes))
      try {
        return decipher.update(bytes.subarray(ivBytes, -tagBytes), undefined, 'utf8') + decipher.final('utf8')
      } catch {
        return undefined
      }
    },
  }
}

export type StateCipher = ReturnType<typeof createStateCipher>
