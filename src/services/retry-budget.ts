const burst = 10
const perSuccess = 0.1

/** Lets one retry through for ten successes, and ten at once: in an outage retries stop instead of doubling the load. */
export function createRetryBudget() {
  let tokens = burst
  return {
    succeed(): void {
      tokens = Math.min(tokens + perSuccess, burst)
    },
    /** @returns whether a retry may be made; it is then counted */
    take(): boolean {
      if (tokens < 1) return false
      tokens -= 1
      return true
    },
  }
}

export type RetryBudget = ReturnType<typeof createRetryBudget>
