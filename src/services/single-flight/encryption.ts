import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'

const algorithm = 'aes-256-gcm'
const ivBytes = 12
const tagBytes = 16

/**
 * Encrypts what is kept outside of this process. The text is bound to its place, so that nobody who can write
 * there can move a token to another company's place.
 *
 * @param keys 32 bytes each, base64: the first encrypts, all decrypt, so that keys can be rotated
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
    seal(text: string, place: string): string {
      const iv = randomBytes(ivBytes)
      const cipher = createCipheriv(algorithm, currentKey, iv).setAAD(Buffer.from(place))
      const sealed = Buffer.concat([iv, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()])
      return `${currentId}.${sealed.toString('base64')}`
    },
    /** @returns undefined when the text was sealed with another key, for another place, or not at all */
    open(sealed: string, place: string): string | undefined {
      const [id = '', data = ''] = sealed.split('.')
      const key = byId.get(id)
      const bytes = Buffer.from(data, 'base64')
      if (!key || bytes.length < ivBytes + tagBytes) return undefined
      const decipher = createDecipheriv(algorithm, key, bytes.subarray(0, ivBytes), {
        authTagLength: tagBytes,
      })
      decipher.setAAD(Buffer.from(place)).setAuthTag(bytes.subarray(-tagBytes))
      try {
        return decipher.update(bytes.subarray(ivBytes, -tagBytes), undefined, 'utf8') + decipher.final('utf8')
      } catch {
        return undefined
      }
    },
  }
}

export type StateCipher = ReturnType<typeof createStateCipher>
