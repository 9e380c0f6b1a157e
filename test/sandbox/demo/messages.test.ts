import t from 'tap'
import { messageOf, problemCodes } from '../../../sandbox/demo/messages.js'
import { Problem as ServiceProblem } from '../../../src/problems/problem.js'

const jargon = /iDenfy|token|provider|request body|header|JSON|KYB|server|\d{3}/i

t.test('every problem has a text in plain words', async (t) => {
  const retried: ReturnType<ServiceProblem['toDetails']>[] = []
  for (const code of problemCodes) {
    const problem = new ServiceProblem(code).toDetails('id')
    const { title, text, action } = messageOf(problem)
    t.notMatch(`${title} ${text}`, jargon, code)
    t.match(text, /[.!]$/)
    if (action === 'try-again') retried.push(problem)
  }
  t.not(retried.length, 0)
  for (const { code, retryable } of retried) t.ok(retryable, `${code} can be retried`)
})

t.test('a text says that nothing was started only if the service is certain', async (t) => {
  const certain = problemCodes.filter((code) =>
    messageOf(new ServiceProblem(code).toDetails('id')).text.toLowerCase().includes('nothing was started'),
  )
  const notCreated = problemCodes.filter(
    (code) => new ServiceProblem(code).toDetails('id').outcome === 'not-created',
  )
  t.strictSame(certain, notCreated)
})

t.test('a text asks to sign in only if the service refused the sign-in', async (t) => {
  const codes = problemCodes.filter(
    (code) => messageOf(new ServiceProblem(code).toDetails('id')).action === 'sign-in',
  )
  t.strictSame(codes, ['unauthenticated', 'invalid-token'])
  for (const code of codes) t.equal(new ServiceProblem(code).toDetails('id').status, 401)
})

t.test('an unknown outcome says so and offers a new start, never a retry', async (t) => {
  const unknown = problemCodes.filter(
    (code) => new ServiceProblem(code).toDetails('id').outcome === 'unknown',
  )
  t.strictSame(unknown, ['provider-bad-response', 'provider-outcome-unknown', 'provider-timeout'])
  for (const code of problemCodes) {
    const { outcome, ...problem } = new ServiceProblem(code).toDetails('id')
    const isUnknown = outcome === 'unknown'
    const message = messageOf(problem)
    t.equal(message.action === 'start-new', isUnknown, code)
    t.equal(message.text.includes('one form only'), isUnknown)
    t.match(messageOf({ ...problem, outcome: 'unknown' }), { action: 'start-new' }, 'for any code')
  }
})

t.test('a code that the page does not know has a text', async (t) => {
  const problem = { ...new ServiceProblem('internal-error').toDetails('id'), code: 'new-code' as 'draining' }
  t.strictSame(messageOf(problem), messageOf(new ServiceProblem('internal-error').toDetails('id')))
})

t.test('without a response, the text depends on the network of the device', async (t) => {
  t.match(messageOf(undefined), { title: 'We got no response', action: 'try-again' })
  t.match(messageOf(undefined, true), { title: 'We got no response', action: 'try-again' })
  t.match(messageOf(undefined, false), { title: 'You seem to be offline', action: 'try-again' })
})
