import fc from 'fast-check'
import t from 'tap'
import { Problem } from '../../src/problems/problem.js'
import { checkTemplate, createClientIdentity } from '../../src/services/kyb/client-identity.js'

const numRuns = Number(process.env.FUZZ_RUNS ?? 1000)

const id = fc.string({
  // A few that only a hash takes.
  unit: fc.constantFrom(...'aZ0._~@|+=-:/ éŁ😀'),
  minLength: 1,
  maxLength: 4,
})
const literal = fc.string({ unit: fc.constantFrom(...'a-:/ '), maxLength: 3 })
const placeholder = fc.constantFrom('{companyId}', '{userId}', '{companyHash}', '{userHash}')

/** Templates as they come; those that the service refuses do not count. */
const template = fc
  .tuple(literal, placeholder, literal, fc.option(placeholder, { nil: '' }), literal)
  .map((parts) => parts.join(''))
  .filter((text) => {
    try {
      checkTemplate(text, true)
      return true
    } catch (error) {
      if (!/separator|printable ASCII/.test(String(error))) throw error
      return false
    }
  })

t.test('two callers share an identity only if the templates leave out what tells them apart', async (t) => {
  let compared = 0
  fc.assert(
    fc.property(
      template,
      template,
      id,
      id,
      id,
      id,
      (clientId, externalRef, companyA, userA, companyB, userB) => {
        const identify = createClientIdentity({ clientId, externalRef }, 'k'.repeat(32))
        const named = (caller: { companyId: string; userId: string }) => [
          /\{company/.test(clientId + externalRef) && caller.companyId,
          /\{user/.test(clientId + externalRef) && caller.userId,
        ]
        const identityOf = (caller: { companyId: string; userId: string }) => {
          try {
            return JSON.stringify(identify(caller, 'r'))
          } catch (error) {
            if (!(error instanceof Problem)) throw error
            // Refused, so it is shared with no one.
            return undefined
          }
        }
        const a = { companyId: companyA, userId: userA }
        const b = { companyId: companyB, userId: userB }
        const [ofA, ofB] = [identityOf(a), identityOf(b)]
        if (ofA === undefined || ofB === undefined) return true
        compared += 1
        return (ofA === ofB) === (JSON.stringify(named(a)) === JSON.stringify(named(b)))
      },
    ),
    { numRuns },
  )
  t.ok(compared > numRuns / 20, `${compared} of ${numRuns} pairs are compared`)
})
