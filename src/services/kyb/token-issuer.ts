import { hash } from 'node:crypto'
import type { Logger } from 'pino'
import { Abandoned } from '../../problems/abandoned.js'
import { outcomeOf, type ProblemCode } from '../../problems/catalog.js'
import { Problem } from '../../problems/problem.js'
import type { Caller } from '../auth/caller.js'
import type { ReliableClient } from '../idenfy/resilient-client.js'
import type { KybFormToken, KybSession } from '../idenfy/schemas.js'
import type { Flight, Flights } from '../single-flight/memory.js'
import type { ClientIdentity, ClientIdentityMapper } from './client-identity.js'
import type { SessionPolicy } from './session-policy.js'

/** A token is not handed out again when it is so close to its end that the user could not open the form. */
const minReplayLifeMs = 30_000
const maxIdempotencyMs = 60 * 60_000
/** Covers the automatic retries of browsers, gateways and meshes after an unknown outcome. */
const unknownOutcomeMs = 5_000

export interface KybTokensOptions {
  /** The policy as it is now. */
  readonly policy: () => SessionPolicy
  readonly identify: ClientIdentityMapper
  readonly idenfy: ReliableClient
  readonly flights: Flights<Result>
  /** Tells callers of one deployment from those of others that share its state. */
  readonly scope: readonly string[]
  /** How long a token answers identical requests. */
  readonly replayMs: number
  /** Which requests are refused while the state that replicas share is unavailable: those with a key, or all. */
  readonly sharedStateRequiredFor: 'none' | 'keys' | 'all'
  /** The deadline of a request, as a duration. */
  readonly timeoutMs: number
  /** Where a user opens the form. */
  readonly uiUrl: string
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number
  /** Milliseconds of a clock that never goes back. */
  readonly monotonicNow: () => number
  /** Told of every token that is handed out. */
  readonly onIssued: (origin: TokenOrigin) => void
}

/** Whether iDenfy was called for this request, for an identical one at the same time or before, or for the same key. */
export type TokenOrigin = 'minted' | 'shared' | 'replayed' | 'idempotent'

/** What replicas share about a request that was sent to iDenfy. */
export type Result = (MintedToken | UnknownOutcome) & {
  /** Of the request that came with an idempotency key. */
  readonly fingerprint?: string
}

interface MintedToken {
  readonly identity: ClientIdentity
  readonly token: KybFormToken
  readonly mintedAtMs: number
}

/** A verification may have been opened. */
interface UnknownOutcome {
  readonly failure: ProblemCode
}

/** What the front-end gets. `redirectUrl` and `tokenString` are bearer credentials for the whole form. */
export type IssuedKybToken = ReturnType<SessionPolicy['readableBy']> &
  Required<Pick<KybFormToken, 'tokenString' | 'expiration' | 'tokenType' | 'isValid' | 'companyId'>> &
  ClientIdentity & { readonly expiresIn: number; readonly redirectUrl: string }

export interface IssueRequest {
  readonly caller: Caller
  /** The session that the caller requests, already valid by its schema. */
  readonly wishes: KybSession
  readonly requestId: string
  /** The request's, so that its lines belong together. */
  readonly log: Pick<Logger, 'info' | 'warn'>
  readonly idempotencyKey?: string | undefined
  /** What the service has spent on this request before: it counts against the deadline. */
  readonly waitedMs: number
  /** Whether the client has disconnected. */
  readonly isAbandoned: () => boolean
  /** Called when a POST is about to be sent for this request. Throws to prevent it. */
  readonly admit: () => Promise<void>
}

/** Issues KYB tokens: policy, identity, at most one POST. */
export function createKybTokens(options: KybTokensOptions) {
  const { policy, identify, idenfy, flights, scope, replayMs, uiUrl, now, onIssued } = options
  const { sharedStateRequiredFor, timeoutMs, monotonicNow } = options

  const formUrl = startOfFormUrl(uiUrl)
  // A clock that was set back makes no token live longer than it did when it came.
  const ageMs = ({ mintedAtMs }: MintedToken): number => Math.max(now() - mintedAtMs, 0)
  const lifeMs = ({ token, mintedAtMs }: MintedToken): number => {
    const endMs = Date.parse(token.expiration)
    return Math.min(endMs - now(), endMs - mintedAtMs)
  }
  const unknown = (reason: 'late' | 'owner-lost'): UnknownOutcome => ({
    failure: reason === 'late' ? 'provider-timeout' : 'provider-outcome-unknown',
  })

  /** Identical requests share a POST and, for a while, what became of it. */
  function sessionFlight(request: IssueRequest, deadline: number): Flight<Result> {
    return {
      kind: 'join',
      deadline,
      isAbandoned: request.isAbandoned,
      mayRunAlone: sharedStateRequiredFor !== 'all',
      lifetimeMs: (result) =>
        isUnknown(result)
          ? unknownOutcomeMs
          : Math.min(replayMs - ageMs(result), lifeMs(result) - minReplayLifeMs),
      // A new key is a new decision of the user, who knows that the outcome is unknown.
      accepts: (result) => !isUnknown(result) || request.idempotencyKey === undefined,
      unknown,
    }
  }

  /** Under one key there is at most one POST, whatever became of it. */
  function keyFlight(request: IssueRequest, deadline: number, fingerprint: string): Flight<Result> {
    return {
      kind: 'once',
      deadline,
      isAbandoned: request.isAbandoned,
      mayRunAlone: sharedStateRequiredFor === 'none',
      lifetimeMs: (result) =>
        isUnknown(result) ? maxIdempotencyMs : Math.min(maxIdempotencyMs - ageMs(result), lifeMs(result)),
      accepts: () => true,
      unknown: (reason) => ({ ...unknown(reason), fingerprint }),
    }
  }

  /** @returns with the error that this very request met, which says more than the result does */
  async function mint(request: IssueRequest, deadline: number) {
    const { caller, wishes, requestId, admit, log } = request
    const session = policy().sessionFor(caller.companyId, wishes)
    const identity = identify(caller, requestId)
    const key = keyOf('session', ...scope, caller.companyId, caller.userId, canonical(session))
    let error: unknown
    const landing = await flights.run(
      key,
      async (isAbandoned) => {
        const body = { tokenType: 'FORM' as const, ...identity, ...session }
        try {
          const token = await idenfy.createKybToken(body, { deadline, isAbandoned, admit, log })
          return { identity, token, mintedAtMs: now() }
        } catch (cause) {
          if (isNotCreated(cause)) throw cause
          error = cause
          return { failure: cause instanceof Problem ? cause.code : 'internal-error' }
        }
      },
      sessionFlight(request, deadline),
    )
    return { ...landing, error }
  }

  /** https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/ */
  async function mintOnce(request: IssueRequest, deadline: number, idempotencyKey: string) {
    const { caller, wishes } = request
    const key = keyOf('idempotency', ...scope, caller.companyId, caller.userId, idempotencyKey)
    const fingerprint = keyOf('request', canonical(wishes))
    let own: Awaited<ReturnType<typeof mint>> | undefined
    const { value } = await flights.run(
      key,
      async (isAbandoned) => {
        own = await mint({ ...request, isAbandoned }, deadline)
        return { ...own.value, fingerprint }
      },
      keyFlight(request, deadline, fingerprint),
    )
    if (value.fingerprint !== fingerprint) throw new Problem('idempotency-mismatch')
    const origin: TokenOrigin = own ? originOf[own.origin] : 'idempotent'
    return { value, origin, error: own?.error }
  }

  async function mintShared(request: IssueRequest, deadline: number) {
    const { origin, value, error } = await mint(request, deadline)
    return { value, origin: originOf[origin], error }
  }

  return {
    /**
     * @throws Problem `field-not-permitted`, `identity-not-mappable`, `idempotency-*`, `state-unavailable`,
     *   `kyb-session-conflict`, `overloaded` or `provider-*`; what `admit` throws
     */
    async issue(request: IssueRequest): Promise<{ token: IssuedKybToken; origin: TokenOrigin }> {
      const { idempotencyKey } = request
      const deadline = monotonicNow() + timeoutMs - request.waitedMs
      const { value, origin, error } = await (idempotencyKey === undefined
        ? mintShared(request, deadline)
        : mintOnce(request, deadline, idempotencyKey))
      if (isUnknown(value)) throw error ?? sharedFailure(value, origin)
      const remainingMs = lifeMs(value)
      // By the clock of this replica: another one's may differ.
      if (remainingMs <= 0) throw expired()
      const { identity, token } = value
      onIssued(origin)
      // Three of iDenfy's webhooks name nothing but its own id of the company: this is the link.
      request.log.info(
        {
          event: 'kyb-token-issued',
          origin,
          company: request.caller.companyId,
          user: request.caller.userId,
          ...identity,
          idenfyCompanyId: token.companyId,
          expiration: token.expiration,
          tokenFingerprint: fingerprintOf(token.tokenString),
        },
        'audit',
      )
      return {
        origin,
        token: {
          tokenType: 'FORM',
          tokenString: token.tokenString,
          expiration: token.expiration,
          // By this clock, because a phone's may be wrong.
          expiresIn: Math.floor(remainingMs / 1000),
          isValid: true,
          companyId: token.companyId ?? null,
          ...identity,
          redirectUrl: formUrl + encodeURIComponent(token.tokenString),
          ...policy().readableBy(request.caller.companyId, token),
        },
      }
    },
  }
}

export type KybTokens = ReturnType<typeof createKybTokens>

function isUnknown(result: Result): result is UnknownOutcome & Result {
  return 'failure' in result
}

/** Whether it is certain that no verification was opened. Of an error that is no problem nothing is certain. */
function isNotCreated(error: unknown): boolean {
  if (error instanceof Abandoned) return true
  return error instanceof Problem && outcomeOf(error.code) !== 'unknown'
}

function sharedFailure({ failure }: UnknownOutcome, origin: TokenOrigin): Problem {
  return new Problem(failure, {
    diagnosis: { reason: 'shared-result' },
    ...(origin === 'idempotent' && { headers: { 'idempotency-replayed': 'true' } }),
  })
}

function expired(): Problem {
  return new Problem('provider-bad-response', { diagnosis: { phase: 'after-sending', reason: 'expired' } })
}

const originOf = { own: 'minted', joined: 'shared', stored: 'replayed' } as const

/** Hashed, because keys are shown by tools that should not show who asks for what. No list of parts reads like another. */
function keyOf(...parts: readonly string[]): string {
  return `onboarding-bff:${hash('sha256', JSON.stringify(parts), 'base64url')}`
}

/** The URL of the form up to the token, which comes last: made once, as making a URL is dear. */
function startOfFormUrl(uiUrl: string): string {
  const url = new URL(uiUrl)
  url.searchParams.delete('authToken')
  url.searchParams.append('authToken', '')
  return url.href
}

/** Enough to find the same token again, and no way back to it. */
function fingerprintOf(tokenString: string): string {
  return hash('sha256', tokenString).slice(0, 16)
}

/** The same text for the same members in any order. */
function canonical(session: KybSession): string {
  return JSON.stringify(Object.entries(session).sort(([a], [b]) => (a < b ? -1 : 1)))
}
