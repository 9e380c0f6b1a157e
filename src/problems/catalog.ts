import { type Static, Type } from '@sinclair/typebox'

export const ProviderOutcome = Type.Union([Type.Literal('not-created'), Type.Literal('unknown')], {
  description: 'Was a verification perhaps opened?',
})
export type ProviderOutcome = Static<typeof ProviderOutcome>

export interface ProblemDefinition {
  readonly status: number
  readonly title: string
  /** May the same request succeed later without a change? */
  readonly retryable: boolean
  readonly retryAfterSeconds?: number
  /** Whether iDenfy may have opened a verification. A response with outcome `unknown` must not look retryable to a machine. */
  readonly outcome?: ProviderOutcome
  /** The `WWW-Authenticate` field (RFC 6750, section 3). */
  readonly challenge?: string
  /** What has happened, in Markdown: for the README, the OpenAPI document and the problem's own page. */
  readonly when: string
  /** What a front-end should do. */
  readonly advice: string
}

/**
 * What exactly is wrong, for codes that have several causes: the `detail` of the response, and its name as `reason` in
 * the log.
 */
export const detailTexts = {
  'query-string': 'The URL must not have a query string.',
  'url-encoding': 'The URL cannot be decoded.',
  'http-syntax': 'This is not valid HTTP.',
  'no-host': 'The Host field is missing.',
  'repeated-field': 'Host, Authorization, Content-Type, Content-Encoding and X-Company-Id may occur once.',
  'idempotency-key':
    'Idempotency-Key must be 1 to 64 characters out of A-Z a-z 0-9 . _ ~ + / = : - with or without double quotes.',
  'not-utf8': 'The body is not valid UTF-8.',
  'not-json': 'The body is not valid JSON.',
  'body-length': 'The body is not as long as Content-Length says.',
  'long-number': 'The body has a number of more than 15 digits.',
  'content-type': 'Content-Type must be application/json, in UTF-8.',
  'content-encoding': 'Content-Encoding is not supported.',
  'header-bytes': 'All header fields together must not exceed 16 KiB.',
  'header-count': 'There must be at most 64 header fields.',
  'user-limit': 'This user has started too many verifications in the last minute.',
  'company-limit': 'This company has started too many verifications in the last minute.',
  'request-limit': 'This user has sent too many requests in the last minute.',
  'address-limit': 'There were too many failed authentications from this address in the last minute.',
  'no-company': 'The access token names no company.',
  'company-not-listed': 'X-Company-Id names a company that the access token does not list.',
} as const
export type ProblemDetail = keyof typeof detailTexts

/** Every problem this service can answer with. The codes are part of the public contract. */
export const problems = {
  'malformed-request': {
    status: 400,
    title: 'The request is malformed',
    retryable: false,
    when: 'not parsable, not UTF-8, a query string, a bad `Idempotency-Key`, or ambiguous: two `Host`, `Authorization`, `Content-Type` or `X-Company-Id`. `detail` says which',
    advice: 'Fix what `detail` names.',
  },
  'validation-failed': {
    status: 400,
    title: 'The request body is not valid',
    retryable: false,
    when: 'the body breaks the schema; `errors` names every fault',
    advice: 'Mend what `errors` points to. The same body fails again.',
  },
  unauthenticated: {
    status: 401,
    title: 'Bearer credentials are required',
    retryable: false,
    challenge: 'Bearer realm="onboarding"',
    when: 'no bearer credentials',
    advice:
      'Send `Authorization: Bearer` with the access token for this API; if there is none, let the user sign in.',
  },
  'invalid-token': {
    status: 401,
    title: 'The access token is not valid',
    retryable: false,
    challenge: 'Bearer realm="onboarding", error="invalid_token"',
    when: 'any fault of the access token; the reason is in the log alone',
    advice:
      'Get a new access token without troubling the user, and repeat once. If that fails too, let the user sign in again.',
  },
  'insufficient-scope': {
    status: 403,
    title: 'The access token lacks the required scope',
    retryable: false,
    when: 'the access token lacks `AUTH_REQUIRED_SCOPE`',
    advice: 'Ask the identity provider for the scope when the user signs in.',
  },
  'company-not-allowed': {
    status: 403,
    title: 'The access token gives no access to this company',
    retryable: false,
    when: 'no company in the token, or `X-Company-Id` names one that the token does not list. `detail` says which',
    advice:
      'Show that this account has no access to the company. The identity provider lists the companies of a user.',
  },
  'company-required': {
    status: 403,
    title: 'The request must say which company it is for',
    retryable: false,
    when: 'the token lists several companies and the request has no `X-Company-Id`. `companyIds` lists them',
    advice: 'Let the user choose one of `companyIds` and send it as `X-Company-Id`, percent-encoded.',
  },
  'identity-not-mappable': {
    status: 403,
    title: 'The user or company id cannot be used for a verification',
    retryable: false,
    when: "the templates cannot express the user's or company's id: it is too long for iDenfy, or has characters outside `A-Z a-z 0-9 . _ ~ @ | + = -`. Also a token of a service, which has no user",
    advice:
      'The front-end cannot fix this. The operator sets `KYB_EXTERNAL_REF={userHash}` or `KYB_CLIENT_ID={companyHash}` together with `KYB_IDENTITY_KEY`: a hash is short and takes any id.',
  },
  'field-not-permitted': {
    status: 403,
    title: 'The request sets what the caller may not choose',
    retryable: false,
    when: 'a known property that policy does not let this caller set; `errors` names them',
    advice: 'Leave those properties out, or ask the operator to open them in the session policy.',
  },
  'preflight-refused': {
    status: 403,
    title: 'Pages of this origin may not call the service',
    retryable: false,
    when: 'a CORS preflight from an origin that `CORS_ORIGINS` does not have',
    advice: 'Tell the operator which origin your page has. The page itself only sees a network error.',
  },
  'not-found': {
    status: 404,
    title: 'There is nothing here',
    retryable: false,
    when: 'no such path',
    advice: 'Check the path: it has no slash at its end.',
  },
  'method-not-allowed': {
    status: 405,
    title: 'The method is not allowed here',
    retryable: false,
    when: 'another method than those in `Allow`',
    advice: 'Use one of the methods in `Allow`.',
  },
  'request-timeout': {
    status: 408,
    title: 'The request took too long to arrive',
    retryable: true,
    when: 'the request came too slowly',
    advice: 'Repeat the request, on a better connection if there is a choice.',
  },
  'kyb-session-conflict': {
    status: 409,
    title: 'A verification of this company is already in progress',
    retryable: true,
    when: 'iDenfy has an active session for this client',
    advice: 'Let the user finish the form that is open. Offer to try again later, not by itself.',
  },
  'idempotency-conflict': {
    status: 409,
    title: 'A request with this idempotency key is still in flight',
    retryable: true,
    retryAfterSeconds: 1,
    when: 'a request with this `Idempotency-Key` is still in flight',
    advice: 'Wait as `Retry-After` says and retry with the same key.',
  },
  'payload-too-large': {
    status: 413,
    title: 'The request body is too large',
    retryable: false,
    when: 'a body of more than 4 KiB',
    advice: 'Send less: no valid body is so long.',
  },
  'unsupported-media-type': {
    status: 415,
    title: 'The request body must be application/json',
    retryable: false,
    when: 'a body that is not `application/json` in UTF-8, or is encoded. `detail` says which',
    advice: 'Send `Content-Type: application/json`, or neither a body nor that field.',
  },
  'expectation-failed': {
    status: 417,
    title: 'The expectation cannot be met',
    retryable: false,
    when: 'an `Expect` other than `100-continue`',
    advice: 'Leave `Expect` out.',
  },
  'idempotency-mismatch': {
    status: 422,
    title: 'This idempotency key was used with another request',
    retryable: false,
    when: 'this `Idempotency-Key` came before, with another body',
    advice: 'Use a new key for every request that is not a retry.',
  },
  'rate-limited': {
    status: 429,
    title: 'Too many requests',
    retryable: true,
    when: 'too many new verifications of this user or company, too many requests of this user, or too many failed authentications of this address. `detail` says which',
    advice: 'Wait as `Retry-After` says. If it comes in ordinary use, look for a loop in the front-end.',
  },
  'header-too-large': {
    status: 431,
    title: 'The request headers are too large',
    retryable: false,
    when: 'more than 16 KiB of headers, or more than 64 of them',
    advice: 'Send fewer or shorter fields; cookies are not needed.',
  },
  'internal-error': {
    status: 500,
    title: 'The service failed',
    retryable: false,
    when: 'a fault of this service',
    advice: 'Show that something went wrong, with `requestId`, and tell the operator.',
  },
  'provider-rejected': {
    status: 502,
    title: 'The verification provider refused the service',
    retryable: false,
    outcome: 'not-created',
    when: 'iDenfy refused for a reason that the caller cannot change: credentials, funds, contract, configuration, or a certificate that is not trusted. The log has the class; page the on-call engineer',
    advice: 'Show that verification is not available just now, with `requestId`. The operator has to act.',
  },
  'provider-bad-response': {
    status: 502,
    title: 'The verification provider sent an unusable response',
    retryable: false,
    outcome: 'unknown',
    when: "iDenfy's response is not the token that was requested",
    advice: 'Show that verification is not available just now, with `requestId`. The operator has to look.',
  },
  'provider-outcome-unknown': {
    status: 502,
    title: 'It is not known whether a verification was opened',
    retryable: false,
    outcome: 'unknown',
    when: 'the connection broke after the request was sent, iDenfy failed with a 5xx, or the instance that sent the request is gone',
    advice:
      'Do not retry by machine. Let the user decide to try again, with a new `Idempotency-Key`: a verification may have been opened, and a second one may be.',
  },
  'provider-unavailable': {
    status: 503,
    title: 'The verification provider is unavailable',
    retryable: true,
    retryAfterSeconds: 5,
    outcome: 'not-created',
    when: 'iDenfy could not be reached in time, or requests are kept from it while it fails. Nothing was sent',
    advice: 'Wait as `Retry-After` says and retry with the same `Idempotency-Key`.',
  },
  'provider-rate-limited': {
    status: 503,
    title: 'The verification provider is limiting requests',
    retryable: true,
    retryAfterSeconds: 30,
    outcome: 'not-created',
    when: 'iDenfy limits the account',
    advice: 'Wait as `Retry-After` says and retry with the same `Idempotency-Key`.',
  },
  'auth-keys-unavailable': {
    status: 503,
    title: 'The keys to check access tokens are unavailable',
    retryable: true,
    retryAfterSeconds: 5,
    when: "the identity provider's signing keys, or the one that this token needs, could not be fetched",
    advice: 'Wait as `Retry-After` says and repeat. The user need not sign in again.',
  },
  'state-unavailable': {
    status: 503,
    title: 'The state that the instances share is unavailable',
    retryable: true,
    retryAfterSeconds: 1,
    when: 'Redis is unavailable, and without it this request could open a second verification. Nothing was sent; see `REDIS_REQUIRED`',
    advice: 'Wait as `Retry-After` says and retry with the same `Idempotency-Key`.',
  },
  overloaded: {
    status: 503,
    title: 'This instance is overloaded',
    retryable: true,
    retryAfterSeconds: 2,
    when: 'this instance cannot keep up',
    advice: 'Wait as `Retry-After` says and repeat.',
  },
  draining: {
    status: 503,
    title: 'This instance is shutting down',
    retryable: true,
    retryAfterSeconds: 1,
    when: 'this instance is shutting down',
    advice: 'Repeat on a new connection: another instance takes over.',
  },
  'provider-timeout': {
    status: 504,
    title: 'The verification provider did not respond in time',
    retryable: false,
    outcome: 'unknown',
    when: 'the request was sent to iDenfy, perhaps by another instance, and no response came in time',
    advice:
      'Do not retry by machine. Let the user decide to try again, with a new `Idempotency-Key`: a verification may have been opened, and a second one may be.',
  },
} as const satisfies Record<string, ProblemDefinition>

export type ProblemCode = keyof typeof problems

/** What a problem says about iDenfy: undefined if it says nothing. */
export function outcomeOf(code: ProblemCode): ProviderOutcome | undefined {
  const definition: ProblemDefinition = problems[code]
  return definition.outcome
}
