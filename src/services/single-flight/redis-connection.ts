import { hash } from 'node:crypto'
import type { Redis } from 'ioredis'
import type { Clock, Timer } from '../../clock.js'
import { describeRedisFailure, isReply, type RedisFailure } from './redis-failure.js'

const firstRetryMs = 100
const maxRetryMs = 3_000
const maxReconnectMs = 1_000
/** How often Redis is checked while it is up. If nothing fails in that time, it is stable. */
const checkEveryMs = 2_000
/** After more of them in a row, Redis is reported as up only when it is stable. */
const maxQuickFailures = 1

/** One for each kind of key. A user who may use only one kind cannot share state. */
const probeKeys = ['onboarding-bff:probe', 'onboarding-bff:rate:probe']
/** Spread over the slots of a cluster. One node of a cluster has only some of them. */
const slotKeys = Array.from({ length: 8 }, (_, index) => `onboarding-bff:probe-${index}`)
export const probeScript = `return redis.call('GET', KEYS[1])`
export const probeDigest = hash('sha1', probeScript)

/** The command was not sent, because Redis counts as down. */
export class RedisUnavailable extends Error {
  override readonly name = 'RedisUnavailable'
}

export interface RedisConnectionOptions {
  /**
   * Must fail fast: no offline queue, no retries of commands. It must have no password and no database: ioredis
   * continues if Redis refuses the database, and it writes to the console about the password. Its `retryStrategy` is
   * replaced.
   */
  readonly redis: Redis
  /** The arguments of AUTH; none without a password. */
  readonly credentials: readonly string[]
  readonly database: number
  /** How long a command may take. */
  readonly commandTimeoutMs: number
  /** Called once for every change, and once for every cause until Redis is up again. */
  readonly onChange: (isUp: boolean, failure?: RedisFailure) => void
  /** Called for every failed connection attempt, every failed check, and every command after which Redis counts as down. */
  readonly onFailure: (failure: RedisFailure) => void
  readonly clock: Clock
}

/**
 * The Redis that replicas share, with its health. After one failed or late command Redis counts as down, and no request
 * waits for it until a check of all commands in use succeeds. If it fails again soon, the next check comes later.
 */
export function createRedisConnection(options: RedisConnectionOptions) {
  const { redis, credentials, database, commandTimeoutMs, onChange, onFailure, clock } = options
  let isUp = false
  let isClosed = false
  /** Whether it has been up for a whole check interval. */
  let isStable = false
  /** Whether a command has succeeded since the last check. */
  let hasAnswered = false
  let isReportedUp = false
  const reportedCauses = new Set<string>()
  /** Since Redis was stable. */
  let failures = 0
  /** How often in a row Redis failed before it was stable. */
  let quickFailures = 0
  /** Since a check succeeded. */
  let reconnects = 0
  let connectionError: unknown
  let isReplacingConnection = false
  let checking: Promise<void> | undefined
  let timer: Timer | undefined

  function reportUp(): void {
    if (isReportedUp) return
    isReportedUp = true
    reportedCauses.clear()
    onChange(true)
  }

  function fail(error: unknown): void {
    const failure = describeRedisFailure(error)
    if (isUp) quickFailures = isStable ? 0 : quickFailures + 1
    isUp = false
    isReportedUp = false
    onFailure(failure)
    if (reportedCauses.has(failure.cause)) return
    reportedCauses.add(failure.cause)
    onChange(false, failure)
  }

  function checkIn(delayMs: number): void {
    clock.clearTimeout(timer)
    timer = clock.setTimeout(() => {
      timer = undefined
      if (isUp && hasAnswered) succeed()
      // Else 'ready' comes.
      else if (redis.status === 'ready') check()
    }, delayMs)
    timer.unref()
  }

  function retry(): void {
    checkIn(Math.min(firstRetryMs * 2 ** failures, maxRetryMs))
    failures += 1
  }

  function succeed(): void {
    isStable = isUp
    isUp = true
    hasAnswered = false
    reconnects = 0
    if (isStable) {
      failures = 0
      quickFailures = 0
    }
    if (isStable || quickFailures <= maxQuickFailures) reportUp()
    checkIn(checkEveryMs)
  }

  function check(): Promise<void> {
    checking ??= tryCommands()
      .then(succeed, failCheck)
      .finally(() => {
        checking = undefined
      })
    return checking
  }

  function failCheck(error: unknown): void {
    // The 'close' event has reported it.
    if (redis.status !== 'ready') return
    fail(error)
    retry()
    if (!isReply(error)) return
    // The address may belong to another server by now, after a failover or a DNS change.
    isReplacingConnection = true
    redis.disconnect(true)
  }

  async function tryCommands(): Promise<void> {
    // In upper case, so that ioredis sends them unchanged. It would repeat a `select` and ignore the reply.
    if (!isUp && credentials.length > 0) await withTimeout(redis.call('AUTH', ...credentials))
    if (!isUp && database > 0) await withTimeout(redis.call('SELECT', database))
    await withTimeout(
      Promise.all([...probeKeys.flatMap(commandsOn), ...slotKeys.map((key) => redis.pttl(key))]),
    )
  }

  /** Not ioredis's `commandTimeout`: it gives up on a reply that has arrived and was not read, because this process was busy. */
  function withTimeout<T>(command: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const giveUp = () => reject(Object.assign(new Error('Redis is late'), { code: 'REDIS_TIMEOUT' }))
      // What has arrived is read between a timer and an immediate.
      const timer = clock.setTimeout(() => clock.setImmediate(giveUp), commandTimeoutMs)
      command.then(resolve, reject).finally(() => clock.clearTimeout(timer))
    })
  }

  /** All commands in use, here and in @fastify/rate-limit. Plain ones, because a script does not say what is denied. */
  const commandsOn = (key: string): Promise<unknown>[] => [
    redis.incr(key),
    redis.set(key, '1', 'PX', 1_000),
    redis.get(key),
    redis.pttl(key),
    redis.eval(probeScript, 1, key),
    redis.evalsha(probeDigest, 1, key),
    redis.pexpire(key, 1),
  ]

  // ioredis counts from 0 again after every connection, also if each is closed at once.
  redis.options.retryStrategy = () => {
    reconnects += 1
    return Math.min(firstRetryMs * 2 ** (reconnects - 1), maxReconnectMs)
  }
  redis.on('ready', () => {
    connectionError = undefined
    // A Redis that failed soon after it came up has to wait.
    if (!timer) check()
  })
  redis.on('error', (error) => {
    connectionError = error
  })
  redis.on('close', () => {
    if (isClosed) return
    if (isReplacingConnection) {
      isReplacingConnection = false
      return
    }
    const wasUp = isUp
    fail(connectionError ?? Object.assign(new Error('Redis closed the connection'), { code: 'REDIS_CLOSED' }))
    if (wasUp) retry()
  })

  return {
    /** For commands inside of {@link run}. */
    client: redis,
    isUp: (): boolean => isUp,
    /** @throws what the command throws, after which Redis counts as down; RedisUnavailable while it does */
    async run<T>(command: () => Promise<T>): Promise<T> {
      if (!isUp) throw new RedisUnavailable('Redis is down')
      try {
        const result = await withTimeout(command())
        hasAnswered = true
        return result
      } catch (error) {
        if (isUp) {
          fail(error)
          retry()
        }
        throw error
      }
    },
    /** Resolves when Redis is connected and checked, or when the first attempt fails. */
    async connect(): Promise<void> {
      await redis.connect().then(check, () => {})
    },
    close(): void {
      isClosed = true
      clock.clearTimeout(timer)
      redis.disconnect()
    },
  }
}

export type RedisConnection = ReturnType<typeof createRedisConnection>
