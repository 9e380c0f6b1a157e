import fc from 'fast-check'
import t from 'tap'
import { checkTemplate, createClientIdentity } from '../../src/services/client-identity.js'

const numRuns = Number(process.env.FUZZ_RUNS ?? 1000)

const id = fc.string({
  unit: fc.constantFrom(...'aZ0._~@|+=-'),
  minLength: 1,
  maxLength: 4,
})
const literal = fc.string({ unit: fc.constantFrom(...'a-:/ '), maxLength: 3 })
const placeholder = fc.constantFrom('{companyId}', '{userId}')

/** Templates as they come; those that the service refuses do not count. */
const template = fc
  .tuple(literal, placeholder, literal, fc.option(placeholder, { nil: '' }), literal)
  .map((parts) => parts.join(''))
  .filter((text) => {
    try {
      checkTemplate(text, false)
      return true
    } catch {
      return false
    }
  })

t.test(
  'API1-3 two callers share an identity only if the templates leave out what tells them apart',
  async (t) => {
    fc.assert(
      fc.property(
        template,
        template,
        id,
        id,
        id,
        id,
        (clientId, externalRef, companyA, userA, companyB, userB) => {
          const identify = createClientIdentity({ clientId, externalRef })
          const named = (caller: { companyId: string; userId: string }) => [
            /companyId/.test(clientId + externalRef) && caller.companyId,
            /userId/.test(clientId + externalRef) && caller.userId,
          ]
          const a = { companyId: companyA, userId: userA }
          const b = { companyId: companyB, userId: userB }
          const same = JSON.stringify(identify(a, 'r')) === JSON.stringify(identify(b, 'r'))
          return same === (JSON.stringify(named(a)) === JSON.stringify(named(b)))
        },
      ),
      { numRuns },
    )
    t.pass(`${numRuns} pairs`)
  },
)
