import type { Caller } from './caller.js'
import type { ClientIdentity, ClientIdentityMapper } from './client-identity.js'
import type { IdenfyClient } from './idenfy/client.js'
import type { KybFormToken, KybSession } from './idenfy/schemas.js'
import type { SessionPolicy } from './session-policy.js'

export interface KybTokensOptions {
  readonly policy: SessionPolicy
  readonly identify: ClientIdentityMapper
  readonly idenfy: IdenfyClient
  /** Where a user opens the form. */
  readonly uiUrl: string
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number
}

/** What the front-end gets. `redirectUrl` and `tokenString` are bearer credentials for the whole form. */
export type IssuedKybToken = ReturnType<SessionPolicy['readableBy']> &
  Required<Pick<KybFormToken, 'tokenString' | 'expiration' | 'tokenType' | 'isValid' | 'companyId'>> &
  ClientIdentity & { readonly expiresIn: number; readonly redirectUrl: string }

/** Issues KYB tokens: policy, identity, one POST. */
export function createKybTokens({ policy, identify, idenfy, uiUrl, now }: KybTokensOptions) {
  return {
    /**
     * @param request what the caller wishes for, already valid by its schema
     * @throws Problem `field-not-permitted`, `identity-not-mappable`, `kyb-session-conflict` or `provider-*`
     */
    async issue(caller: Caller, request: KybSession, requestId: string): Promise<IssuedKybToken> {
      const session = policy.sessionFor(caller.companyId, request)
      const identity = identify(caller, requestId)
      const token = await idenfy.createKybToken({ tokenType: 'FORM', ...identity, ...session })
      const redirectUrl = new URL(uiUrl)
      redirectUrl.searchParams.set('authToken', token.tokenString)
      return {
        tokenType: 'FORM',
        tokenString: token.tokenString,
        expiration: token.expiration,
        // By this clock, because a phone's may be wrong.
        expiresIn: Math.floor((Date.parse(token.expiration) - now()) / 1000),
        isValid: true,
        companyId: token.companyId ?? null,
        ...identity,
        redirectUrl: redirectUrl.href,
        ...policy.readableBy(caller.companyId, token),
      }
    },
  }
}

export type KybTokens = ReturnType<typeof createKybTokens>
