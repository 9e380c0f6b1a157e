import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { Problem } from '../../problems.js'
import type { Bulkhead } from '../bulkhead.js'
import type { CircuitBreaker } from '../circuit-breaker.js'
import type { RetryBudget } from '../retry-budget.js'
import type { IdenfyClient } from './client.js'
import type { KybFormToken, KybFormTokenRequest } from './schemas.js'

/** A wait for more than this share of the deadline is left to the caller, who can do something else meanwhile. */
const affordableShare = 1 / 4
/** Spreads repetitions, so that a short hiccup does not bring them all back at once. */
const maxJitterMs = 100

const outages = new Set(['provider-unavailable', 'provider-timeout', 'provider-outcome-unknown'])

/** For the circuit breaker: iDenfy cannot be reached, fails, or does not answer. */
export function isOutage(error: unknown): boolean {
  return outages.has((error as Problem).code)
}

export interface ReliableClientOptions {
  readonly client: IdenfyClient
  readonly breaker: CircuitBreaker
  readonly bulkhead: Bulkhead
  readonly budget: RetryBudget
  /** The total deadline, waiting and a repetition included. */
  readonly timeoutMs: number
  /** Milliseconds of a clock that never goes back. */
  readonly monotonicNow: () => number
  /** An attempt that was made, with how it ended. */
  readonly onAttempt: (outcome: string, durationMs: number) => void
  /** A repetition, or one that the budget held back. */
  readonly onRetry: (reason: string, granted: boolean) => void
  readonly logger: Pick<Logger, 'warn'>
}

/**
 * iDenfy's API as far as it can be relied on: bounded in number and time, spared while it is down, and asked a
 * second time only where that cannot open a second verification.
 */
export function createReliableClient(options: ReliableClientOptions) {
  const { client, breaker, bulkhead, budget, timeoutMs, monotonicNow, onAttempt, onRetry, logger } = options

  function attempt(request: KybFormTokenRequest, deadline: number): Promise<KybFormToken> {
    // Asked before the queue too: while the circuit is open nobody should have to wait for that answer.
    breaker.check()
    return bulkhead.run(() =>
      breaker.run(async () => {
        const begin = monotonicNow()
        try {
          const token = await client.createKybToken(request, Math.max(deadline - begin, 1))
          onAttempt('success', monotonicNow() - begin)
          budget.succeed()
          return token
        } catch (error) {
          onAttempt((error as Problem).code, monotonicNow() - begin)
          throw error
        }
      }),
    )
  }

  return {
    /** @throws Problem `provider-*`, `kyb-session-conflict` or `overloaded` */
    async createKybToken(request: KybFormTokenRequest): Promise<KybFormToken> {
      const deadline = monotonicNow() + timeoutMs
      try {
        return await attempt(request, deadline)
      } catch (error) {
        const { safeToRepeat, diagnosis } = (error as Problem).options
        if (!safeToRepeat || safeToRepeat.afterMs > timeoutMs * affordableShare) throw error
        const granted = budget.take()
        onRetry(safeToRepeat.reason, granted)
        if (!granted) throw error
        logger.warn(
          { event: 'idenfy-retry', retryReason: safeToRepeat.reason, ...diagnosis, err: error },
          'retry',
        )
        await delay(safeToRepeat.afterMs + Math.random() * maxJitterMs)
        return attempt(request, deadline)
      }
    },
  }
}

export type ReliableClient = ReturnType<typeof createReliableClient>
