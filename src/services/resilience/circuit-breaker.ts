import type { Clock } from '../../clock.js'
import { Problem } from '../../problems/problem.js'

const maxOutagesInARow = 5
const minCalls = 20
const windowMs = 30_000
const bucketMs = 3_000
const openMs = 5_000

export interface CircuitBreakerOptions {
  /** What a failure says about the provider: it is down, it is up, or neither. */
  readonly classify: (error: unknown) => 'down' | 'up' | 'nothing'
  readonly clock: Clock
}

/**
 * A circuit breaker refuses calls while the provider is down. It opens after five outages in a row, or if half of at least 20 calls in 30
 * seconds were outages. Then it is half-open every five seconds: one call goes through as a probe.
 *
 * For the libraries that were considered, see docs/decisions.
 */
export function createCircuitBreaker({ classify, clock }: CircuitBreakerOptions) {
  let buckets: { readonly index: number; calls: number; outages: number }[] = []
  /** Without calls that began before the last success: they say nothing new. */
  let outagesInARow = 0
  let lastSuccessBeganAt = Number.NEGATIVE_INFINITY
  let openUntil: number | undefined
  let isProbing = false
  /** Increases with every opening and closing. A call that began in an earlier generation is not counted. */
  let generation = 0

  function count(outage: boolean, beganAt: number): void {
    const index = Math.floor(clock.monotonicNow() / bucketMs)
    const current = buckets.at(-1)
    const bucket = current?.index === index ? current : { index, calls: 0, outages: 0 }
    if (bucket !== current) {
      buckets = [...buckets.filter((old) => old.index > index - windowMs / bucketMs), bucket]
    }
    bucket.calls += 1
    bucket.outages += outage ? 1 : 0
    if (!outage) {
      outagesInARow = 0
      lastSuccessBeganAt = Math.max(lastSuccessBeganAt, beganAt)
    } else if (beganAt >= lastSuccessBeganAt) outagesInARow += 1
  }

  function shouldOpen(): boolean {
    const calls = buckets.reduce((sum, bucket) => sum + bucket.calls, 0)
    const outages = buckets.reduce((sum, bucket) => sum + bucket.outages, 0)
    return outagesInARow >= maxOutagesInARow || (calls >= minCalls && outages * 2 >= calls)
  }

  function settle(
    says: 'down' | 'up' | 'nothing',
    { isProbe, begunIn, beganAt }: { isProbe: boolean; begunIn: number; beganAt: number },
  ): void {
    const isOutage = says === 'down'
    if (isProbe) isProbing = false
    if (says === 'nothing' || begunIn !== generation) return
    if (isProbe) {
      buckets = []
      outagesInARow = 0
      openUntil = isOutage ? clock.monotonicNow() + openMs : undefined
      generation += 1
    } else {
      count(isOutage, beganAt)
      if (isOutage && shouldOpen()) {
        openUntil = clock.monotonicNow() + openMs
        generation += 1
      }
    }
  }

  /** @throws Problem `provider-unavailable` while the circuit is open */
  function check(): void {
    if (openUntil === undefined) return
    const waitMs = openUntil - clock.monotonicNow()
    if (waitMs <= 0 && !isProbing) return
    throw new Problem('provider-unavailable', {
      retryAfterSeconds: Math.max(Math.ceil(waitMs / 1000), 1),
      diagnosis: { reason: 'circuit-open' },
    })
  }

  return {
    check,
    /** @throws as {@link check}, or what `work` throws */
    async run<T>(work: () => Promise<T>): Promise<T> {
      check()
      const call = { isProbe: openUntil !== undefined, begunIn: generation, beganAt: clock.monotonicNow() }
      if (call.isProbe) isProbing = true
      try {
        const result = await work()
        settle('up', call)
        return result
      } catch (error) {
        settle(classify(error), call)
        throw error
      }
    },
    /** Whether it refuses calls now. After the open time the next call goes through as a probe. */
    isOpen: (): boolean => openUntil !== undefined && (isProbing || clock.monotonicNow() < openUntil),
  }
}

export type CircuitBreaker = ReturnType<typeof createCircuitBreaker>
