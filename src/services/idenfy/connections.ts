import { rootCertificates } from 'node:tls'
import { type Dispatcher, Pool } from 'undici'
import { createConnector } from './connector.js'

const maxResponseBytes = 64 * 1024

export interface ConnectionOptions {
  readonly origin: string
  readonly maxConnections: number
  /** From DNS to the end of the TLS handshake with the origin, including an egress proxy. */
  readonly connectTimeoutMs: number
  /** PEM, in addition to the usual certificates. */
  readonly extraCa?: string | undefined
  /** An egress proxy that supports CONNECT. */
  readonly proxyUrl?: string | undefined
  /** Sent to the proxy with CONNECT. */
  readonly userAgent: string
}

/**
 * Keeps connections to iDenfy alive. The caller closes it. undici's own timeouts are off, because the caller has a
 * deadline for each request: they fire some milliseconds early, and the request would look like a broken connection.
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
