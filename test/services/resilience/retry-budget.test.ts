import t from 'tap'
import { createRetryBudget } from '../../../src/services/resilience/retry-budget.js'

const isAllowed = (budget: ReturnType<typeof createRetryBudget>, times: number) =>
  Array.from({ length: times }, () => budget.take())

t.test('ten retries are allowed at once, and no more', async (t) => {
  t.strictSame(isAllowed(createRetryBudget(), 12), [...Array(10).fill(true), false, false])
})

t.test('ten successful calls earn one retry', async (t) => {
  const budget = createRetryBudget()
  isAllowed(budget, 10)
  for (let call = 0; call < 9; call++) budget.succeed()
  t.equal(budget.take(), false, 'nine are not enough')
  budget.succeed()
  t.strictSame(isAllowed(budget, 2), [true, false])
})

t.test('successful calls save up for ten retries at most', async (t) => {
  const budget = createRetryBudget()
  for (let call = 0; call < 1000; call++) budget.succeed()
  t.strictSame(isAllowed(budget, 11), [...Array(10).fill(true), false])
})
