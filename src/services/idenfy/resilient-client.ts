import type { Logger } from 'pino'
import { type Clock, sleep } from '../../clock.js'
import { Abandoned } from '../../problems/abandoned.js'
import type { ProblemCode } from '../../problems/catalog.js'
import { Problem, type ProblemOptions } from '../../problems/problem.js'
import type { Bulkhead } from '../resilience/bulkhead.js'
import type { CircuitBreaker } from '../resilience/circuit-breaker.js'
import type { RetryBudget } from '../resilience/retry-budget.js'
import type { IdenfyClient } from './client.js'
import type { KybFormToken, KybFormTokenRequest } from './schemas.js'

/** A POST is sent only if this share of the total time is left. With less, its outcome would often be unknown. */
const minPostShare = 1 / 4
/** If iDenfy asks for a longer wait, the client retries and not this service. */
const maxRetryDelayShare = 1 / 4
/** Spreads retries over time, so that they do not all come at once after a short outage. */
const maxJitterMs = 100
/** How long a request may wait for a free slot. */
const maxQueueWaitMs = 500

const outages = new Set(['provider-unavailable', 'provider-timeout', 'provider-outcome-unknown'])

/** For the circuit breaker: what a failed call says about iDenfy. */
export function classifyFailure(error: unknown): 'down' | 'up' | 'nothing' {
  if (!(error instanceof Problem)) return 'nothing'
  return outages.has(error.code) ? 'down' : 'up'
}

export interface ResilientClientOptions {
  readonly client: IdenfyClient
  readonly breaker: CircuitBreaker
  readonly bulkhead: Bulkhead
  readonly budget: RetryBudget
  /** How long a request may take in total. */
  readonly timeoutMs: number
  readonly clock: Clock
  /** From 0 to 1: spreads retries over time. */
  readonly random?: () => number
  /** Called after each attempt, with how it ended. */
  readonly onAttempt: (outcome: ProblemCode | 'success', durationMs: number, failureClass?: string) => void
  /** Called for each retry, and for each one that the budget refused. */
  readonly onRetry: (reason: string, granted: boolean) => void
}

export interface Call {
  /** When the response must be complete, in milliseconds of the monotonic clock. It includes waiting and a retry. */
  readonly deadlineMs: number
  /** Whether the machine was suspended since the request came. Another replica may have sent it since: nothing is sent. */
  readonly wasSuspended: () => boolean
  /** Whether no client waits for the response any more. */
  readonly isAbandoned: () => boolean
  /** Called once, before a POST is sent. Throws to prevent it. */
  readonly admit: () => Promise<void>
  /** The logger of the request, which adds its id to each line. */
  readonly log: Pick<Logger, 'warn'>
}

/**
 * iDenfy's API with bulkhead, deadline, circuit breaker and retry budget. A call is retried only if it is certain that the
 * first one opened no verification.
 */
export function createResilientClient(options: ResilientClientOptions) {
  const { client, breaker, bulkhead, budget, timeoutMs, clock, onAttempt, onRetry } = options
  const { random = Math.random } = options
  const { monotonicNow } = clock
  const minPostMs = timeoutMs * minPostShare

  function attempt(request: KybFormTokenRequest, call: Call): Promise<KybFormToken> {
    const sendBeforeMs = call.deadlineMs - minPostMs
    /** Called after every wait. A request that will not be sent must not count against a limit. */
    function check(): void {
      breaker.check()
      if (monotonicNow() >= sendBeforeMs || call.wasSuspended()) throw noTimeLeft()
    }
    check()
    return bulkhead.run(
      async () => {
        if (call.isAbandoned()) throw new Abandoned()
        check()
        await call.admit()
        check()
        return breaker.run(() => post(request, { ...call, sendBeforeMs }))
      },
      Math.min(maxQueueWaitMs, sendBeforeMs - monotonicNow()),
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

  /** Whether a retry is safe and can finish in time. It gets at least as long as the first attempt took. */
  function canRetry({ safeToRetry }: ProblemOptions, call: Call, firstMs: number) {
    if (!safeToRetry || safeToRetry.afterMs > timeoutMs * maxRetryDelayShare) return undefined
    const beginsAt = monotonicNow() + safeToRetry.afterMs + maxJitterMs
    return call.deadlineMs - beginsAt >= Math.max(minPostMs, firstMs) ? safeToRetry : undefined
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
        await sleep(clock, retry.afterMs + random() * maxJitterMs)
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

export type ResilientClient = ReturnType<typeof createResilientClient>
