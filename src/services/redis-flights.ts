import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { Problem, type ProblemCode, type ProblemOptions } from '../problems.js'
import type { Flight, Flights, Landing } from './flights.js'
import type { SharedRedis } from './shared-redis.js'
import type { StateCipher } from './state-cipher.js'

const pollMs = 50
/** For so long those who waited can read how a flight ended whose result is not kept. */
const landedMs = 2_000

/*
 * A key holds one of
 *   L<owner>   a flight, as long as its lease lasts
 *   E<sealed>  a flight that has ended: for those who waited for it; the key is free for the next
 *   S<sealed>  a stored result, for all
 */
const claimScript = `
  local held = redis.call('GET', KEYS[1])
  if held and held ~= ARGV[3] and string.sub(held, 1, 1) ~= 'E' then return held end
  redis.call('SET', KEYS[1], 'L' .. ARGV[1], 'PX', ARGV[2])
  return false`

/** Not over the lease of another, who took over when this one's ran out. */
const landScript = `
  local held = redis.call('GET', KEYS[1])
  if held and held ~= 'L' .. ARGV[1] then return 0 end
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1`

type Ending<T> = { readonly value: T } | { readonly failure: Failure }
type Failure = { readonly code: ProblemCode } & Pick<ProblemOptions, 'outcome' | 'retryAfterSeconds'>

export interface RedisFlightsOptions {
  readonly shared: SharedRedis
  /** The cipher as it is now: keys are rotated. */
  readonly cipher: () => StateCipher
  /** Longer than any work takes: when it is over, the owner counts as dead. */
  readonly leaseMs: number
}

/**
 * Across replicas. One of them does the work under a lease, the others wait for how it ends, or for the end of
 * the lease. Without Redis each does its own.
 */
export function createRedisFlights<T>({ shared, cipher, leaseMs }: RedisFlightsOptions): Flights<T> {
  const evaluate = (script: string, key: string, ...args: (string | number)[]) =>
    shared.run(() => shared.client.eval(script, 1, key, ...args))

  const seal = (key: string, ending: Ending<T>): string => cipher().seal(JSON.stringify(ending), key)
  const open = (key: string, sealed: string): Ending<T> | undefined => {
    const text = cipher().open(sealed, key)
    return text === undefined ? undefined : JSON.parse(text)
  }

  async function land(key: string, owner: string, ending: Ending<T>, lifetimeMs: number): Promise<void> {
    const sealed = seal(key, ending)
    const [held, ttl] = lifetimeMs > 0 ? [`S${sealed}`, lifetimeMs] : [`E${sealed}`, landedMs]
    // Whoever waits for it sees the lease run out.
    await evaluate(landScript, key, owner, held, Math.ceil(ttl)).catch(() => {})
  }

  /**
   * @returns how the flight ended, or one that took its lease over and ended between two looks; undefined when there is no
   *   trace of either, or none that can be read
   */
  async function waitFor(key: string, lease: string): Promise<Ending<T> | undefined> {
    for (;;) {
      await delay(pollMs)
      const held = await shared.run(() => shared.client.get(key))
      if (held === lease) continue
      return held && /^[SE]/.test(held) ? open(key, held.slice(1)) : undefined
    }
  }

  /** @returns how another's flight ended, or undefined when this one has the lease */
  async function claim(key: string, owner: string, whenBusy: Flight<T>['whenBusy']) {
    let unreadable = ''
    for (;;) {
      const held = (await evaluate(claimScript, key, owner, leaseMs, unreadable)) as string | null
      if (held === null) return undefined
      if (held.startsWith('S')) {
        const ending = open(key, held.slice(1))
        if (ending) return { origin: 'stored', ending } as const
        unreadable = held
      } else {
        if (whenBusy === 'refuse') return { origin: 'joined', ending: conflict } as const
        const ending = await waitFor(key, held)
        if (ending) return { origin: 'joined', ending } as const
      }
    }
  }

  return {
    async run(key, work, { lifetimeMs, whenBusy }): Promise<Landing<T>> {
      const owner = randomUUID()
      // Without Redis everybody is on his own.
      const other = await claim(key, owner, whenBusy).catch(() => undefined)
      if (other) return { origin: other.origin, value: landed(other.ending) }
      try {
        const value = await work()
        await land(key, owner, { value }, lifetimeMs(value))
        return { origin: 'own', value }
      } catch (error) {
        await land(key, owner, { failure: failureOf(error as Partial<Problem>) }, 0)
        throw error
      }
    },
  }
}

const conflict = { failure: { code: 'idempotency-conflict' } } as const

/** What is no problem by its own account is one of ours. */
function failureOf({ code = 'internal-error', options }: Partial<Problem>): Failure {
  return { code, outcome: options?.outcome, retryAfterSeconds: options?.retryAfterSeconds }
}

function landed<T>(ending: Ending<T>): T {
  if ('value' in ending) return ending.value
  const { code, ...options } = ending.failure
  throw new Problem(code, { ...options, diagnosis: { reason: 'shared-flight' } })
}
