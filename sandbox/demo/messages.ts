import type { Problem } from './kyb-service.js'

/** A text for applicants. It has no error codes, does not blame the user, and says what to do next. */
export interface Message {
  readonly title: string
  readonly text: string
  /**
   * `try-again` retries with the same idempotency key. `start-new` sends a new key, although the request before it may
   * have opened a verification.
   */
  readonly action: 'try-again' | 'start-new' | 'sign-in' | 'contact' | 'none'
}

const tryAgain = (title: string, text: string): Message => ({ title, text, action: 'try-again' })
const signIn = (title: string, text: string): Message => ({ title, text, action: 'sign-in' })
const contact = (title: string, text: string): Message => ({ title, text, action: 'contact' })

const internalError = contact(
  'Something went wrong on our side',
  'You did nothing wrong. Our team can look into it with the reference below.',
)
const unavailable = contact(
  'Verification is not available right now',
  'Our team has to look into this. Nothing that you entered is lost. Please come back later.',
)
const busy = tryAgain(
  'We are busy right now',
  'Many people are verifying at the moment. It should work shortly.',
)
/** For every failure with `outcome: "unknown"`. */
const outcomeUnknown: Message = {
  title: 'We do not know whether your verification was opened',
  text: 'Our verification partner did not confirm it. If you start a new one, there may be two. Please fill in one form only.',
  action: 'start-new',
}

const messages: Record<Problem['code'], Message> = {
  'malformed-request': internalError,
  'validation-failed': internalError,
  unauthenticated: signIn('Please sign in', 'You are no longer signed in.'),
  'invalid-token': signIn('Please sign in again', 'You have been signed out for your security.'),
  'insufficient-scope': contact(
    'You are not allowed to start a verification',
    'Ask the person who manages your company’s account to give you this right.',
  ),
  'company-not-allowed': contact(
    'You have no access to this company',
    'Choose another company, or ask the person who manages its account to add you.',
  ),
  'company-required': contact('Which company is it for?', 'Choose one of your companies and try again.'),
  'identity-not-mappable': internalError,
  'field-not-permitted': internalError,
  'preflight-refused': internalError,
  'not-found': internalError,
  'method-not-allowed': internalError,
  'request-timeout': tryAgain(
    'Your connection is slow',
    'The request did not get through. Please try again.',
  ),
  'kyb-session-conflict': {
    title: 'Your company is already being verified',
    text: 'Someone has opened the form. Please finish it there. If it was closed, try again later.',
    action: 'try-again',
  },
  'idempotency-conflict': tryAgain(
    'Still working on it',
    'We are still processing your first request. One moment, please.',
  ),
  'payload-too-large': internalError,
  'unsupported-media-type': internalError,
  'expectation-failed': internalError,
  'idempotency-mismatch': internalError,
  'rate-limited': tryAgain(
    'One moment, please',
    'There were too many attempts in a short time. Please wait a little.',
  ),
  'header-too-large': internalError,
  'internal-error': internalError,
  'provider-rejected': unavailable,
  'provider-bad-response': outcomeUnknown,
  'provider-outcome-unknown': outcomeUnknown,
  'provider-unavailable': tryAgain(
    'Our verification partner cannot be reached',
    'This usually passes within a minute. Nothing was started.',
  ),
  'provider-rate-limited': busy,
  'auth-keys-unavailable': busy,
  'state-unavailable': tryAgain(
    'This does not work right now',
    'Nothing was started. It should work again shortly.',
  ),
  overloaded: busy,
  draining: busy,
  'provider-timeout': outcomeUnknown,
}

export const problemCodes = Object.keys(messages) as Problem['code'][]

/** Without a problem there was no response from the service. */
export function messageOf(problem: Problem | undefined): Message {
  if (!problem) {
    return tryAgain(
      'You seem to be offline',
      'We could not reach our service. Check your connection and try again.',
    )
  }
  return problem.outcome === 'unknown' ? outcomeUnknown : messages[problem.code]
}
