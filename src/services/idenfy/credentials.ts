export interface Credentials {
  readonly apiKey: string
  readonly apiSecret: string
}

/**
 * The credentials of the iDenfy account as the `Authorization` field (RFC 7617).
 *
 * @param read gives the credentials as they are now; throws when they are not usable
 * @param onRefused is told why new credentials are not taken; the old ones stay
 */
export function createCredentials(read: () => Credentials, onRefused: (error: unknown) => void) {
  let authorization = basic(read())
  return {
    authorization: (): string => authorization,

    /** Reads anew. @returns whether the credentials have changed since `used` was taken */
    haveChangedSince(used: string): boolean {
      try {
        authorization = basic(read())
      } catch (error) {
        onRefused(error)
      }
      return authorization !== used
    },
  }
}

export type CredentialSource = ReturnType<typeof createCredentials>

function basic({ apiKey, apiSecret }: Credentials): string {
  return `Basic ${Buffer.from(`${apiKey}:${apiSecret}`).toString('base64')}`
}
