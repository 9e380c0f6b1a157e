import { KeyObject, verify, webcrypto } from 'node:crypto'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import type { Network } from './network.js'
import { epochMs, type Process } from './process.js'
import type { VirtualTime } from './virtual-time.js'

export const keyIds = ['a', 'b', 'c'] as const
export type KeyId = (typeof keyIds)[number]
export const users = 16

/** How fetching the key set fails. */
export const providerFaults = ['error', 'hangs', 'garbage'] as const
type ProviderFault = (typeof providerFaults)[number]

export const issuer = 'https://idp.example'
export const audience = 'onboarding'
/** The lifetime of tokens that expire during a simulation. */
export const shortTokenMs = 30_000
/** How long before a simulation the tokens were issued. */
export const issuedBeforeMs = 60_000

const keys = new Map(
  await Promise.all(
    keyIds.map(async (kid) => {
      const { privateKey, publicKey } = await generateKeyPair('EdDSA', { extractable: true })
      const jwk = { ...(await exportJWK(publicKey)), kid, alg: 'EdDSA', use: 'sig' }
      return [kid, { privateKey, jwk }] as const
    }),
  ),
)

/** Signed once for all simulations: signing takes longer than most of them. */
const tokens = new Map<string, string>()
for (const [kid, { privateKey }] of keys) {
  for (let user = 0; user < users; user++) {
    for (const lifetimeMs of [shortTokenMs, 180 * 24 * 60 * 60_000]) {
      const token = await new SignJWT({ company: `company-${user}` })
        .setProtectedHeader({ alg: 'EdDSA', kid, typ: 'at+jwt' })
        .setIssuer(issuer)
        .setAudience(audience)
        .setSubject(`user-${user}`)
        .setIssuedAt((epochMs - issuedBeforeMs) / 1000)
        .setExpirationTime((epochMs + lifetimeMs) / 1000)
        .sign(privateKey)
      tokens.set(`${kid} ${user} ${lifetimeMs === shortTokenMs}`, token)
    }
  }
}

export function accessToken(kid: KeyId, user: number, isShort: boolean): string {
  return tokens.get(`${kid} ${user} ${isShort}`) as string
}

/*
 * WebCrypto checks signatures in another thread, and its promise settles some real time later. In a simulation all
 * promises settle before time goes on, so the same check is done here and at once. What was done before is remembered,
 * because a simulation should take less time than one check.
 */
const imported = new Map<string, webcrypto.CryptoKey>()
const importKey = webcrypto.subtle.importKey.bind(webcrypto.subtle) as (
  ...args: unknown[]
) => Promise<webcrypto.CryptoKey>
Object.assign(webcrypto.subtle, {
  async importKey(...args: unknown[]) {
    const text = JSON.stringify(args)
    const known = imported.get(text) ?? (await importKey(...args))
    imported.set(text, known)
    return known
  },
})
const checked = new Map<string, boolean>()
webcrypto.subtle.verify = async (_algorithm, key, signature, data) => {
  // The data name the key by its id, and in a simulation an id never gets another key.
  const text = Buffer.concat([signature as Uint8Array, data as Uint8Array]).toString('latin1')
  const known = checked.get(text)
  if (known !== undefined) return known
  const isValid = verify(null, data as Uint8Array, KeyObject.from(key), signature as Uint8Array)
  checked.set(text, isValid)
  return isValid
}

/** An identity provider, as far as the service sees it: its key set. */
export function createIdentityProvider(time: VirtualTime) {
  let published: readonly KeyId[] = ['a']
  const publishedAtMs = new Map<KeyId, number>([['a', Number.NEGATIVE_INFINITY]])
  const withdrawnAtMs = new Map<KeyId, number>()
  let fault: ProviderFault | undefined
  const body = () => JSON.stringify({ keys: published.map((kid) => keys.get(kid)?.jwk) })

  return {
    published: (): readonly KeyId[] => published,
    publish(kids: readonly KeyId[]): void {
      published = kids
      for (const kid of keyIds) {
        const isPublished = kids.includes(kid)
        if (isPublished && !publishedAtMs.has(kid)) publishedAtMs.set(kid, time.now())
        if (!isPublished && publishedAtMs.delete(kid)) withdrawnAtMs.set(kid, time.now())
        if (isPublished) withdrawnAtMs.delete(kid)
      }
    },
    /** Since when a key has been in the set; undefined if it is not. */
    publishedAtMs: (kid: KeyId): number | undefined => publishedAtMs.get(kid),
    /** Since when a key has not been in the set any more. */
    withdrawnAtMs: (kid: KeyId): number | undefined => withdrawnAtMs.get(kid),
    setFault(value: ProviderFault | undefined): void {
      fault = value
    },
    /** Fetches the key set for a process. */
    fetchFor(process: Process, network: Network): Promise<string> {
      return new Promise((resolve, reject) => {
        const fail = (message: string) => () => process.deliver(() => reject(new Error(message)))
        network.send(
          'keys-request',
          () => {
            if (fault === 'hangs') return
            const act = fault === 'error' ? fail('status 500') : undefined
            const text = fault === 'garbage' ? '<html>' : body()
            network.send('keys-response', act ?? (() => process.deliver(() => resolve(text))), fail('reset'))
          },
          fail('reset'),
        )
      })
    },
  }
}

export type IdentityProvider = ReturnType<typeof createIdentityProvider>
