import { EventEmitter } from 'node:events'
import type { Network } from './network.js'
import type { Process } from './process.js'
import type { VirtualTime } from './virtual-time.js'

/** How iDenfy, and what is on the way to it, treat connections on which nothing happens. */
export interface IdleLimits {
  /** The server closes them after this time. */
  readonly closedAfterMs: number
  /** After this time, all bytes of a connection are dropped, and no one is told. */
  readonly forgottenAfterMs: number
}

export interface IdleConnectionOptions {
  readonly time: VirtualTime
  readonly network: Network
  readonly process: Process
  readonly limits: IdleLimits
}

/** More than a message takes. */
const travelMs = 5

/** The socket of a connection that no request has used yet. */
export class IdleConnection extends EventEmitter {
  readonly #options: IdleConnectionOptions
  readonly #acceptedAtMs: number
  #isOpenAtServer = true
  #isDestroyed = false

  constructor(options: IdleConnectionOptions) {
    super()
    this.#options = options
    this.#acceptedAtMs = options.time.now()
    const { closedAfterMs } = options.limits
    if (closedAfterMs < Number.POSITIVE_INFINITY)
      options.time.after(closedAfterMs, () => this.#closeAtServer())
  }

  #idleMs(): number {
    return this.#options.time.now() - this.#acceptedAtMs
  }

  #closeAtServer(): void {
    const { network, process, limits } = this.#options
    if (!this.#isOpenAtServer) return
    this.#isOpenAtServer = false
    if (this.#idleMs() > limits.forgottenAfterMs) return
    const emit = (event: string) => () => process.deliver(() => this.#isDestroyed || this.emit(event))
    network.send('standby-response', emit('end'), emit('error'))
  }

  /** Whether a request that is sent now would be lost, for a reason that a new connection does not have. */
  isDead(): boolean {
    const { closedAfterMs, forgottenAfterMs } = this.#options.limits
    return this.#idleMs() + travelMs > Math.min(closedAfterMs, forgottenAfterMs)
  }

  end(): void {
    const { network, process, limits } = this.#options
    const reset = () => process.deliver(() => this.#isDestroyed || this.emit('error'))
    const arrive = () => {
      if (this.#idleMs() <= limits.forgottenAfterMs) this.#closeAtServer()
    }
    network.send('standby-request', arrive, reset)
  }

  destroy(): void {
    this.#isDestroyed = true
    this.#isOpenAtServer = false
  }

  readonly bytesRead = 0
  readonly bytesWritten = 0
  read = () => null
  setKeepAlive = () => this
  ref = () => this
  unref = () => this
}
