import { type Static, Type } from '@sinclair/typebox'

export const ProviderOutcome = Type.Union([Type.Literal('not-created'), Type.Literal('unknown')], {
  description: 'Whether a verification may have been opened',
})
export type ProviderOutcome = Static<typeof ProviderOutcome>

export interface ProblemDefinition {
  readonly status: number
  readonly title: string
  /** May the same request succeed later without a change? */
  readonly retryable: boolean
  readonly retryAfterSeconds?: number
  /** Whether iDenfy may have opened a verification. A response with outcome `unknown` must not look retryable. */
  readonly outcome?: ProviderOutcome
  /** The `WWW-Authenticate` field (RFC 6750, section 3). */
  readonly challenge?: string
  /** When it occurs, in Markdown: for docs/errors.md, the OpenAPI document and the problem's page. */
  readonly when: string
  /** What a front-end should do. */
  readonly advice: string
}

/**
 * The exact cause, for codes that have several. The text is the `detail` of the response. Its name is the `reason` in the
 * log.
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

/** Every problem this service can respond with. The codes are part of the public contract. */
export const problems = {
  'malformed-request': {
    status: 400,
    title: 'The request is malformed',
    retryable: false,
    when: 'the request cannot be parsed, is not UTF-8, has a query string or an invalid `Idempotency-Key`, or is ambiguous (for example two `Authorization` headers). `detail` says which',
    advice: 'Fix the cause that `detail` names.',
  },
  'validation-failed': {
    status: 400,
    title: 'The request body is not valid',
    retryable: false,
    when: 'a property of the body is unknown, has a wrong value, or conflicts with the flow. `errors` lists every fault',
    advice: 'Fix the properties that `errors` points to. The same body will fail again.',
  },
  unauthenticated: {
    status: 401,
    title: 'Bearer credentials are required',
    retryable: false,
    challenge: 'Bearer realm="onboarding"',
    when: 'the request has no bearer token',
    advice:
      'Send `Authorization: Bearer` with the access token for this API. If there is none, let the user sign in.',
  },
  'invalid-token': {
    status: 401,
    title: 'The access token is not valid',
    retryable: false,
    challenge: 'Bearer realm="onboarding", error="invalid_token"',
    when: 'the access token is not accepted. The reason is only in the log',
    advice:
      'Get a new access token in the background and retry once. If that fails too, let the user sign in again.',
  },
  'insufficient-scope': {
    status: 403,
    title: 'The access token lacks the required scope',
    retryable: false,
    when: 'the access token does not have the scope in `AUTH_REQUIRED_SCOPE`',
    advice: 'Request the scope from the identity provider when the user signs in.',
  },
  'company-not-allowed': {
    status: 403,
    title: 'The access token gives no access to this company',
    retryable: false,
    when: 'the token has no company, or `X-Company-Id` names a company that the token does not list. `detail` says which',
    advice:
      'Show that this account has no access to the company. The companies of a user are set at the identity provider.',
  },
  'company-required': {
    status: 403,
    title: 'The request must say which company it is for',
    retryable: false,
    when: 'the token lists several companies and the request has no `X-Company-Id`. `companyIds` lists them',
    advice: 'Let the user choose one of `companyIds`. Send it percent-encoded as `X-Company-Id`.',
  },
  'identity-not-mappable': {
    status: 403,
    title: 'The user or company id cannot be used for a verification',
    retryable: false,
    when: 'the id of the user or the company is too long for iDenfy, or has characters other than `A-Z a-z 0-9 . _ ~ @ | + = -`. Also for the token of a service, which has no user',
    advice:
      'The front-end cannot fix this. The operator can set `KYB_EXTERNAL_REF={userHash}` or `KYB_CLIENT_ID={companyHash}`, with `KYB_IDENTITY_KEY`. A hash is short and works for any id.',
  },
  'field-not-permitted': {
    status: 403,
    title: 'The request sets a property that the caller may not set',
    retryable: false,
    when: 'the policy does not let this caller set a property, or set it to this value. `errors` lists them',
    advice: 'Omit these properties, or ask the operator to allow them in the session policy.',
  },
  'preflight-refused': {
    status: 403,
    title: 'Pages of this origin may not call the service',
    retryable: false,
    when: 'a CORS preflight comes from an origin that is not in `CORS_ORIGINS`',
    advice: 'Tell the operator the origin of your page. The page itself sees only a network error.',
  },
  'not-found': {
    status: 404,
    title: 'There is no such path',
    retryable: false,
    when: 'the path does not exist',
    advice: 'Check the path. It does not end with a slash.',
  },
  'method-not-allowed': {
    status: 405,
    title: 'The method is not allowed for this path',
    retryable: false,
    when: 'the path does not support this method',
    advice: 'Use one of the methods in `Allow`.',
  },
  'request-timeout': {
    status: 408,
    title: 'The request was sent too slowly',
    retryable: true,
    when: 'the request was not complete in time',
    advice: 'Do not retry automatically. Show a button that retries with the same `Idempotency-Key`.',
  },
  'kyb-session-conflict': {
    status: 409,
    title: 'A verification of this company is already in progress',
    retryable: true,
    when: 'iDenfy already has an active session for this client',
    advice: 'Let the user finish the open form. Offer a retry later, but do not retry automatically.',
  },
  'idempotency-conflict': {
    status: 409,
    title: 'A request with this idempotency key is still in flight',
    retryable: true,
    retryAfterSeconds: 1,
    when: 'another request with this `Idempotency-Key` has no result yet',
    advice: 'Wait as `Retry-After` says and retry with the same key.',
  },
  'payload-too-large': {
    status: 413,
    title: 'The request body is too large',
    retryable: false,
    when: 'the body is larger than 4 KiB',
    advice: 'Send a smaller body. No valid body is that large.',
  },
  'unsupported-media-type': {
    status: 415,
    title: 'The request body must be application/json',
    retryable: false,
    when: 'the body is not `application/json` in UTF-8, or is compressed. `detail` says which',
    advice: 'Send `Content-Type: application/json`, or no body and no `Content-Type`.',
  },
  'expectation-failed': {
    status: 417,
    title: 'The expectation is not supported',
    retryable: false,
    when: '`Expect` has another value than `100-continue`',
    advice: 'Omit `Expect`.',
  },
  'idempotency-mismatch': {
    status: 422,
    title: 'This idempotency key was used with another request',
    retryable: false,
    when: 'an earlier request with this `Idempotency-Key` had another body',
    advice: 'Use a new key for every request that is not a retry.',
  },
  'rate-limited': {
    status: 429,
    title: 'Too many requests',
    retryable: true,
    when: 'there were too many new verifications of this user or company, requests of this user, or failed authentications from this address. `detail` says which',
    advice: 'Wait as `Retry-After` says. If it happens in normal use, look for a loop in the front-end.',
  },
  'header-too-large': {
    status: 431,
    title: 'The request headers are too large',
    retryable: false,
    when: 'the headers are larger than 16 KiB, or there are more than 64',
    advice: 'Send fewer or shorter headers. Cookies are not needed.',
  },
  'internal-error': {
    status: 500,
    title: 'The service failed',
    retryable: false,
    when: 'this service has a fault',
    advice: 'Show an error message with `requestId`, and tell the operator.',
  },
  'provider-rejected': {
    status: 502,
    title: 'The verification provider refused the service',
    retryable: false,
    outcome: 'not-created',
    when: 'iDenfy refused the request for a reason that the caller cannot change: credentials, funds, contract, configuration, or a certificate that is not trusted. The log has the class',
    advice: 'Show that verification is not available now, with `requestId`. The operator must act.',
  },
  'provider-bad-response': {
    status: 502,
    title: 'The verification provider sent an unusable response',
    retryable: false,
    outcome: 'unknown',
    when: "iDenfy's response is not the requested token",
    advice:
      'Do not retry automatically. A verification may exist. Show `requestId`, and tell the operator. If the user tries again, send a new `Idempotency-Key`.',
  },
  'provider-outcome-unknown': {
    status: 502,
    title: 'It is unknown whether a verification was opened',
    retryable: false,
    outcome: 'unknown',
    when: 'the connection was lost after the request was sent, or iDenfy responded with a 5xx status. Or the instance that sent the request is gone',
    advice:
      'Do not retry automatically. Let the user decide to try again, with a new `Idempotency-Key`. A verification may exist, and a second one may be opened.',
  },
  'provider-unavailable': {
    status: 503,
    title: 'The verification provider is unavailable',
    retryable: true,
    retryAfterSeconds: 5,
    outcome: 'not-created',
    when: 'iDenfy could not be reached in time, or the circuit breaker is open. Nothing was sent',
    advice: 'Wait as `Retry-After` says and retry with the same `Idempotency-Key`.',
  },
  'provider-rate-limited': {
    status: 503,
    title: 'The verification provider is limiting requests',
    retryable: true,
    retryAfterSeconds: 30,
    outcome: 'not-created',
    when: 'iDenfy limits the requests of the account',
    advice: 'Wait as `Retry-After` says and retry with the same `Idempotency-Key`.',
  },
  'auth-keys-unavailable': {
    status: 503,
    title: 'The keys to check access tokens are unavailable',
    retryable: true,
    retryAfterSeconds: 5,
    when: "the identity provider's signing keys, or the key of this token, could not be fetched",
    advice:
      'Wait as `Retry-After` says and retry with the same `Idempotency-Key`. The user does not need to sign in again.',
  },
  'state-unavailable': {
    status: 503,
    title: 'The shared state of the instances is unavailable',
    retryable: true,
    retryAfterSeconds: 1,
    when: 'Redis is unavailable, and without it this request could open a second verification. Nothing was sent. See `REDIS_REQUIRED`',
    advice: 'Wait as `Retry-After` says and retry with the same `Idempotency-Key`.',
  },
  overloaded: {
    status: 503,
    title: 'This instance is overloaded',
    retryable: true,
    retryAfterSeconds: 2,
    when: 'this instance has too many requests',
    advice: 'Wait as `Retry-After` says and retry with the same `Idempotency-Key`.',
  },
  draining: {
    status: 503,
    title: 'This instance is shutting down',
    retryable: true,
    retryAfterSeconds: 1,
    when: 'this instance is shutting down',
    advice: 'Retry on a new connection. Another instance will respond.',
  },
  'provider-timeout': {
    status: 504,
    title: 'The verification provider did not respond in time',
    retryable: false,
    outcome: 'unknown',
    when: 'the request was sent to iDenfy, by this or another instance, and there was no response in time',
    advice:
      'Do not retry automatically. Let the user decide to try again, with a new `Idempotency-Key`. A verification may exist, and a second one may be opened.',
  },
} as const satisfies Record<string, ProblemDefinition>

export type ProblemCode = keyof typeof problems

/** What a problem says about iDenfy: undefined if it says nothing. */
export function outcomeOf(code: ProblemCode): ProviderOutcome | undefined {
  const definition: ProblemDefinition = problems[code]
  return definition.outcome
}
