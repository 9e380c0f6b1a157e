import type { components } from './service-api.js'

export type Problem = components['schemas']['Problem']
export type KybToken = components['schemas']['KybToken']
export type KybSession = components['schemas']['KybSession']

export interface KybTokenRequest {
  readonly serviceUrl: string
  readonly accessToken: string
  /** For users of several companies. */
  readonly companyId?: string | undefined
  /** The same for every retry of one click. After `outcome: "unknown"` a new try needs a new one. */
  readonly idempotencyKey: string
  readonly session?: KybSession | undefined
  /** Aborted when the user signs out or picks another company: check it before the outcome is used. */
  readonly signal?: AbortSignal | undefined
}

export type Outcome =
  | { readonly token: KybToken; readonly isReplayed: boolean }
  /** Without a problem there was no answer: the network is down, or the service is. */
  | { readonly problem?: Problem; readonly retryAfterSeconds: number }

/** Asks for a KYB token. Whatever happens is an outcome, not an exception. */
export async function createKybToken(request: KybTokenRequest): Promise<Outcome> {
  const { serviceUrl, accessToken, companyId, idempotencyKey, session, signal } = request
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
    return {
      problem: (await response.json()) as Problem,
      retryAfterSeconds: Number(response.headers.get('Retry-After') ?? 0),
    }
  } catch {
    return { retryAfterSeconds: 0 }
  }
}
