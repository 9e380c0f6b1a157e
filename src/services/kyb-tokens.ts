import { hash } from 'node:crypto'
import type { Logger } from 'pino'
import { Problem } from '../problems.js'
import type { Caller } from './caller.js'
import type { ClientIdentity, ClientIdentityMapper } from './client-identity.js'
import type { Flight, Flights } from './flights.js'
import type { ReliableClient } from './idenfy/reliable-client.js'
import type { KybFormToken, KybSession } from './idenfy/schemas.js'
import type { SessionPolicy } from './session-policy.js'

/** A token is not handed out again when it is so close to its end that the user could not open the form. */
const minReplayLifeMs = 30_000
const maxIdempotencyMs = 60 * 60_000

export interface KybTokensOptions {
  /** The policy as it is now. */
  readonly policy: () => SessionPolicy
  readonly identify: ClientIdentityMapper
  readonly idenfy: ReliableClient
  readonly flights: Flights<MintedToken>
  /** Tells callers of one deployment from those of others that share its state. */
  readonly scope: readonly string[]
  /** For so long a token answers equal requests. */
  readonly replayMs: number
  /** Where a user opens the form. */
  readonly uiUrl: string
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number
  /** Told of every token that is handed out. */
  readonly onIssued: (origin: TokenOrigin) => void
}

/** Whether iDenfy was asked for this request, for an equal one at the same time or before, or for the same key. */
export type TokenOrigin = 'minted' | 'shared' | 'replayed' | 'idempotent'

/** What replicas share about a token. */
export interface MintedToken {
  readonly identity: ClientIdentity
  readonly token: KybFormToken
  readonly mintedAtMs: number
  /** Of the request that came with an idempotency key. */
  readonly fingerprint?: string
}

/** What the front-end gets. `redirectUrl` and `tokenString` are bearer credentials for the whole form. */
export type IssuedKybToken = ReturnType<SessionPolicy['readableBy']> &
  Required<Pick<KybFormToken, 'tokenString' | 'expiration' | 'tokenType' | 'isValid' | 'companyId'>> &
  ClientIdentity & { readonly expiresIn: number; readonly redirectUrl: string }

export interface IssueRequest {
  readonly caller: Caller
  /** What the caller wishes for, already valid by its schema. */
  readonly wishes: KybSession
  readonly requestId: string
  /** The request's, so that its lines belong together. */
  readonly log: Pick<Logger, 'info'>
  readonly idempotencyKey?: string | undefined
}

/** Issues KYB tokens: policy, identity, at most one POST. */
export function createKybTokens(options: KybTokensOptions) {
  const { policy, identify, idenfy, flights, scope, replayMs, uiUrl, now, onIssued } = options

  const formUrl = startOfFormUrl(uiUrl)
  const lifeMs = ({ token }: MintedToken): number => Date.parse(token.expiration) - now()
  const ageMs = ({ mintedAtMs }: MintedToken): number => now() - mintedAtMs
  const shared: Flight<MintedToken> = {
    whenBusy: 'join',
    lifetimeMs: (minted) => Math.min(replayMs - ageMs(minted), lifeMs(minted) - minReplayLifeMs),
  }
  const idempotent: Flight<MintedToken> = {
    whenBusy: 'refuse',
    lifetimeMs: (minted) => Math.min(maxIdempotencyMs - ageMs(minted), lifeMs(minted)),
  }

  /** Equal requests share a POST and, for a while, its token. */
  function mint({ caller, wishes, requestId }: IssueRequest) {
    const session = policy().sessionFor(caller.companyId, wishes)
    const identity = identify(caller, requestId)
    const key = keyOf('session', ...scope, caller.companyId, caller.userId, canonical(session))
    return flights.run(
      key,
      async () => {
        const token = await idenfy.createKybToken({ tokenType: 'FORM', ...identity, ...session })
        return { identity, token, mintedAtMs: now() }
      },
      shared,
    )
  }

  /** https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/ */
  async function mintOnce(request: IssueRequest, idempotencyKey: string) {
    const { caller, wishes } = request
    const key = keyOf('idempotency', ...scope, caller.companyId, caller.userId, idempotencyKey)
    const fingerprint = keyOf('request', canonical(wishes))
    let origin: TokenOrigin = 'idempotent'
    const landing = await flights.run(
      key,
      async () => {
        const minted = await mint(request)
        origin = originOf[minted.origin]
        return { ...minted.value, fingerprint }
      },
      idempotent,
    )
    if (landing.value.fingerprint !== fingerprint) throw new Problem('idempotency-mismatch')
    return { minted: landing.value, origin }
  }

  async function mintShared(request: IssueRequest) {
    const { origin, value } = await mint(request)
    return { minted: value, origin: originOf[origin] }
  }

  return {
    /**
     * @throws Problem `field-not-permitted`, `identity-not-mappable`, `idempotency-*`, `kyb-session-conflict`,
     *   `overloaded` or `provider-*`
     */
    async issue(request: IssueRequest): Promise<{ token: IssuedKybToken; origin: TokenOrigin }> {
      const { idempotencyKey } = request
      const { minted, origin } = await (idempotencyKey === undefined
        ? mintShared(request)
        : mintOnce(request, idempotencyKey))
      const { identity, token } = minted
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
          expiresIn: Math.floor(lifeMs(minted) / 1000),
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
