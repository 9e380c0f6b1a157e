import { hash } from 'node:crypto'
import type { Logger } from 'pino'
import type { Clock } from '../../clock.js'
import { Abandoned } from '../../problems/abandoned.js'
import { outcomeOf, type ProblemCode } from '../../problems/catalog.js'
import { Problem } from '../../problems/problem.js'
import type { Caller } from '../auth/caller.js'
import type { Call, ResilientClient } from '../idenfy/resilient-client.js'
import type { KybFormToken, KybSession } from '../idenfy/schemas.js'
import type { RunOptions, SingleFlight } from '../single-flight/single-flight.js'
import type { ClientIdentity, ClientIdentityMapper } from './client-identity.js'
import type { SessionPolicy } from './session-policy.js'

/** A token that expires sooner is not handed out again: the user could not open the form in time. */
const minReplayLifeMs = 30_000
const maxIdempotencyMs = 60 * 60_000
/**
 * How far a wall clock may move ahead of the monotonic one during a request. If it moves further, the machine was
 * suspended. A lease lasts that much longer than its request.
 */
const maxClockStepMs = 2_000
/** Covers the automatic retries of browsers, gateways and service meshes after an unknown outcome. */
const unknownOutcomeMs = 5_000

export interface TokenIssuerOptions {
  /** Returns the current policy. */
  readonly policy: () => SessionPolicy
  readonly identify: ClientIdentityMapper
  readonly idenfy: ResilientClient
  readonly singleFlight: SingleFlight<Result>
  /** Separates this deployment from others that use the same Redis. */
  readonly scope: readonly string[]
  /** How long identical requests get the same token. */
  readonly replayMs: number
  /** Which requests are refused while the replica-wide store is unavailable: none, those with a key, or all. */
  readonly sharedStateRequiredFor: 'none' | 'keys' | 'all'
  /** How long a request may take in total. */
  readonly timeoutMs: number
  /** Where a user opens the form. */
  readonly uiUrl: string
  readonly clock: Clock
  /** Called for every token that is handed out. */
  readonly onIssued: (origin: TokenOrigin) => void
}

type Deadline = Pick<Call, 'deadlineMs' | 'wasSuspended'>

/** Whether iDenfy was called for this request, for an identical one in flight or before it, or for the same key. */
export type TokenOrigin = 'minted' | 'shared' | 'replayed' | 'idempotent'

/** What replicas share about a request that was sent to iDenfy. */
export type Result = (MintedToken | UnknownOutcome) & {
  /** Hash of the request that came with an idempotency key. */
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
  readonly requestedSession: KybSession
  readonly requestId: string
  /** The logger of the request, which adds its id to each line. */
  readonly log: Pick<Logger, 'info' | 'warn'>
  readonly idempotencyKey?: string | undefined
  /** How long the service has worked on this request before. It counts against the deadline. */
  readonly waitedMs: number
  /** Whether the client has disconnected. */
  readonly isAbandoned: () => boolean
  /** Called before a POST is sent for this request. Throws to prevent it. */
  readonly admit: () => Promise<void>
}

/**
 * Issues KYB tokens: applies policy and identity, and sends at most one POST for identical requests, and for each
 * `Idempotency-Key`.
 */
export function createTokenIssuer(options: TokenIssuerOptions) {
  const { policy, identify, idenfy, singleFlight, scope, replayMs, uiUrl, onIssued } = options
  const { sharedStateRequiredFor, timeoutMs } = options
  const { now, monotonicNow } = options.clock

  const formUrl = startOfFormUrl(uiUrl)
  // A clock that was set back must not make a token live longer.
  const ageMs = ({ mintedAtMs }: MintedToken): number => Math.max(now() - mintedAtMs, 0)
  const lifeMs = ({ token, mintedAtMs }: MintedToken): number => {
    const endMs = Date.parse(token.expiration)
    return Math.min(endMs - now(), endMs - mintedAtMs)
  }
  const unknownResult = (reason: 'late' | 'owner-lost'): UnknownOutcome => ({
    failure: reason === 'late' ? 'provider-timeout' : 'provider-outcome-unknown',
  })

  /** Identical requests share a POST and, for a while, its result. */
  function sessionOptions(request: IssueRequest, deadlineMs: number): RunOptions<Result> {
    return {
      mode: 'share',
      deadlineMs,
      isAbandoned: request.isAbandoned,
      mayRunAlone: sharedStateRequiredFor !== 'all',
      lifetimeMs: (result) =>
        isUnknown(result)
          ? unknownOutcomeMs
          : Math.min(replayMs - ageMs(result), lifeMs(result) - minReplayLifeMs),
      // A new key is a new decision of the user, who knows that the outcome is unknown.
      accepts: (result) => !isUnknown(result) || request.idempotencyKey === undefined,
      unknownResult,
    }
  }

  /** Under one key at most one POST is sent, whatever its outcome. */
  function idempotencyOptions(
    request: IssueRequest,
    deadlineMs: number,
    fingerprint: string,
  ): RunOptions<Result> {
    return {
      mode: 'once',
      deadlineMs,
      isAbandoned: request.isAbandoned,
      mayRunAlone: sharedStateRequiredFor === 'none',
      lifetimeMs: (result) =>
        isUnknown(result) ? maxIdempotencyMs : Math.min(maxIdempotencyMs - ageMs(result), lifeMs(result)),
      accepts: () => true,
      unknownResult: (reason) => ({ ...unknownResult(reason), fingerprint }),
    }
  }

  /** @returns the result, with the error of this very request if it made the call: it says more than the result */
  async function mint(request: IssueRequest, deadline: Deadline) {
    const { caller, requestedSession, requestId, admit, log } = request
    const session = policy().sessionFor(caller.companyId, requestedSession)
    const identity = identify(caller, requestId)
    const key = keyOf('session', ...scope, caller.companyId, caller.userId, canonical(session))
    let error: unknown
    const result = await singleFlight.run(
      key,
      async (isAbandoned) => {
        const body = { tokenType: 'FORM' as const, ...identity, ...session }
        try {
          const token = await idenfy.createKybToken(body, { ...deadline, isAbandoned, admit, log })
          return { identity, token, mintedAtMs: now() }
        } catch (cause) {
          if (isNotCreated(cause)) throw cause
          error = cause
          return { failure: cause instanceof Problem ? cause.code : 'internal-error' }
        }
      },
      sessionOptions(request, deadline.deadlineMs),
    )
    return { ...result, error }
  }

  /** https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/ */
  async function mintOnce(request: IssueRequest, deadline: Deadline, idempotencyKey: string) {
    const { caller, requestedSession } = request
    const key = keyOf('idempotency', ...scope, caller.companyId, caller.userId, idempotencyKey)
    const fingerprint = keyOf('request', canonical(requestedSession))
    let own: Awaited<ReturnType<typeof mint>> | undefined
    const { value } = await singleFlight.run(
      key,
      async (isAbandoned) => {
        own = await mint({ ...request, isAbandoned }, deadline)
        return { ...own.value, fingerprint }
      },
      idempotencyOptions(request, deadline.deadlineMs, fingerprint),
    )
    if (value.fingerprint !== fingerprint) throw new Problem('idempotency-mismatch')
    const origin: TokenOrigin = own ? originOf[own.origin] : 'idempotent'
    return { value, origin, error: own?.error }
  }

  async function mintShared(request: IssueRequest, deadline: Deadline) {
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
      const wallAheadMs = now() - monotonicNow()
      const deadline: Deadline = {
        deadlineMs: monotonicNow() + timeoutMs - request.waitedMs,
        wasSuspended: () => now() - monotonicNow() - wallAheadMs > maxClockStepMs,
      }
      const { value, origin, error } = await (idempotencyKey === undefined
        ? mintShared(request, deadline)
        : mintOnce(request, deadline, idempotencyKey))
      if (isUnknown(value)) throw error ?? sharedFailure(value, origin)
      const remainingMs = lifeMs(value)
      // By the clock of this replica. The clock of the replica that stored it may differ.
      if (remainingMs <= 0) throw expired()
      const { identity, token } = value
      onIssued(origin)
      // Three of iDenfy's webhooks contain only its own id of the company. This line links it to the caller.
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
          // Calculated here, because the clock of a phone may be wrong.
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

export type TokenIssuer = ReturnType<typeof createTokenIssuer>

function isUnknown(result: Result): result is UnknownOutcome & Result {
  return 'failure' in result
}

/** Whether it is certain that no verification was opened. An error that is not a Problem leaves it uncertain. */
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

const originOf = { own: 'minted', shared: 'shared', stored: 'replayed' } as const

/** Hashed, because the tools of Redis show keys, and those must not show who requested what. JSON keeps the parts apart. */
function keyOf(...parts: readonly string[]): string {
  return `onboarding-bff:${hash('sha256', JSON.stringify(parts), 'base64url')}`
}

/** The URL of the form up to the token, which comes last. Built once, because building a URL is expensive. */
function startOfFormUrl(uiUrl: string): string {
  const url = new URL(uiUrl)
  url.searchParams.delete('authToken')
  url.searchParams.append('authToken', '')
  return url.href
}

/** Identifies a token in the log without revealing it. */
function fingerprintOf(tokenString: string): string {
  return hash('sha256', tokenString).slice(0, 16)
}

/** The same text for the same members in any order. */
function canonical(session: KybSession): string {
  return JSON.stringify(Object.entries(session).sort(([a], [b]) => (a < b ? -1 : 1)))
}
