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
/** For every failure with `outcome: "unknown"`. */
const outcomeUnknown: Message = {
  title: 'We do not know whether your verification was opened',
  text: 'We got no clear confirmation from our verification partner. If you start a new one, there may be two. Please fill in one form only.',
  action: 'start-new',
}

/**
 * Each text is true for every cause of its code. Only failures with `outcome: "not-created"` say that nothing was started: for
 * the others, an earlier try with the same key may have opened a verification.
 */
const messages: Record<Problem['code'], Message> = {
  'malformed-request': internalError,
  'validation-failed': internalError,
  unauthenticated: signIn('Please sign in', 'You have to sign in before you can start a verification.'),
  'invalid-token': signIn('Please sign in again', 'We could not confirm your sign-in.'),
  'insufficient-scope': contact(
    'You are not allowed to start a verification',
    'Your sign-in does not include this right. Ask the person who manages your company’s account, or contact us.',
  ),
  'company-not-allowed': contact(
    'Your account is not linked to this company',
    'Ask the person who manages the company’s account to add you, or choose another company.',
  ),
  'company-required': contact('Which company is it for?', 'Choose one of your companies and try again.'),
  'identity-not-mappable': internalError,
  'field-not-permitted': internalError,
  'preflight-refused': internalError,
  'not-found': internalError,
  'method-not-allowed': internalError,
  'request-timeout': tryAgain(
    'That took too long',
    'Your request did not reach us completely. Please try again.',
  ),
  'kyb-session-conflict': tryAgain(
    'A verification is already open',
    'Please finish the form that is already open. If that is not possible, try again later.',
  ),
  'idempotency-conflict': tryAgain(
    'Still working on it',
    'We are still processing your first request. One moment, please.',
  ),
  'payload-too-large': internalError,
  'unsupported-media-type': internalError,
  'expectation-failed': internalError,
  'idempotency-mismatch': internalError,
  'rate-limited': tryAgain(
    'Too many attempts',
    'There were too many attempts in a short time. Please wait before you try again.',
  ),
  'header-too-large': internalError,
  'internal-error': internalError,
  'provider-rejected': contact(
    'Verification is not available right now',
    'Nothing was started. Our team has to look into this. Please come back later.',
  ),
  'provider-bad-response': outcomeUnknown,
  'provider-outcome-unknown': outcomeUnknown,
  'provider-unavailable': tryAgain(
    'We cannot start a verification right now',
    'Your request did not reach our verification partner, so nothing was started. Please try again in a moment.',
  ),
  'provider-rate-limited': tryAgain(
    'Our verification partner asks us to wait',
    'It limits how many requests it takes from us. Nothing was started. Please try again later.',
  ),
  'auth-keys-unavailable': tryAgain(
    'We cannot check your sign-in right now',
    'You do not have to sign in again. Please try again in a moment.',
  ),
  'state-unavailable': tryAgain(
    'We cannot start a verification right now',
    'A part of our service is not available. Please try again in a moment.',
  ),
  overloaded: tryAgain(
    'We are busy right now',
    'Our service has more work than it can handle. Please try again in a moment.',
  ),
  draining: tryAgain(
    'Please try again',
    'The part of our service that got your request is shutting down. Please try again in a moment.',
  ),
  'provider-timeout': outcomeUnknown,
}

export const problemCodes = Object.keys(messages) as Problem['code'][]

/**
 * @param problem undefined if there was no response from the service
 * @param isOnline whether the device has a network connection
 */
export function messageOf(problem: Problem | undefined, isOnline = true): Message {
  if (!problem) {
    return isOnline
      ? tryAgain('We got no response', 'Our service did not respond. Please try again.')
      : tryAgain('You seem to be offline', 'Check your connection and try again.')
  }
  // A newer service may have codes that this page does not know.
  return problem.outcome === 'unknown' ? outcomeUnknown : (messages[problem.code] ?? internalError)
}
