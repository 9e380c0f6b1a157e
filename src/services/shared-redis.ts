import type { Redis } from 'ioredis'

const probeEveryMs = 100
const probeKey = 'onboarding-bff:probe'
/** As the state is written: who may not run scripts cannot use it. */
const probeScript = `return redis.call('SET', KEYS[1], '1', 'PX', 1000)`

/** The command was not sent: Redis counts as down. */
export class RedisUnavailable extends Error {
  override readonly name = 'RedisUnavailable'
}

export interface SharedRedisOptions {
  /** Must fail fast: no offline queue, no retries of commands. */
  readonly redis: Redis
  /** How long a command may take. */
  readonly commandTimeoutMs: number
  /** Told once for every change. */
  readonly onChange: (isUp: boolean, cause?: unknown) => void
}

/**
 * The Redis that replicas share, as long as it is there. After the first command that fails or is late nothing
 * waits for it any more, until a write succeeds again.
 */
export function createSharedRedis({ redis, commandTimeoutMs, onChange }: SharedRedisOptions) {
  let isUp: boolean | undefined
  let isClosed = false
  let timer: NodeJS.Timeout | undefined

  function turn(up: boolean, cause?: unknown): void {
    if (isUp === up) return
    isUp = up
    onChange(up, cause)
  }

  /** Writes, because a Redis that is full or a replica still answers to reads. */
  async function probe(): Promise<void> {
    clearTimeout(timer)
    try {
      await inTime(redis.eval(probeScript, 1, probeKey), commandTimeoutMs)
      turn(true)
    } catch (error) {
      fail(error)
    }
  }

  function fail(cause: unknown): void {
    if (isClosed) return
    turn(false, cause)
    clearTimeout(timer)
    timer = setTimeout(probe, probeEveryMs).unref()
  }

  redis.on('ready', probe)
  redis.on('close', () => fail(new Error('closed')))
  // Every failure shows in a command or in 'close' too; without a listener ioredis writes to the console.
  redis.on('error', () => {})

  return {
    /** For commands inside of {@link run}. */
    client: redis,
    isUp: (): boolean => isUp === true,
    /** @throws what the command throws, after which Redis counts as down; RedisUnavailable while it does */
    async run<T>(command: () => Promise<T>): Promise<T> {
      if (!isUp) throw new RedisUnavailable('Redis is down')
      try {
        return await inTime(command(), commandTimeoutMs)
      } catch (error) {
        fail(error)
        throw error
      }
    },
    /** Resolves when Redis is there, or at the first failure to connect. */
    async connect(): Promise<void> {
      await redis.connect().then(probe, () => {})
    },
    close(): void {
      isClosed = true
      clearTimeout(timer)
      redis.disconnect()
    },
  }
}

export type SharedRedis = ReturnType<typeof createSharedRedis>

/** Not ioredis's `commandTimeout`: that gives up on an answer that waits to be read because this process was busy. */
function inTime<T>(command: Promise<T>, timeoutMs: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const giveUp = () => reject(Object.assign(new Error('Redis is late'), { code: 'REDIS_LATE' }))
    // What has arrived is read between a timer and an immediate.
    const timer = setTimeout(() => setImmediate(giveUp), timeoutMs)
    command.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}
