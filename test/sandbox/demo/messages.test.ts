import t from 'tap'
import { messageOf, problemCodes } from '../../../sandbox/demo/messages.js'
import { Problem as ServiceProblem } from '../../../src/problems/problem.js'

const jargon = /iDenfy|token|provider|request body|header|JSON|KYB|server|\d{3}/i

t.test('every problem is told in plain words', async (t) => {
  const retried: ReturnType<ServiceProblem['toDetails']>[] = []
  for (const code of problemCodes) {
    const problem = new ServiceProblem(code).toDetails('id')
    const { title, text, action } = messageOf(problem)
    t.notMatch(`${title} ${text}`, jargon, code)
    t.match(text, /[.!]$/)
    if (action === 'try-again') retried.push(problem)
  }
  t.not(retried.length, 0)
  for (const { code, retryable } of retried) t.ok(retryable, `${code} can be tried again`)
})

t.test('an unknown outcome is told as such and offers a new start, never a retry', async (t) => {
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
    t.match(messageOf({ ...problem, outcome: 'unknown' }), { action: 'start-new' }, 'whatever the code')
  }
})

t.test('no answer at all', async (t) => {
  t.match(messageOf(undefined), { title: 'You seem to be offline', action: 'try-again' })
})
