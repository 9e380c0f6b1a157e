import type { JWTPayload } from 'jose'
import { Problem } from '../../problems/problem.js'
import { invalidToken, shown } from './access-token.js'
import { isIdText } from './id-grammar.js'

/** The user and the company of a request. Both ids match the id grammar. Templates check them further. */
export interface Caller {
  readonly userId: string
  readonly companyId: string
}

export interface CallerOptions {
  /** Claim names, taken literally. A name that begins with `/` is a JSON Pointer into the claims (RFC 6901). */
  readonly userClaim: string
  readonly companyClaim: string
  readonly requiredScope?: string | undefined
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * Derives the caller from verified claims. The company comes only from the company claim. `requestedCompanyId` (the
 * `X-Company-Id` header) can only select one of the companies in that claim.
 *
 * @throws Problem `insufficient-scope`, `invalid-token`, `company-required`, `company-not-allowed`, `identity-not-mappable`
 */
export function createCallerResolver({ userClaim, companyClaim, requiredScope }: CallerOptions) {
  const readUser = createClaimReader(userClaim)
  const readCompany = createClaimReader(companyClaim)

  return (claims: JWTPayload, requestedCompanyId?: string): Caller => {
    const scopes = scopesOf(claims)
    if (requiredScope !== undefined && !scopes.includes(requiredScope)) {
      throw new Problem('insufficient-scope', {
        diagnosis: {
          expected: requiredScope,
          received: shown(scopes.filter((scope) => scope !== undefined)),
        },
        headers: {
          'www-authenticate': `Bearer realm="onboarding", error="insufficient_scope", scope="${requiredScope}"`,
        },
      })
    }
    if (isServiceToken(claims)) throw notMappable('no-user')
    const userId = idOf(readUser(claims))
    if (userId === undefined || userId.trim() === '')
      throw invalidToken('user-claim', undefined, { claim: userClaim })
    const companyId = pickCompany(companyIdsOf(readCompany(claims), companyClaim), requestedCompanyId)
    return toCaller(userId, companyId)
  }
}

/** @throws Problem `identity-not-mappable` */
export function toCaller(userId: string, companyId: string): Caller {
  if (!isIdText(userId)) throw notMappable('user-id')
  if (!isIdText(companyId)) throw notMappable('company-id')
  return { userId, companyId }
}

export type CallerResolver = ReturnType<typeof createCallerResolver>

/** Some providers write ids as numbers. Above the safe integers, different ids would become the same number. */
function idOf(value: unknown): string | undefined {
  if (Number.isSafeInteger(value)) return String(value)
  return typeof value === 'string' ? value : undefined
}

function companyIdsOf(claim: unknown, claimName: string): [string, ...string[]] {
  const members = Array.isArray(claim) ? claim : [claim]
  const [first, ...others] = new Set(members.map(idOf).map((id) => (id?.trim() === '' ? undefined : id)))
  if (first === undefined || others.includes(undefined)) {
    throw new Problem('company-not-allowed', { detail: 'no-company', diagnosis: { claim: claimName } })
  }
  return [first, ...(others as string[])]
}

function pickCompany(listed: readonly [string, ...string[]], requested: string | undefined): string {
  if (requested === undefined) {
    if (listed.length > 1) throw new Problem('company-required', { companyIds: listed })
    return listed[0]
  }
  const [picked, another] = new Set(spellingsOf(requested).filter((spelling) => listed.includes(spelling)))
  // A value that could mean two companies selects neither.
  if (picked === undefined || another !== undefined) {
    throw new Problem('company-not-allowed', { detail: 'company-not-listed' })
  }
  return picked
}

/** Possible meanings of a header field: its text, its bytes as UTF-8 (Node reads Latin-1), or percent-encoded UTF-8. */
function spellingsOf(field: string): string[] {
  const decoders = [
    () => field,
    () => utf8.decode(Buffer.from(field, 'latin1')),
    () => decodeURIComponent(field),
  ]
  return decoders.flatMap((decode) => {
    try {
      return [decode()]
    } catch {
      return []
    }
  })
}

function notMappable(reason: string): Problem {
  return new Problem('identity-not-mappable', { diagnosis: { reason } })
}

/** A token of the client credentials grant. By RFC 9068 its subject is the client. Auth0 and Entra mark it in a claim. */
function isServiceToken({ sub, client_id, azp, gty, idtyp }: JWTPayload): boolean {
  const isClient = sub !== undefined && [client_id, azp].includes(sub)
  return isClient || gty === 'client-credentials' || idtyp === 'app'
}

/** OAuth's `scope` is a space-separated string (RFC 8693). Entra and Okta use `scp`, Okta as an array. */
export function scopesOf(claims: JWTPayload): unknown[] {
  return [claims.scope, claims.scp].flatMap((value) => (typeof value === 'string' ? value.split(' ') : value))
}

/** Reads a claim by its name, or by a JSON Pointer. */
export function createClaimReader(name: string): (claims: JWTPayload) => unknown {
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
