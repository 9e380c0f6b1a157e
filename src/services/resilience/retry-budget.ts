/** The cost of a retry, in successful calls. */
const retryCost = 10
const maxBudget = 10 * retryCost

/** A retry budget allows one retry for ten successful calls, and at most ten at once. In an outage retries stop and do not double the load. */
export function createRetryBudget() {
  let budget = maxBudget
  return {
    succeed(): void {
      budget = Math.min(budget + 1, maxBudget)
    },
    /** @returns whether a retry is allowed. If so, it is charged */
    take(): boolean {
      if (budget < retryCost) return false
      budget -= retryCost
      return true
    },
  }
}

export type RetryBudget = ReturnType<typeof createRetryBudget>
