import { createRedisModel } from './redis-model.js'
import type { VirtualTime } from './virtual-time.js'

/** One connection, as the server sees it. */
export interface ServerConnection {
  readonly reset: () => void
}

/** From the end of trouble until every replica uses Redis again: a time limit of a silent connection, and a back-off. */
const slowestRecoveryMs = 6_500

/** The Redis of a simulation: the model of its commands, and all that can happen to the server around them. */
export function createRedisServer(time: VirtualTime) {
  const model = createRedisModel({ now: () => time.now() })
  const connections = new Set<ServerConnection>()
  let state: 'up' | 'gone' | 'frozen' = 'up'
  let slowMs = 0
  /** Commands that arrived while it was frozen. */
  let waiting: (() => void)[] = []
  let hasLostWrites = false
  let troubleEndsAtMs = Number.NEGATIVE_INFINITY

  function closeAll(): void {
    for (const { reset } of connections) reset()
    connections.clear()
    waiting = []
  }

  return {
    model,
    isGone: (): boolean => state === 'gone',
    slowMs: (): number => slowMs,
    /** Something is wrong with Redis, or with the way to it, for some time. */
    noteTrouble(forMs: number, recoveryMs = Math.min(1_000 + 2 * forMs, slowestRecoveryMs)): void {
      troubleEndsAtMs = Math.max(troubleEndsAtMs, time.now() + forMs + recoveryMs)
    },
    /** Whether replicas may have noticed trouble at or after a moment. */
    hadTroubleSince: (atMs: number): boolean => troubleEndsAtMs >= atMs,
    /** For how long replicas may have noticed it after a moment. */
    troubleMsAfter: (atMs: number): number => Math.max(troubleEndsAtMs - atMs, 0),
    /** Whether it has ever lost something that replicas had stored. */
    hasLostWrites: (): boolean => hasLostWrites,
    connections,
    /** Runs commands that have arrived, now or when it thaws. */
    execute(run: () => void): void {
      if (state === 'frozen') waiting.push(run)
      else if (state === 'up') run()
    },
    stop(): void {
      state = 'gone'
      closeAll()
    },
    freeze(): void {
      state = 'frozen'
    },
    setSlow(milliseconds: number): void {
      slowMs = milliseconds
    },
    /** It forgets its last writes, in a failover or a restart. */
    loseWrites(lastMs: number): void {
      hasLostWrites = model.loseWrites(lastMs) || hasLostWrites
      closeAll()
    },
    recover(): void {
      state = 'up'
      slowMs = 0
      model.setFull(false)
      model.setReadOnly(false)
      const runs = waiting
      waiting = []
      for (const run of runs) run()
    },
  }
}

export type RedisServer = ReturnType<typeof createRedisServer>
