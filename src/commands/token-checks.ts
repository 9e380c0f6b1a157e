import type { Problem } from '../problems/problem.js'
import {
  foreignClaims,
  type InvalidTokenReason,
  maxTokenLength,
  refusedParameters,
  shown,
} from '../services/auth/access-token.js'
import type { AuthenticationSettings } from '../services/auth/authenticator.js'
import { createClaimReader, scopesOf } from '../services/auth/caller.js'
import type { IgnoredKey } from '../services/auth/key-set.js'

type CheckName =
  | 'form'
  | 'algorithm'
  | 'header parameters'
  | 'signing key'
  | 'signature'
  | 'required claims'
  | 'issuer'
  | 'audience'
  | 'times'
  | 'token type'
  | 'kind of token'
  | 'subject'
  | 'lifetime'
  | 'scope'
  | 'user'
  | 'company'

/** One step of the verification, as `explain` prints it. */
export interface TokenCheck {
  readonly check: CheckName
  readonly result: 'passed' | 'failed' | 'not reached'
  /** Of a failed check, as in the log. */
  readonly reason?: string
  /** The variable that sets what is expected. */
  readonly setting?: string
  readonly expected: string
  readonly received: string
}

/** Without `result` and `reason`. */
type Expectation = Omit<TokenCheck, 'result' | 'reason'>

export interface KeySetFindings {
  fault?: string
  ignored: readonly IgnoredKey[]
}

const maxShownKeys = 10
const requiredClaims = ['iss', 'aud', 'exp', 'sub']

/** The check that fails for each reason. A claim that is missing fails `required claims` instead. */
const checkOfReason: Readonly<Record<InvalidTokenReason, CheckName>> = {
  'too-long': 'form',
  'not-compact': 'form',
  encoding: 'form',
  header: 'form',
  claims: 'form',
  algorithm: 'algorithm',
  'key-id': 'header parameters',
  'header-parameter': 'header parameters',
  'unknown-key': 'signing key',
  'ambiguous-key': 'signing key',
  signature: 'signature',
  'claim-iss': 'issuer',
  'claim-aud': 'audience',
  'claim-iat': 'times',
  'claim-nbf': 'times',
  'claim-exp': 'times',
  expired: 'times',
  'token-type': 'token type',
  'not-an-access-token': 'kind of token',
  'claim-sub': 'subject',
  'issued-in-future': 'lifetime',
  lifetime: 'lifetime',
  'user-claim': 'user',
}

/**
 * Every check of an access token, in the order in which the service makes them.
 *
 * @param refusal why the service refuses the token; undefined if it accepts it
 * @param keySet what was received instead of a key set, and the keys of it that are not used
 * @param now wall clock, milliseconds since the epoch
 */
export function tokenChecks(
  token: string,
  settings: AuthenticationSettings,
  refusal: Problem | undefined,
  keySet: KeySetFindings,
  now: number,
): TokenCheck[] {
  const expectations = expectationsOf(token, settings, keySet, now)
  const failed = refusal && failedCheck(refusal, partOf(token, 1))
  const at =
    failed === undefined ? expectations.length : expectations.findIndex(({ check }) => check === failed)
  return expectations.map(({ check, ...expectation }, index) => ({
    check,
    result: index < at ? 'passed' : index === at ? 'failed' : 'not reached',
    ...(index === at && refusal && { reason: refusal.options.diagnosis?.reason?.toString() ?? refusal.code }),
    ...expectation,
  }))
}

function failedCheck({ code, options }: Problem, claims: Claims): CheckName {
  if (code === 'auth-keys-unavailable') return 'signing key'
  if (code === 'insufficient-scope') return 'scope'
  if (code === 'company-required' || code === 'company-not-allowed') return 'company'
  const reason = options.diagnosis?.reason
  if (code === 'identity-not-mappable') return reason === 'company-id' ? 'company' : 'user'
  const [, claim = ''] = /^claim-(\w+)$/.exec(String(reason)) ?? []
  if (requiredClaims.includes(claim) && claims[claim] === undefined) return 'required claims'
  return checkOfReason[reason as InvalidTokenReason]
}

type Claims = Readonly<Record<string, unknown>>

function expectationsOf(
  token: string,
  settings: AuthenticationSettings,
  { fault: keyFault, ignored }: KeySetFindings,
  now: number,
): Expectation[] {
  const header = partOf(token, 0)
  const claims = partOf(token, 1)
  const { exp, nbf, iat } = claims
  const {
    clockToleranceSeconds: tolerance,
    maxLifetimeSeconds,
    requiredScope,
    userClaim,
    companyClaim,
  } = settings
  const present = (names: readonly string[], object: Claims) =>
    names.filter((name) => Object.hasOwn(object, name)).join(', ') || 'none'
  const lifetime = Number(exp) - Number(iat ?? now / 1000)
  return [
    {
      check: 'form',
      expected: `a signed JWT: JSON in three parts of base64url, at most ${maxTokenLength} characters`,
      received: `${token.split('.').length} parts, ${token.length} characters`,
    },
    {
      check: 'algorithm',
      setting: 'AUTH_ALGORITHMS',
      expected: `one of ${settings.algorithms.join(', ')}`,
      received: shown(header.alg),
    },
    {
      check: 'header parameters',
      expected: `none of ${refusedParameters.join(', ')}, and a text as kid`,
      received: shown(Object.keys(header)) || 'none',
    },
    {
      check: 'signing key',
      setting: 'AUTH_JWKS_URL',
      expected: `a key of ${settings.jwksUrl.replace(/\?.*/, '')}`,
      received:
        keyFault ??
        `${header.kid === undefined ? 'no kid' : `kid ${shown(header.kid)}`}${ignoredText(ignored)}`,
    },
    { check: 'signature', expected: 'made with that key', received: 'compared with the key' },
    {
      check: 'required claims',
      expected: requiredClaims.join(', '),
      received: present(requiredClaims, claims),
    },
    { check: 'issuer', setting: 'AUTH_ISSUER', expected: settings.issuer, received: shown(claims.iss) },
    {
      check: 'audience',
      setting: 'AUTH_AUDIENCE',
      expected: settings.audience,
      received: shown(claims.aud),
    },
    {
      check: 'times',
      setting: 'AUTH_CLOCK_TOLERANCE_SECONDS',
      expected: `exp after and nbf before ${dateOf(now / 1000)}, with ${tolerance} seconds of tolerance`,
      received: `exp ${dateOf(exp)}, nbf ${dateOf(nbf)}, iat ${dateOf(iat)}`,
    },
    {
      check: 'token type',
      setting: 'AUTH_TOKEN_TYPES',
      expected: `one of ${settings.tokenTypes.join(', ')}`,
      received: header.typ === undefined ? 'none, which counts as JWT' : shown(header.typ),
    },
    {
      check: 'kind of token',
      expected: `no claim of ${foreignClaims.join(', ')}, token_use "access" or none, typ "Bearer" or none`,
      received: `${present([...foreignClaims, 'token_use', 'typ'], claims)}${kindOf(claims)}`,
    },
    {
      check: 'subject',
      expected: 'a text',
      received: typeof claims.sub === 'string' ? 'a text' : typeof claims.sub,
    },
    {
      check: 'lifetime',
      setting: 'AUTH_MAX_TOKEN_LIFETIME_SECONDS',
      expected: `at most ${maxLifetimeSeconds} seconds from iat to exp, and iat not in the future`,
      received: `${Math.round(lifetime)} seconds, iat ${dateOf(iat)}`,
    },
    {
      check: 'scope',
      setting: 'AUTH_REQUIRED_SCOPE',
      expected: requiredScope ?? 'any',
      received: shown(scopesOf(claims).filter((scope) => scope !== undefined)) || 'none',
    },
    {
      check: 'user',
      setting: 'AUTH_USER_CLAIM',
      expected: `the id of a user in ${userClaim}, and not the token of a service`,
      received: shown(createClaimReader(userClaim)(claims)),
    },
    {
      check: 'company',
      setting: 'AUTH_COMPANY_CLAIM',
      expected: `one company in ${companyClaim}, or several and one of them in --company`,
      received: shown(createClaimReader(companyClaim)(claims)),
    },
  ]
}

function kindOf({ token_use: use, typ }: Claims): string {
  return `${use === undefined ? '' : `; token_use ${shown(use)}`}${typ === undefined ? '' : `; typ ${shown(typ)}`}`
}

function ignoredText(ignored: readonly IgnoredKey[]): string {
  if (ignored.length === 0) return ''
  const keys = ignored.slice(0, maxShownKeys).map(({ kid, reason }) => `${shown(kid)} (${reason})`)
  return `; keys of the set that are not used: ${keys.join(', ')}`
}

/** Seconds since the epoch as a date. */
function dateOf(seconds: unknown): string {
  const date = new Date(Number(seconds) * 1000)
  return typeof seconds === 'number' && !Number.isNaN(date.getTime()) ? date.toISOString() : shown(seconds)
}

/** The header (0) or the claims (1), also of a token that is refused. Empty if they cannot be read. */
function partOf(token: string, index: 0 | 1): Claims {
  try {
    const value: unknown = JSON.parse(Buffer.from(token.split('.')[index] ?? '', 'base64url').toString())
    return typeof value === 'object' && value !== null ? (value as Claims) : {}
  } catch {
    return {}
  }
}
