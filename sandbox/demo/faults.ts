import type { KybSession } from './kyb-service.js'

/** A problem that the sandbox panel offers to simulate with the next request. */
export interface Fault {
  readonly label: string
  /** Sent to the iDenfy simulator, which applies it to the next request that it gets. */
  readonly atIdenfy?: object
  /** Replaces properties of the request to the service. */
  readonly inRequest?: { accessToken?: string; companyId?: string; session?: KybSession }
  /** Sends a request with each of these locales first. Identical requests would get the same token and use up no limit. */
  readonly burst?: readonly NonNullable<KybSession['locale']>[]
}

export const noFault: Fault = { label: 'No problem' }

export const faults: Readonly<Record<string, Fault>> = {
  none: noFault,
  slow: { label: 'iDenfy takes three seconds', atIdenfy: { delayMs: 3000 } },
  outage: { label: 'iDenfy has an internal error', atIdenfy: { status: 500, identifier: 'INTERNAL_ERROR' } },
  silence: { label: 'iDenfy does not respond in time', atIdenfy: { delayMs: 9000 } },
  drop: { label: 'The connection to iDenfy breaks', atIdenfy: { drop: 'before-headers' } },
  nonsense: { label: 'iDenfy sends an incomplete response', atIdenfy: { body: {} } },
  conflict: {
    label: 'The company already has an open form',
    atIdenfy: { status: 409, identifier: 'CONFLICT' },
  },
  limit: {
    label: 'iDenfy limits our account',
    atIdenfy: { status: 429, identifier: 'TOO_MANY_REQUESTS' },
  },
  credentials: {
    label: 'iDenfy does not accept our API key',
    atIdenfy: { status: 401, identifier: 'UNAUTHORIZED' },
  },
  token: { label: 'The user’s sign-in is not valid', inRequest: { accessToken: 'none' } },
  company: { label: 'The user chooses someone else’s company', inRequest: { companyId: 'umbrella' } },
  field: { label: 'The page sets an option it may not set', inRequest: { session: { tags: ['vip'] } } },
  burst: {
    label: 'The user tries too often',
    burst: ['en', 'es', 'fr', 'ru', 'de', 'it', 'pl', 'lt', 'lv', 'et'],
  },
}
