import type { Problem } from './kyb-service.js'

/** What an applicant reads. No codes, no blame, and always what comes next. */
export interface Message {
  readonly title: string
  readonly text: string
  /** `try-again` is a retry with the same key, `start-new` a new click although one may have opened a verification. */
  readonly action: 'try-again' | 'start-new' | 'sign-in' | 'contact' | 'none'
}

const tryAgain = (title: string, text: string): Message => ({ title, text, action: 'try-again' })
const signIn = (title: string, text: string): Message => ({ title, text, action: 'sign-in' })
const contact = (title: string, text: string): Message => ({ title, text, action: 'contact' })

const ourFault = contact(
  'Something went wrong on our side',
  'You did nothing wrong. Our team can look it up with the reference below.',
)
const unavailable = contact(
  'Verification is not available just now',
  'Our team has to look into this. Nothing that you entered is lost; please come back later.',
)
const busy = tryAgain(
  'We are busy just now',
  'Many people are verifying at the moment. It should work shortly.',
)
/** For every failure with `outcome: "unknown"`. */
const perhapsOpened: Message = {
  title: 'We do not know whether your verification was opened',
  text: 'Our verification partner did not confirm it. If you start a new one, there may be two: fill in one form only.',
  action: 'start-new',
}

const messages: Record<Problem['code'], Message> = {
  'malformed-request': ourFault,
  'validation-failed': ourFault,
  unauthenticated: signIn('Please sign in', 'You are not signed in any more.'),
  'invalid-token': signIn('Please sign in again', 'You have been signed out for your security.'),
  'insufficient-scope': contact(
    'You may not start a verification',
    'Ask the person who manages your company’s account to give you this right.',
  ),
  'company-not-allowed': contact(
    'You have no access to this company',
    'Choose another company, or ask the person who manages its account to add you.',
  ),
  'company-required': contact('Which company is it for?', 'Choose one of your companies and try again.'),
  'identity-not-mappable': ourFault,
  'field-not-permitted': ourFault,
  'preflight-refused': ourFault,
  'not-found': ourFault,
  'method-not-allowed': ourFault,
  'request-timeout': tryAgain(
    'Your connection is slow',
    'The request did not get through. Please try again.',
  ),
  'kyb-session-conflict': {
    title: 'Your company is being verified already',
    text: 'Someone has opened the form. Finish it there; if it was closed, try again in a while.',
    action: 'try-again',
  },
  'idempotency-conflict': tryAgain('Still working on it', 'Your first request is being handled. One moment.'),
  'payload-too-large': ourFault,
  'unsupported-media-type': ourFault,
  'expectation-failed': ourFault,
  'idempotency-mismatch': ourFault,
  'rate-limited': tryAgain(
    'One moment, please',
    'There were many tries in a short time. Please wait a little.',
  ),
  'header-too-large': ourFault,
  'internal-error': ourFault,
  'provider-rejected': unavailable,
  'provider-bad-response': perhapsOpened,
  'provider-outcome-unknown': perhapsOpened,
  'provider-unavailable': tryAgain(
    'Our verification partner cannot be reached',
    'This mostly passes within a minute. Nothing was started.',
  ),
  'provider-rate-limited': busy,
  'auth-keys-unavailable': busy,
  'state-unavailable': tryAgain(
    'This does not work just now',
    'Nothing was started. It should work again shortly.',
  ),
  overloaded: busy,
  draining: busy,
  'provider-timeout': perhapsOpened,
}

export const problemCodes = Object.keys(messages) as Problem['code'][]

/** Without a problem the service did not answer at all. */
export function messageOf(problem: Problem | undefined): Message {
  if (!problem) {
    return tryAgain(
      'You seem to be offline',
      'We could not reach our service. Check your connection and try again.',
    )
  }
  return problem.outcome === 'unknown' ? perhapsOpened : messages[problem.code]
}
