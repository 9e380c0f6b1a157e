import type { KybSession } from './kyb-service.js'

/** A failure that a developer can choose in the sandbox panel for the next request. */
export interface Fault {
  readonly label: string
  /** Sent to the iDenfy simulator, which applies it to the next request that it gets. */
  readonly atIdenfy?: object
  /** Replaces properties of the request to the service. */
  readonly inRequest?: { accessToken?: string; companyId?: string; session?: KybSession }
  /** Sends a request with each of these locales first. Identical requests would get the same token and use up no limit. */
  readonly burst?: readonly NonNullable<KybSession['locale']>[]
}

export const noFault: Fault = { label: 'No fault' }

export const faults: Readonly<Record<string, Fault>> = {
  none: noFault,
  slow: { label: 'Slow response', atIdenfy: { delayMs: 3000 } },
  outage: { label: 'iDenfy is down', atIdenfy: { status: 500, identifier: 'INTERNAL_ERROR' } },
  silence: { label: 'No response within eight seconds', atIdenfy: { delayMs: 9000 } },
  drop: { label: 'Connection lost', atIdenfy: { drop: 'before-headers' } },
  conflict: { label: 'A session is already open', atIdenfy: { status: 409, identifier: 'CONFLICT' } },
  limit: { label: 'iDenfy limits our requests', atIdenfy: { status: 429, identifier: 'TOO_MANY_REQUESTS' } },
  credentials: { label: 'iDenfy rejects our API key', atIdenfy: { status: 401, identifier: 'UNAUTHORIZED' } },
  nonsense: { label: 'Invalid response from iDenfy', atIdenfy: { body: {} } },
  token: { label: 'Invalid access token', inRequest: { accessToken: 'none' } },
  company: { label: 'The id of another company', inRequest: { companyId: 'umbrella' } },
  field: { label: 'A field that the policy forbids', inRequest: { session: { tags: ['vip'] } } },
  burst: { label: 'Too many requests', burst: ['en', 'es', 'fr', 'ru', 'de', 'it', 'pl', 'lt', 'lv', 'et'] },
}
