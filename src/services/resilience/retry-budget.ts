/** In successes, which stay whole numbers. */
const price = 10
const burst = 10 * price

/** Lets one retry through for ten successes, and ten at once: in an outage retries stop instead of doubling the load. */
export function createRetryBudget() {
  let successes = burst
  return {
    succeed(): void {
      successes = Math.min(successes + 1, burst)
    },
    /** @returns whether a retry may be made; it is then counted */
    take(): boolean {
      if (successes < price) return false
      successes -= price
      return true
    },
  }
}

export type RetryBudget = ReturnType<typeof createRetryBudget>
