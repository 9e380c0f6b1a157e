import type { Socket } from 'node:net'
import type { buildConnector } from 'undici'
import { type Clock, startStopwatch, type Timer } from '../../clock.js'
import type { Connect } from './connector.js'
import { createSafeAge, minSafeAgeMs } from './safe-age.js'

/** A standby connection is opened so long before the one in use is too old, at most a third of its age. */
const maxLeadMs = 2_000
/** How long the server may take to close its side of a connection. */
const closeTimeoutMs = 2_000
const firstRetryMs = 1_000
const maxRetryMs = 60_000
const maxJitter = 1.5
/** How long nothing must fail until an outage counts as over. */
const minRecoveryMs = 60_000
/** Token bucket for connections that no request has asked for. */
const unusedBurst = 20
const unusedIntervalMs = 2_500

/**
 * Why a standby connection was replaced before a request took it: its age, the server closed it, it broke, the server sent
 * something, or another connection turned out to be dead.
 */
export const replaceReasons = ['age', 'closed', 'broken', 'unexpected-data', 'suspect'] as const
export type ReplaceReason = (typeof replaceReasons)[number]

export interface StandbyOptions {
  readonly connect: Connect
  /** The server. */
  readonly target: buildConnector.Options
  /** How long a connection may stand by. */
  readonly maxAgeMs: number
  readonly clock: Clock
  /** From 0 to 1: spreads the retries of several instances. */
  readonly random?: () => number
  readonly onReplaced: (reason: ReplaceReason) => void
  /** Called once, when no standby connection can be opened or kept. */
  readonly onUnavailable: (error: Error) => void
  /** Called when there is one again, and it has lasted. */
  readonly onAvailable: () => void
}

/** As undici's callback, with the age of a connection that stood by. */
export type StandbyCallback = (
  ...result: [error: Error, socket: null] | [error: null, socket: Socket, standbyAgeMs?: number]
) => void

interface Connection {
  readonly socket: Socket
  /** Since connecting began, by the clock that has advanced more: too much is safe. */
  readonly ageMs: () => number
  /** Since it was connected, by the monotonic clock: too little is safe where it shows how long the path keeps one. */
  readonly shownAgeMs: () => number
  timer: Timer | undefined
  /** What happens when the server closes it, or it breaks. */
  onLost: ((reason: ReplaceReason, cause?: Error) => void) | undefined
  /** From now on, nothing happens when it is lost. */
  unwatch(): void
}

/**
 * Keeps one connection to iDenfy ready, so that a request after a rest need not wait for DNS, TCP and TLS. The connection
 * has never been used. It is replaced when it is taken, and before it is too old.
 *
 * A request must not be sent on a connection that has died: its outcome would be unknown. So a connection is used only up
 * to an age at which the path to iDenfy has kept another one. See docs/decisions/0016-standby-connection.md.
 */
export function createStandby(options: StandbyOptions) {
  const { connect, target, maxAgeMs, clock, random = Math.random } = options
  const { onReplaced, onUnavailable, onAvailable } = options
  let ready: Connection | undefined
  let giveUpOpening: (() => void) | undefined
  let opening: Timer | undefined
  let failures = 0
  let isReported = false
  let sinceFailureMs = startStopwatch(clock)
  let isClosed = false
  /** Too old to be used. They show whether the path keeps connections for longer than is known. */
  const retired = new Set<Connection>()
  const safeAge = createSafeAge(maxAgeMs, clock)
  /** When the token bucket for unused connections is full again. */
  let bucketFullAtMs = Number.NEGATIVE_INFINITY
  let sincePrepared: (() => number) | undefined
  let endFirstAttempt: (() => void) | undefined
  const firstAttempt = new Promise<void>((resolve) => {
    endFirstAttempt = resolve
  })

  const isUsable = ({ ageMs }: Connection) => ageMs() < safeAge.usableMs()
  const isReady = () => ready !== undefined && isUsable(ready)

  function setTimer(callback: () => void, delayMs: number): Timer {
    const timer = clock.setTimeout(callback, delayMs)
    timer.unref()
    return timer
  }

  function open(): void {
    clock.clearTimeout(opening)
    opening = undefined
    if (isClosed || giveUpOpening) return
    // From the begin: a process that is stopped for a while does not see when it is connected.
    const ageMs = startStopwatch(clock)
    const onConnected: buildConnector.Callback = (...[error, socket]) => {
      giveUpOpening = undefined
      if (!error) keep(watch(socket, ageMs, clock))
      else if (!isClosed) fail(error)
      endFirstAttempt?.()
    }
    giveUpOpening = connect(target, onConnected, { isBackground: true })
  }

  /** Opens the next connection after one that was of no use. A server that closes connections soon gets few. */
  function openNext(delayMs = 0): void {
    clock.clearTimeout(opening)
    const waitMs = Math.max(delayMs, unusedWaitMs())
    if (waitMs > 0) opening = setTimer(openUnused, waitMs)
    else openUnused()
  }

  const unusedWaitMs = () =>
    Math.max(0, bucketFullAtMs - clock.monotonicNow() - (unusedBurst - 1) * unusedIntervalMs)

  function openUnused(): void {
    const now = clock.monotonicNow()
    bucketFullAtMs = Math.min(Math.max(bucketFullAtMs, now), now + (unusedBurst - 1) * unusedIntervalMs)
    bucketFullAtMs += unusedIntervalMs
    open()
  }

  function fail(error: Error): void {
    if (!isReported) onUnavailable(error)
    isReported = true
    sinceFailureMs = startStopwatch(clock)
    const backoffMs = Math.min(firstRetryMs * 2 ** failures, maxRetryMs / maxJitter)
    failures += 1
    openNext(backoffMs * (1 + random() * (maxJitter - 1)))
  }

  function keep(connection: Connection): void {
    if (ready) retire(ready)
    ready = connection
    connection.onLost = (reason, cause) => {
      ready = undefined
      clock.clearTimeout(connection.timer)
      onReplaced(reason)
      const ageMs = connection.shownAgeMs()
      // It did not last: a failed attempt.
      if (ageMs < minSafeAgeMs) fail(new Error('The connection was closed at once', { cause }))
      else {
        safeAge.closed(ageMs)
        openNext()
      }
    }
    const usableMs = safeAge.usableMs()
    const leadMs = Math.min(usableMs / 3, maxLeadMs)
    const replace = () => {
      noteLasted(connection)
      openNext()
      connection.timer = setTimer(() => retire(connection), leadMs)
    }
    connection.timer = setTimer(replace, usableMs - leadMs - connection.ageMs())
  }

  function noteLasted(connection: Connection): void {
    if (connection.shownAgeMs() < minSafeAgeMs) return
    failures = 0
    if (!isReported || sinceFailureMs() < minRecoveryMs) return
    isReported = false
    onAvailable()
  }

  /** A connection that is too old is closed, perhaps later: it may show that an older one could still be used. */
  function retire(connection: Connection): void {
    if (connection === ready) ready = undefined
    clock.clearTimeout(connection.timer)
    noteLasted(connection)
    onReplaced('age')
    retired.add(connection)
    connection.onLost = () => {
      drop(connection)
      safeAge.closed(connection.shownAgeMs())
    }
    const delayMs = safeAge.nextTrialMs() - connection.ageMs()
    connection.timer = setTimer(() => closeAndWatch(connection), delayMs)
  }

  function drop(connection: Connection): void {
    clock.clearTimeout(connection.timer)
    retired.delete(connection)
    connection.unwatch()
    connection.socket.destroy()
  }

  /** A server closes its side of a connection too. If it does, the path has kept the connection until now. */
  function closeAndWatch(connection: Connection): void {
    const ageMs = connection.shownAgeMs()
    const end = (isKept: boolean) => {
      drop(connection)
      if (isKept) safeAge.kept(ageMs)
      else safeAge.forgotten(ageMs)
    }
    connection.timer = setTimer(() => end(false), closeTimeoutMs)
    connection.onLost = (reason) => end(reason !== 'broken')
    connection.socket.end()
  }

  /** A request may show that the path has forgotten the connection, although it was young enough. */
  function watchFirstResponse({ socket, shownAgeMs }: Connection): void {
    const ageMs = shownAgeMs()
    const { bytesRead, bytesWritten } = socket
    socket.once('close', () => {
      if (socket.bytesWritten > bytesWritten && socket.bytesRead === bytesRead) safeAge.closed(ageMs)
    })
  }

  /** Opens a connection for a request. */
  function openForRequest(callback: StandbyCallback): void {
    connect(target, (...result) => {
      callback(...result)
      // The server can be reached: there is no reason to wait any longer.
      if (result[1] && !ready) openNext()
    })
  }

  return {
    /** Whether a request would find a connection. */
    isReady,
    /** Resolves when the first attempt to connect has ended in any way. */
    firstAttempt,
    open,
    /** Opens a connection if there is none, at most once per age. Any client may cause that. */
    prepare(): void {
      if (isReady() || unusedWaitMs() > 0 || (sincePrepared && sincePrepared() < maxAgeMs)) return
      sincePrepared = startStopwatch(clock)
      openUnused()
    },
    /** Connects for a request. */
    connect(callback: StandbyCallback): void {
      const taken = ready
      if (!taken || !isUsable(taken)) {
        // Its timer does not know of a time in which the machine was suspended.
        if (taken) retire(taken)
        openForRequest(callback)
        return
      }
      ready = undefined
      clock.clearTimeout(taken.timer)
      let lost: ReplaceReason | undefined
      taken.onLost = (reason) => {
        lost = reason
      }
      // In one whole turn of the event loop, a close that has already arrived is seen.
      clock.setImmediate(() =>
        clock.setImmediate(() => {
          if (lost) {
            onReplaced(lost)
            safeAge.closed(taken.shownAgeMs())
            openForRequest(callback)
          } else if (!isUsable(taken)) {
            // The turn of a busy process may take long.
            retire(taken)
            openForRequest(callback)
          } else {
            noteLasted(taken)
            taken.unwatch()
            watchFirstResponse(taken)
            callback(null, taken.socket.ref(), taken.ageMs())
          }
          if (!ready) open()
        }),
      )
    },
    /** Replaces the connection, because another one was dead. */
    replace(): void {
      if (!ready) return
      drop(ready)
      ready = undefined
      onReplaced('suspect')
      openNext()
    },
    /** The server has announced that it closes idle connections after this time. */
    noteIdleLimit: safeAge.announced,
    close(): void {
      isClosed = true
      clock.clearTimeout(opening)
      giveUpOpening?.()
      for (const connection of [ready, ...retired]) if (connection) drop(connection)
      ready = undefined
    },
  }
}

export type Standby = ReturnType<typeof createStandby>

/** Watches a connection that no one uses. Whatever happens to it, it is lost. */
function watch(socket: Socket, ageMs: () => number, { monotonicNow }: Clock): Connection {
  const connectedMs = monotonicNow()
  function lose(reason: ReplaceReason, cause?: Error): void {
    unwatch()
    socket.destroy()
    connection.onLost?.(reason, cause)
  }
  const listeners = {
    readable: () => {
      // Also at the end, which `read` then reports.
      if (socket.read() !== null) lose('unexpected-data')
    },
    end: () => lose('closed'),
    error: (error: Error) => lose('broken', error),
    close: () => lose('closed'),
  }
  function unwatch(): void {
    for (const [event, listener] of Object.entries(listeners)) socket.off(event, listener)
  }
  for (const [event, listener] of Object.entries(listeners)) socket.on(event, listener)
  // A host that has gone is noticed within 20 seconds, and a firewall sees traffic.
  socket.setKeepAlive(true, 5_000)
  const connection: Connection = {
    socket,
    ageMs,
    shownAgeMs: () => monotonicNow() - connectedMs,
    timer: undefined,
    onLost: undefined,
    unwatch,
  }
  return connection
}
