import { createSecureContext, rootCertificates } from 'node:tls'
import { type buildConnector, type Dispatcher, Pool } from 'undici'
import { type Clock, startStopwatch } from '../../clock.js'
import { createConnector } from './connector.js'
import { createLookup } from './lookup.js'
import { createStandby, type StandbyCallback, type StandbyOptions } from './standby.js'

const maxResponseBytes = 64 * 1024
/**
 * How long a connection is kept after a response, also if the server announces more. The standby connection serves the
 * next request, so there is no reason to use one that a firewall may have forgotten.
 */
const maxIdleMs = 4_000
const minRenewalIntervalMs = 1_000

export interface ConnectionsOptions
  extends Pick<StandbyOptions, 'random' | 'onReplaced' | 'onUnavailable' | 'onAvailable'> {
  readonly origin: string
  readonly maxConnections: number
  /** From DNS to the end of the TLS handshake with the origin, including an egress proxy. */
  readonly connectTimeoutMs: number
  /** No connection gets a request when it is older. At least 10 seconds. */
  readonly maxAgeMs: number
  /** How long a connection may stand by, at most half of `maxAgeMs`. 0: there is no standby connection. */
  readonly standbyMaxAgeMs: number
  /** PEM, in addition to the usual certificates. */
  readonly extraCa?: string | undefined
  /** An egress proxy that supports CONNECT. */
  readonly proxyUrl?: string | undefined
  /** Sent to the proxy with CONNECT. */
  readonly userAgent: string
  readonly clock: Clock
  /** Called when a request gets a new connection: the one that stood by, or one that it had to wait for. */
  readonly onConnected: (isStandby: boolean) => void
}

/**
 * The connections to iDenfy: those that are in use, and one that stands by. The caller closes them. undici's own timeouts
 * are off, because the caller has a deadline for each request: they fire some milliseconds early, and the request would
 * look like a broken connection.
 */
export function createConnections(options: ConnectionsOptions) {
  const { origin, connectTimeoutMs: timeoutMs, maxAgeMs, proxyUrl, userAgent, clock, onConnected } = options
  const standbyMaxAgeMs = Math.min(options.standbyMaxAgeMs, maxAgeMs / 2)
  // Node would parse the certificates again for each connection, which blocks the process for some 10 ms.
  const secureContext = createSecureContext({
    minVersion: 'TLSv1.2',
    ...(options.extraCa && { ca: [...rootCertificates, options.extraCa] }),
  })
  const { lookup, isHung } = createLookup(clock)
  const connect = createConnector({ timeoutMs, tls: { secureContext, lookup }, proxyUrl, userAgent })
  const standby =
    standbyMaxAgeMs > 0
      ? createStandby({ ...options, connect, target: targetOf(origin), maxAgeMs: standbyMaxAgeMs })
      : undefined
  const pools = new Set<Pool>()
  let pool = createPool()
  /** The age of the oldest connection that the pool got. */
  let oldestMs: (() => number) | undefined
  let sinceRenewalMs: (() => number) | undefined
  let isRenewalDue = false

  function createPool(): Pool {
    const created = new Pool(origin, {
      connections: options.maxConnections,
      maxResponseSize: maxResponseBytes,
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: maxIdleMs,
      keepAliveMaxTimeout: maxIdleMs,
      connect(target, callback) {
        const settle: StandbyCallback = (...[error, socket, standbyAgeMs]) => {
          if (error) return callback(error, null)
          noteAge(standbyAgeMs ?? 0)
          onConnected(standbyAgeMs !== undefined)
          callback(null, socket)
        }
        if (standby) standby.connect(settle)
        else connect(target, settle)
      },
    })
    pools.add(created)
    return created
  }

  function noteAge(ageMs: number): void {
    const sinceMs = startStopwatch(clock)
    if (!oldestMs || ageMs > oldestMs()) oldestMs = () => sinceMs() + ageMs
  }

  /** Requests in flight keep their connections until they end. */
  function renewPool(): void {
    const old = pool
    pool = createPool()
    oldestMs = undefined
    const forget = () => void pools.delete(old)
    old.close().then(forget, forget)
  }

  function renewIfDue(): void {
    if (!isRenewalDue || (sinceRenewalMs && sinceRenewalMs() < minRenewalIntervalMs)) return
    isRenewalDue = false
    sinceRenewalMs = startStopwatch(clock)
    renewPool()
    standby?.replace()
  }

  return {
    standby,
    isLookupHung: isHung,
    dispatch(request: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
      renewIfDue()
      // undici's `clientTtl` hangs together with `connections` (https://github.com/nodejs/undici/issues/5144).
      if (oldestMs && oldestMs() >= maxAgeMs - maxIdleMs) renewPool()
      return pool.dispatch(request, handler)
    },
    /**
     * Gives later requests new connections, because one of them seems to be dead. undici has also opened one in the place
     * of the one whose request timed out, and would keep it. Once a second at most: the server may be slow.
     */
    renew(): void {
      isRenewalDue = true
      renewIfDue()
    },
    async destroy(): Promise<void> {
      standby?.close()
      await Promise.all([...pools].map((each) => each.destroy()))
    },
  }
}

/** As undici describes it to a connector. */
function targetOf(origin: string): buildConnector.Options {
  const { host, hostname, protocol, port } = new URL(origin)
  return { host, hostname: hostname.replace(/^\[|\]$/g, ''), protocol, port }
}
