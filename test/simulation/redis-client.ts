import type { Redis } from 'ioredis'
import type { Network } from './network.js'
import type { Process } from './process.js'
import type { RedisServer, ServerConnection } from './redis-server.js'

type Argument = string | number

interface Command {
  readonly name: string
  readonly args: readonly Argument[]
  readonly resolve: (reply: unknown) => void
  readonly reject: (error: Error) => void
}

const connectTimeoutMs = 1_000
const socketTimeoutMs = 2_000

/**
 * ioredis as the service uses it and sets it up: no offline queue, no retries of commands, a connection that is silent
 * is replaced. Commands of one moment travel together.
 */
export function createRedisClient(server: RedisServer, process: Process, network: Network): Redis {
  const { clock } = process
  const listeners = new Map<string, (error?: Error) => void>()
  const options = { retryStrategy: (_times: number): number => 0 }
  let status = 'wait'
  let isEnded = false
  let attempts = 0
  let connection: (ServerConnection & { readonly sent: Set<Command>; lastArrivesMs: number }) | undefined
  let batch: Command[] = []
  let onConnected = { resolve: () => {}, reject: (_error: Error) => {} }

  const emit = (event: string, error?: Error) => listeners.get(event)?.(error)

  function close(error?: Error): void {
    if (status === 'reconnecting' || status === 'end') return
    const { sent } = connection ?? { sent: new Set<Command>() }
    if (connection) server.connections.delete(connection)
    connection = undefined
    status = isEnded ? 'end' : 'reconnecting'
    for (const { reject } of sent) reject(new Error('Connection is closed.'))
    onConnected.reject(new Error('Connection is closed.'))
    if (error) emit('error', error)
    emit('close')
    if (!isEnded) clock.setTimeout(connect, options.retryStrategy(1))
  }

  function connect(): void {
    if (isEnded) return
    status = 'connecting'
    attempts += 1
    const attempt = attempts
    const isConnecting = () => status === 'connecting' && attempts === attempt
    const fail = (code: string) => () => {
      clock.clearTimeout(timer)
      if (isConnecting()) close(Object.assign(new Error(code), { code }))
    }
    const timer = clock.setTimeout(fail('ETIMEDOUT'), connectTimeoutMs)
    const reset = () => process.deliver(fail('ECONNRESET'))
    // The kernel accepts connections for a process that is frozen.
    const accept = () => {
      if (server.isGone()) {
        network.send('redis-reply', () => process.deliver(fail('ECONNREFUSED')), reset)
        return
      }
      const opened: NonNullable<typeof connection> = {
        sent: new Set(),
        lastArrivesMs: 0,
        reset: () =>
          process.deliver(() => {
            if (connection === opened) close()
            else reset()
          }),
      }
      server.connections.add(opened)
      const ready = () => {
        clock.clearTimeout(timer)
        if (!isConnecting()) return
        status = 'ready'
        connection = opened
        onConnected.resolve()
        emit('ready')
      }
      network.send('redis-reply', () => process.deliver(ready), reset)
    }
    network.send('redis-command', accept, reset)
  }

  function execute({ name, args, resolve, reject }: Command): () => void {
    try {
      const reply = server.model.execute(name, args)
      return () => resolve(reply)
    } catch (error) {
      return () => reject(error as Error)
    }
  }

  function flush(): void {
    const commands = batch
    batch = []
    const current = connection
    if (!current) {
      for (const { reject } of commands)
        reject(new Error("Stream isn't writeable and enableOfflineQueue options is false"))
      return
    }
    for (const command of commands) current.sent.add(command)
    const reset = () =>
      process.deliver(() => {
        if (connection === current) close()
      })
    const run = () => {
      const replies = commands.map(execute)
      const read = () =>
        process.deliver(() => {
          if (connection !== current) return
          clock.clearTimeout(timer)
          for (const command of commands) current.sent.delete(command)
          for (const settle of replies) settle()
        })
      current.lastArrivesMs = network.send(
        'redis-reply',
        read,
        reset,
        current.lastArrivesMs + server.slowMs(),
      )
    }
    const timer = clock.setTimeout(() => {
      if (connection !== current) return
      close(new Error(`Socket timeout. Expecting data, but didn't receive any in ${socketTimeoutMs}ms.`))
    }, socketTimeoutMs)
    const arrive = () => {
      if (server.connections.has(current)) server.execute(run)
    }
    network.send('redis-command', arrive, reset)
  }

  const send =
    (name: string) =>
    (...args: Argument[]): Promise<unknown> =>
      new Promise((resolve, reject) => {
        if (batch.push({ name, args, resolve, reject }) === 1) queueMicrotask(flush)
      })

  const client = {
    get status() {
      return status
    },
    options,
    on: (event: string, listener: (error?: Error) => void) => listeners.set(event, listener),
    connect: () =>
      new Promise<void>((resolve, reject) => {
        onConnected = { resolve, reject }
        connect()
      }),
    disconnect(reconnect = false) {
      isEnded = !reconnect
      close()
    },
    get: send('get'),
    set: send('set'),
    incr: send('incr'),
    pttl: send('pttl'),
    pexpire: send('pexpire'),
    eval: send('eval'),
    evalsha: send('evalsha'),
  }
  return client as unknown as Redis
}
