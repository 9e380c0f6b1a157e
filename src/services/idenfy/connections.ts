import { rootCertificates } from 'node:tls'
import { type Dispatcher, Pool } from 'undici'
import { createConnector } from './connector.js'

const maxResponseBytes = 64 * 1024

export interface ConnectionOptions {
  readonly origin: string
  readonly maxConnections: number
  /** From DNS to the end of the TLS handshake with the origin, an egress proxy included. */
  readonly connectTimeoutMs: number
  /** PEM, besides the usual certificates. */
  readonly extraCa?: string | undefined
  /** An egress proxy that knows CONNECT. */
  readonly proxyUrl?: string | undefined
  /** Sent to the proxy with CONNECT. */
  readonly userAgent: string
}

/**
 * The connections to iDenfy, kept alive; closed by the caller. The caller has a deadline for each request, so undici's
 * timeouts are off: they fire some milliseconds early, and the request would fail as a broken connection.
 */
export function createConnections(options: ConnectionOptions): Dispatcher {
  const tls = {
    minVersion: 'TLSv1.2' as const,
    ...(options.extraCa && { ca: [...rootCertificates, options.extraCa] }),
  }
  return new Pool(options.origin, {
    connections: options.maxConnections,
    maxResponseSize: maxResponseBytes,
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: createConnector({
      timeoutMs: options.connectTimeoutMs,
      tls,
      proxyUrl: options.proxyUrl,
      userAgent: options.userAgent,
    }),
  })
}
