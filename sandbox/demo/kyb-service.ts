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
}

export type Outcome =
  | { readonly token: KybToken; readonly isReplayed: boolean }
  /** Without `problem` there was no response: the network or the service is down. */
  | { readonly problem?: Problem; readonly retryAfterSeconds: number }

/** Requests a KYB token. It never throws: every failure is an outcome. */
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
