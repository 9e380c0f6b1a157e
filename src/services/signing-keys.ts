import { type Static, Type } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey } from 'jose'
import { type Dispatcher, request } from 'undici'
import { Problem } from '../problems.js'

const JsonWebKeySet = Type.Object({
  keys: Type.Array(Type.Object({ kty: Type.String() }), { minItems: 1, maxItems: 50 }),
})
const jwksCheck = TypeCompiler.Compile(JsonWebKeySet)

/** A key withdrawn by the provider is used for at most this long (with the provider up). */
const maxAgeMs = 5 * 60_000
/** Between two fetches, so that tokens with made-up key ids cannot drive traffic to the provider. */
const cooldownMs = 30_000
const firstRetryMs = 1_000
const fetchTimeoutMs = 2_000

export interface SigningKeysOptions {
  readonly url: string
  /** Bounds the size of the answer; closed by whoever made it. */
  readonly dispatcher: Dispatcher
  readonly onFetchFailed: (error: unknown) => void
  /** Milliseconds of a clock that never goes back. */
  readonly monotonicNow?: () => number
}

/**
 * The identity provider's public keys (JWKS, RFC 7517). One fetch at a time; the last good set goes on
 * working while the provider is down. jose's `createRemoteJWKSet` is not used because it has no back-off
 * after a failed fetch, drops good keys once they are stale and reads answers of any length.
 */
export function createSigningKeys(options: SigningKeysOptions) {
  const { url, dispatcher, onFetchFailed, monotonicNow = () => performance.now() } = options
  let keySet: ReturnType<typeof createLocalJWKSet> | undefined
  let fetching: Promise<void> | undefined
  let failures = 0
  let staleAt = Number.NEGATIVE_INFINITY
  let nextFetchAt = Number.NEGATIVE_INFINITY

  /** Starts or joins a fetch; undefined when it is too early for one. The promise never rejects. */
  function refresh(): Promise<void> | undefined {
    if (!fetching && monotonicNow() >= nextFetchAt) {
      fetching = fetchKeySet(url, dispatcher)
        .then(
          (jwks) => {
            keySet = createLocalJWKSet(jwks)
            failures = 0
            staleAt = monotonicNow() + maxAgeMs
            nextFetchAt = monotonicNow() + cooldownMs
          },
          (error) => {
            nextFetchAt = monotonicNow() + Math.min(firstRetryMs * 2 ** failures, cooldownMs)
            failures += 1
            onFetchFailed(error)
          },
        )
        .finally(() => {
          fetching = undefined
        })
    }
    return fetching
  }

  /** @throws Problem `auth-keys-unavailable` when there has never been a usable set */
  const resolve: JWTVerifyGetKey = async (header, token) => {
    if (!keySet) await refresh()
    if (!keySet) throw new Problem('auth-keys-unavailable')
    if (monotonicNow() >= staleAt) refresh()
    try {
      return await keySet(header, token)
    } catch (error) {
      const refreshed = error instanceof errors.JWKSNoMatchingKey ? refresh() : undefined
      if (!refreshed) throw error
      await refreshed
      return await keySet(header, token)
    }
  }

  return {
    resolve,
    /** Whether tokens can be checked. Asking starts a fetch when they cannot, so that probes bring the keys in. */
    isReady(): boolean {
      if (!keySet) refresh()
      return keySet !== undefined
    },
  }
}

export type SigningKeys = ReturnType<typeof createSigningKeys>

async function fetchKeySet(url: string, dispatcher: Dispatcher): Promise<JSONWebKeySet> {
  const { statusCode, body } = await request(url, { dispatcher, signal: AbortSignal.timeout(fetchTimeoutMs) })
  const text = await body.text()
  if (statusCode !== 200) throw new Error(`The identity provider answered ${statusCode} for its signing keys`)
  const jwks: unknown = JSON.parse(text)
  if (!jwksCheck.Check(jwks)) throw new Error('The identity provider sent no usable set of signing keys')
  return jwks satisfies Static<typeof JsonWebKeySet> as JSONWebKeySet
}
