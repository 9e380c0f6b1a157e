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

t.test('where a verification may have been opened, it says so', async (t) => {
  for (const code of ['provider-timeout', 'provider-unavailable', 'provider-outcome-unknown'] as const) {
    const problem = new ServiceProblem(code, { outcome: 'unknown' }).toDetails('id')
    t.match(messageOf(problem).text, 'one form only', code)
  }
  t.notMatch(
    messageOf(new ServiceProblem('provider-timeout', { outcome: 'not-created' }).toDetails('id')).text,
    'one form only',
  )
})

t.test('no answer at all', async (t) => {
  t.match(messageOf(undefined), { title: 'You seem to be offline', action: 'try-again' })
})
