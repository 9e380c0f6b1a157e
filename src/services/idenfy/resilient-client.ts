import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'
import { Abandoned } from '../../problems/abandoned.js'
import type { ProblemCode } from '../../problems/catalog.js'
import { Problem, type ProblemOptions } from '../../problems/problem.js'
import type { Bulkhead } from '../resilience/bulkhead.js'
import type { CircuitBreaker } from '../resilience/circuit-breaker.js'
import type { RetryBudget } from '../resilience/retry-budget.js'
import type { IdenfyClient } from './client.js'
import type { KybFormToken, KybFormTokenRequest } from './schemas.js'

/** A POST is sent only while this share of the total deadline is left for it. Otherwise its outcome would often be unknown. */
const minPostShare = 1 / 4
/** A longer wait is left to the caller, who can do something else meanwhile. */
const maxRetryDelayShare = 1 / 4
/** Spreads retries, so that a short failure does not bring them all back at once. */
const maxJitterMs = 100
/** Until a call begins. */
const maxQueueWaitMs = 500

const outages = new Set(['provider-unavailable', 'provider-timeout', 'provider-outcome-unknown'])

/** For the circuit breaker: what a failed call says about iDenfy. */
export function classifyFailure(error: unknown): 'down' | 'up' | 'nothing' {
  if (!(error instanceof Problem)) return 'nothing'
  return outages.has(error.code) ? 'down' : 'up'
}

export interface ReliableClientOptions {
  readonly client: IdenfyClient
  readonly breaker: CircuitBreaker
  readonly bulkhead: Bulkhead
  readonly budget: RetryBudget
  /** The total deadline of a request, as a duration. */
  readonly timeoutMs: number
  /** Milliseconds of a clock that never goes back. */
  readonly monotonicNow: () => number
  /** Called after each attempt, with how it ended. */
  readonly onAttempt: (outcome: ProblemCode | 'success', durationMs: number, failureClass?: string) => void
  /** Called for each retry, and for each that the budget held back. */
  readonly onRetry: (reason: string, granted: boolean) => void
}

export interface Call {
  /** When the response must be there, in milliseconds of the monotonic clock. Waiting and a retry count. */
  readonly deadline: number
  /** Whether no one waits for the response any more. */
  readonly isAbandoned: () => boolean
  /** Called once, when a POST is about to be sent. Throws to prevent it. */
  readonly admit: () => Promise<void>
  /** The request's, so that its lines belong together. */
  readonly log: Pick<Logger, 'warn'>
}

/**
 * iDenfy's API as far as it can be relied on: bounded in number and time, spared while it is down, and called a
 * second time only where that cannot open a second verification.
 */
export function createReliableClient(options: ReliableClientOptions) {
  const { client, breaker, bulkhead, budget, timeoutMs, monotonicNow, onAttempt, onRetry } = options
  const minPostMs = timeoutMs * minPostShare

  function attempt(request: KybFormTokenRequest, call: Call): Promise<KybFormToken> {
    const sendBefore = call.deadline - minPostMs
    /** After every wait, and before the next one. What will not be sent must not be counted either. */
    function check(): void {
      breaker.check()
      if (monotonicNow() >= sendBefore) throw noTimeLeft()
    }
    check()
    return bulkhead.run(
      async () => {
        if (call.isAbandoned()) throw new Abandoned()
        check()
        await call.admit()
        check()
        return breaker.run(() => post(request, { ...call, sendBefore }))
      },
      Math.min(maxQueueWaitMs, sendBefore - monotonicNow()),
    )
  }

  async function post(...parameters: Parameters<IdenfyClient['createKybToken']>): Promise<KybFormToken> {
    const begin = monotonicNow()
    try {
      const token = await client.createKybToken(...parameters)
      onAttempt('success', monotonicNow() - begin)
      budget.succeed()
      return token
    } catch (error) {
      const durationMs = monotonicNow() - begin
      if (error instanceof Problem)
        onAttempt(error.code, durationMs, error.options.diagnosis?.class?.toString())
      else if (!(error instanceof Abandoned)) onAttempt('internal-error', durationMs)
      throw error
    }
  }

  /** Whether a retry is safe, and can finish: it is given as long as the first attempt took, and a minimum. */
  function canRetry({ safeToRepeat }: ProblemOptions, call: Call, firstMs: number) {
    if (!safeToRepeat || safeToRepeat.afterMs > timeoutMs * maxRetryDelayShare) return undefined
    const beginsAt = monotonicNow() + safeToRepeat.afterMs + maxJitterMs
    return call.deadline - beginsAt >= Math.max(minPostMs, firstMs) ? safeToRepeat : undefined
  }

  return {
    /** @throws Problem `provider-*`, `kyb-session-conflict` or `overloaded`; Abandoned; what `admit` throws */
    async createKybToken(request: KybFormTokenRequest, call: Call): Promise<KybFormToken> {
      const begin = monotonicNow()
      try {
        return await attempt(request, call)
      } catch (error) {
        if (!(error instanceof Problem)) throw error
        const retry = canRetry(error.options, call, monotonicNow() - begin)
        if (!retry) throw error
        const granted = budget.take()
        onRetry(retry.reason, granted)
        if (!granted) throw error
        call.log.warn(
          { event: 'idenfy-retry', retryReason: retry.reason, ...error.options.diagnosis, err: error },
          'retry',
        )
        await delay(retry.afterMs + Math.random() * maxJitterMs)
        return attempt(request, { ...call, admit: async () => {} })
      }
    },
  }
}

function noTimeLeft(): Problem {
  return new Problem('provider-unavailable', {
    diagnosis: { phase: 'before-sending', reason: 'no-time-left' },
  })
}

export type ReliableClient = ReturnType<typeof createReliableClient>
