import { hash } from 'node:crypto'
import { claimScript, publishScript } from '../../src/services/single-flight/redis.js'
import { probeScript } from '../../src/services/single-flight/redis-connection.js'

interface Entry {
  readonly value: string
  /** Milliseconds of the clock of Redis. */
  readonly expiresAtMs: number
}

type Argument = string | number

/** The error reply of a command, as ioredis makes it. */
export class ReplyError extends Error {
  override readonly name = 'ReplyError'

  constructor(
    message: string,
    readonly command: { readonly name: string },
  ) {
    super(message)
  }
}

/** The commands that the service uses, on one database in memory. A test compares it with a real Redis. */
export function createRedisModel({ now }: { readonly now: () => number }) {
  const entries = new Map<string, Entry>()
  /** What was there before each write. */
  const log: { readonly atMs: number; readonly key: string; readonly before: Entry | undefined }[] = []
  const loaded = new Set<string>()
  let isFull = false
  let isReadOnly = false

  function read(key: string): Entry | undefined {
    const entry = entries.get(key)
    return entry && now() <= entry.expiresAtMs ? entry : undefined
  }

  function write(key: string, entry: Entry | undefined): void {
    log.push({ atMs: now(), key, before: read(key) })
    if (entry) entries.set(key, entry)
    else entries.delete(key)
  }

  const get = (key: string): string | null => read(key)?.value ?? null

  function pttl(key: string): number {
    const entry = read(key)
    if (!entry) return -2
    return entry.expiresAtMs === Number.POSITIVE_INFINITY ? -1 : Math.round(entry.expiresAtMs - now())
  }

  function checkWritable(needsMemory: boolean): void {
    if (isReadOnly) throw new Error("READONLY You can't write against a read only replica.")
    if (needsMemory && isFull) throw new Error("OOM command not allowed when used memory > 'maxmemory'.")
  }

  function set(key: string, value: Argument, lifetimeMs?: Argument): string {
    checkWritable(true)
    if (lifetimeMs === undefined) {
      write(key, { value: String(value), expiresAtMs: Number.POSITIVE_INFINITY })
      return 'OK'
    }
    if (!isInteger(lifetimeMs)) throw new Error('ERR value is not an integer or out of range')
    if (Number(lifetimeMs) <= 0) throw new Error("ERR invalid expire time in 'set' command")
    write(key, { value: String(value), expiresAtMs: now() + Number(lifetimeMs) })
    return 'OK'
  }

  /** What the scripts do, in JavaScript. */
  const scripts = new Map<string, (key: string, ...args: string[]) => unknown>([
    [
      claimScript,
      (key, owner, lifetimeMs, replaceable) => {
        const current = get(key)
        if (current !== null && current !== replaceable && !current.startsWith('E')) {
          return [current, pttl(key)]
        }
        set(key, `L${owner}`, lifetimeMs)
        return null
      },
    ],
    [
      publishScript,
      (key, owner, value, lifetimeMs) => {
        const current = get(key)
        if (current !== null && current !== `L${owner}`) return 0
        set(key, String(value), lifetimeMs)
        return 1
      },
    ],
    [probeScript, (key) => get(key)],
  ])
  const byDigest = new Map([...scripts.keys()].map((script) => [hash('sha1', script), script]))

  const commands: Record<string, (...args: string[]) => unknown> = {
    get: (key) => get(String(key)),
    set: (key, value, _px, lifetimeMs) => set(String(key), String(value), lifetimeMs),
    pttl: (key) => pttl(String(key)),
    incr: (key) => {
      checkWritable(true)
      const entry = read(String(key))
      const value = entry?.value ?? '0'
      if (!isInteger(value)) throw new Error('ERR value is not an integer or out of range')
      const expiresAtMs = entry?.expiresAtMs ?? Number.POSITIVE_INFINITY
      write(String(key), { value: String(Number(value) + 1), expiresAtMs })
      return Number(value) + 1
    },
    pexpire: (key, lifetimeMs) => {
      checkWritable(false)
      const entry = read(String(key))
      if (!isInteger(String(lifetimeMs))) throw new Error('ERR value is not an integer or out of range')
      if (!entry) return 0
      const expiresAtMs = now() + Number(lifetimeMs)
      write(String(key), Number(lifetimeMs) > 0 ? { value: entry.value, expiresAtMs } : undefined)
      return 1
    },
    eval: (script, _keys, key, ...args) => {
      const run = scripts.get(String(script))
      if (!run) throw new Error('the model does not know this script')
      loaded.add(String(script))
      return run(String(key), ...args)
    },
    evalsha: (digest, _keys, key, ...args) => {
      const script = byDigest.get(String(digest))
      if (script === undefined || !loaded.has(script))
        throw new Error('NOSCRIPT No matching script. Please use EVAL.')
      return scripts.get(script)?.(String(key), ...args)
    },
  }

  return {
    /** @throws ReplyError */
    execute(name: string, args: readonly Argument[]): unknown {
      try {
        return commands[name]?.(...args.map(String))
      } catch (error) {
        throw new ReplyError((error as Error).message, { name })
      }
    },
    setFull(value: boolean): void {
      isFull = value
    },
    setReadOnly(value: boolean): void {
      isReadOnly = value
    },
    /** Undoes the writes of the last milliseconds, as a failover to a replica that lags. @returns whether there were any */
    loseWrites(lastMs: number): boolean {
      let hasLost = false
      for (let last = log.at(-1); last && last.atMs >= now() - lastMs; last = log.at(-1)) {
        log.pop()
        hasLost ||= last.key.startsWith(stateKeyPrefix) && !/:(rate:|probe)/.test(last.key)
        if (last.before) entries.set(last.key, last.before)
        else entries.delete(last.key)
      }
      loaded.clear()
      return hasLost
    },
  }
}

export type RedisModel = ReturnType<typeof createRedisModel>

const stateKeyPrefix = 'onboarding-bff:'

const isInteger = (text: Argument): boolean => /^(0|-?[1-9]\d{0,15})$/.test(String(text))
