import type { JWTPayload } from 'jose'
import { Problem } from '../problems.js'
import { invalidToken } from './access-token.js'

/** Who asks, and for which company. Both ids keep to the id grammar, so they are safe to log and to build on. */
export interface Caller {
  readonly userId: string
  readonly companyId: string
}

export interface CallerOptions {
  /** Claim names, taken literally; one that begins with `/` is a JSON Pointer into the claims (RFC 6901). */
  readonly userClaim: string
  readonly companyClaim: string
  readonly requiredScope?: string | undefined
}

/** The characters of an internal id, as the inside of a character class. `:` and `/` are left to separate ids. */
export const idCharacters = 'A-Za-z0-9._~@|+=\\-'
const idGrammar = new RegExp(`^[${idCharacters}]{1,200}$`)

/**
 * Derives the caller from verified claims. The company comes from the company claim alone;
 * `requestedCompanyId` (the `X-Company-Id` header) can only pick among those it lists.
 *
 * @throws Problem `insufficient-scope`, `invalid-token`, `company-not-allowed`, `identity-not-mappable`
 */
export function createCallerResolver({ userClaim, companyClaim, requiredScope }: CallerOptions) {
  const readUser = claimReader(userClaim)
  const readCompany = claimReader(companyClaim)

  return (claims: JWTPayload, requestedCompanyId?: string): Caller => {
    if (requiredScope !== undefined && !scopesOf(claims).includes(requiredScope)) {
      throw new Problem('insufficient-scope', {
        headers: { 'www-authenticate': `Bearer error="insufficient_scope", scope="${requiredScope}"` },
      })
    }
    if (isServiceToken(claims)) throw notMappable('no-user')
    const userId = readUser(claims)
    if (typeof userId !== 'string' || userId === '') {
      throw invalidToken('user-claim')
    }
    const companyId = pickCompany(readCompany(claims), requestedCompanyId)
    return toCaller(userId, companyId)
  }
}

/** @throws Problem `identity-not-mappable` */
export function toCaller(userId: string, companyId: string): Caller {
  if (!idGrammar.test(userId)) throw notMappable('user-id')
  if (!idGrammar.test(companyId)) throw notMappable('company-id')
  return { userId, companyId }
}

export type CallerResolver = ReturnType<typeof createCallerResolver>

function pickCompany(claim: unknown, requested: string | undefined): string {
  const listed = new Set(Array.isArray(claim) ? claim : [claim])
  for (const id of listed) {
    if (typeof id !== 'string' || id.trim() === '') throw notAllowed('company-claim')
  }
  const [only] = listed
  if (only === undefined) throw notAllowed('company-claim')
  if (requested === undefined) {
    if (listed.size > 1) throw notAllowed('company-not-picked')
    return only
  }
  if (!listed.has(requested)) throw notAllowed('company-not-listed')
  return requested
}

function notAllowed(reason: string): Problem {
  return new Problem('company-not-allowed', { diagnosis: { reason } })
}

function notMappable(reason: string): Problem {
  return new Problem('identity-not-mappable', { diagnosis: { reason } })
}

/** A token of the client credentials grant: RFC 9068 gives it the client for a subject, Auth0 and Entra mark it. */
function isServiceToken({ sub, client_id, azp, gty, idtyp }: JWTPayload): boolean {
  const isClient = sub !== undefined && [client_id, azp].includes(sub)
  return isClient || gty === 'client-credentials' || idtyp === 'app'
}

/** OAuth's `scope` is a space-separated string (RFC 8693); Entra and Okta use `scp`, the latter as an array. */
function scopesOf(claims: JWTPayload): unknown[] {
  return [claims.scope, claims.scp].flatMap((value) => (typeof value === 'string' ? value.split(' ') : value))
}

function claimReader(name: string): (claims: JWTPayload) => unknown {
  const path = name.startsWith('/')
    ? name
        .slice(1)
        .split('/')
        .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'))
    : [name]
  return (claims) => path.reduce<unknown>(ownMember, claims)
}

function ownMember(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, name)
    ? (value as Record<string, unknown>)[name]
    : undefined
}
