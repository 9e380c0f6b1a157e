import type { components } from './service-api.js'

export type Problem = components['schemas']['Problem']
export type KybToken = components['schemas']['KybToken']
export type KybSession = components['schemas']['KybSession']

export interface KybTokenRequest {
  readonly serviceUrl: string
  readonly accessToken: string
  /** Required for users with several companies. */
  readonly companyId?: string | undefined
  /** Retries of one click send the same key. After `outcome: "unknown"`, use a new key. */
  readonly idempotencyKey: string
  readonly session?: KybSession | undefined
  /** Abort it when the user signs out or chooses another company. Check it before you use the outcome. */
  readonly signal?: AbortSignal | undefined
  /** The sandbox panel shows what this function sends and receives. */
  readonly fetch?: typeof globalThis.fetch
}

export type Outcome =
  | { readonly token: KybToken; readonly isReplayed: boolean }
  /** Without `problem` the service did not respond: the network, a proxy or the service is down. */
  | { readonly problem?: Problem; readonly retryAfterSeconds: number }

/** Not `crypto.randomUUID`, which browsers have only on HTTPS pages and on localhost. */
export function newIdempotencyKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** Requests a KYB token. It never throws: every failure is an outcome. */
export async function createKybToken(request: KybTokenRequest): Promise<Outcome> {
  const { serviceUrl, accessToken, companyId, idempotencyKey, session, signal } = request
  const { fetch = globalThis.fetch } = request
  try {
    const response = await fetch(`${serviceUrl}/onboarding/kyb-token`, {
      method: 'POST',
      headers: {
        Authorization: `Bearer ${accessToken}`,
        'Idempotency-Key': idempotencyKey,
        ...(companyId !== undefined && { 'X-Company-Id': encodeURIComponent(companyId) }),
        ...(session && { 'Content-Type': 'application/json' }),
      },
      ...(session && { body: JSON.stringify(session) }),
      ...(signal && { signal }),
    })
    if (response.status === 201) {
      return {
        token: (await response.json()) as KybToken,
        isReplayed: response.headers.has('Idempotency-Replayed'),
      }
    }
    // A proxy may respond instead of the service, with a page of its own.
    if (!response.headers.get('Content-Type')?.startsWith('application/problem+json')) {
      return { retryAfterSeconds: 0 }
    }
    return {
      problem: (await response.json()) as Problem,
      retryAfterSeconds: Number(response.headers.get('Retry-After') ?? 0),
    }
  } catch {
    return { retryAfterSeconds: 0 }
  }
}
