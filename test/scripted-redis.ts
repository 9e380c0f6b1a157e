import { EventEmitter } from 'node:events'
import type { Redis } from 'ioredis'

type Respond = (command: string, args: readonly unknown[]) => unknown

/** In the place of ioredis: commands go nowhere, and a script responds to them. No sockets, so a test can move the time. */
export class ScriptedRedis extends EventEmitter {
  status = 'wait'
  readonly options: { retryStrategy?: (times: number) => number } = {}
  /** The commands so far, with their arguments. */
  readonly commands: string[] = []
  /** The argument of each call of `disconnect`. */
  readonly disconnects: (boolean | undefined)[] = []
  #settleConnect = { resolve: () => {}, reject: (_error: Error) => {} }

  /** @param respond returns a reply or a promise of one, or throws */
  constructor(public respond: Respond = () => 'OK') {
    super()
  }

  /** As the type that services expect. */
  get client(): Redis {
    return this as unknown as Redis
  }

  connect(): Promise<void> {
    this.status = 'connecting'
    return new Promise((resolve, reject) => {
      this.#settleConnect = { resolve, reject }
    })
  }

  disconnect(reconnect?: boolean): void {
    this.disconnects.push(reconnect)
  }

  /** The connection stands. */
  open(): void {
    this.status = 'ready'
    this.#settleConnect.resolve()
    this.emit('ready')
  }

  /** The connection is lost, or an attempt to connect has failed. */
  lose(error?: Error): void {
    this.status = 'reconnecting'
    if (error) this.emit('error', error)
    this.emit('close')
    this.#settleConnect.reject(error ?? new Error('Connection is closed.'))
  }

  async #send(command: string, args: readonly unknown[]): Promise<unknown> {
    this.commands.push([command, ...args].join(' '))
    return this.respond(command, args)
  }

  call = (command: string, ...args: unknown[]) => this.#send(command, args)
  incr = (...args: unknown[]) => this.#send('incr', args)
  set = (...args: unknown[]) => this.#send('set', args)
  get = (...args: unknown[]) => this.#send('get', args)
  pttl = (...args: unknown[]) => this.#send('pttl', args)
  eval = (...args: unknown[]) => this.#send('eval', args)
  evalsha = (...args: unknown[]) => this.#send('evalsha', args)
  pexpire = (...args: unknown[]) => this.#send('pexpire', args)
}
