import type { components } from './service-api.js'

export type Problem = components['schemas']['Problem']
export type KybToken = components['schemas']['KybToken']
export type KybSession = components['schemas']['KybSession']

export interface KybTokenRequest {
  readonly serviceUrl: string
  readonly accessToken: string
  /** For users of several companies. */
  readonly companyId?: string | undefined
  /** The same for every repetition of one click. */
  readonly idempotencyKey: string
  readonly session?: KybSession | undefined
}

export type Outcome =
  | { readonly token: KybToken; readonly isReplayed: boolean }
  /** Without a problem there was no answer: the network is down, or the service is. */
  | { readonly problem?: Problem; readonly retryAfterSeconds: number }

/** Asks for a KYB token. Whatever happens is an outcome, not an exception. */
export async function createKybToken(request: KybTokenRequest): Promise<Outcome> {
  const { serviceUrl, accessToken, companyId, idempotencyKey, session } = request
  try {
    const response = await fetch(`${serviceUrl}/onboarding/kyb-token`, {
      method: 'POST',
      headers: {
        Authorization: `Bearer ${accessToken}`,
        'Idempotency-Key': idempotencyKey,
        ...(companyId !== undefined && { 'X-Company-Id': companyId }),
        ...(session && { 'Content-Type': 'application/json' }),
      },
      ...(session && { body: JSON.stringify(session) }),
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
