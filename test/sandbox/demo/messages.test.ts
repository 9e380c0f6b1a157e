import t from 'tap'
import { Problem as ServiceProblem } from '../../../src/problems.js'
import { messageOf, problemCodes } from '../../../src/sandbox/demo/messages.js'

const jargon = /iDenfy|token|provider|request body|header|JSON|KYB|server|\d{3}/i

t.test('every problem is told in plain words', async (t) => {
  for (const code of problemCodes) {
    const problem = new ServiceProblem(code).toDetails('id')
    const { title, text, action } = messageOf(problem)
    t.notMatch(`${title} ${text}`, jargon, code)
    t.match(text, /[.!]$/)
    if (action === 'try-again') t.ok(problem.retryable, `${code} can be tried again`)
  }
})

t.test('an unknown outcome is told as such and offers a new start, never a retry', async (t) => {
  for (const code of ['provider-timeout', 'provider-bad-response', 'provider-outcome-unknown'] as const) {
    const { outcome: _, ...problem } = new ServiceProblem(code).toDetails('id')
    for (const told of [problem, { ...problem, outcome: 'unknown' as const }]) {
      t.match(messageOf(told), { text: /one form only/, action: 'start-new' }, code)
    }
  }
  for (const code of ['provider-unavailable', 'provider-rate-limited', 'provider-rejected'] as const) {
    const problem = new ServiceProblem(code, { outcome: 'not-created' }).toDetails('id')
    const { title, text, action } = messageOf(problem)
    t.notMatch(`${title} ${text}`, /do not know|one form only/, code)
    t.not(action, 'start-new')
  }
})

t.test('no answer at all', async (t) => {
  t.match(messageOf(undefined), { title: 'You seem to be offline', action: 'try-again' })
})
