import { rootCertificates } from 'node:tls'
import { type Dispatcher, Pool, ProxyAgent } from 'undici'

const maxAnswerBytes = 64 * 1024

export interface ConnectionOptions {
  readonly origin: string
  readonly maxConnections: number
  /** TLS included. */
  readonly connectTimeoutMs: number
  /** For the headers and for the body of an answer each; whoever calls has a deadline for both. */
  readonly phaseTimeoutMs: number
  /** PEM, besides the usual certificates. */
  readonly extraCa?: string | undefined
  /** An egress proxy that knows CONNECT. */
  readonly proxyUrl?: string | undefined
}

/** The connections to iDenfy, kept alive; closed by whoever makes them. */
export function createConnections(options: ConnectionOptions): Dispatcher {
  const tls = {
    timeout: options.connectTimeoutMs,
    minVersion: 'TLSv1.2' as const,
    ...(options.extraCa && { ca: [...rootCertificates, options.extraCa] }),
  }
  const limits = {
    connections: options.maxConnections,
    maxResponseSize: maxAnswerBytes,
    headersTimeout: options.phaseTimeoutMs,
    bodyTimeout: options.phaseTimeoutMs,
  }
  if (options.proxyUrl === undefined) return new Pool(options.origin, { ...limits, connect: tls })
  return new ProxyAgent({
    ...limits,
    uri: options.proxyUrl,
    requestTls: tls,
    proxyTls: tls,
    clientFactory: (proxy, poolOptions) => new TunnelPool(proxy, poolOptions as Pool.Options),
  })
}

/**
 * When a proxy closes the connection during CONNECT, undici 7 connects again, at once and without end. It does not
 * with an error of another code. https://github.com/nodejs/undici/issues/3897, mended in version 8, for Node 22.
 */
class TunnelPool extends Pool {
  override async connect(options: unknown): Promise<never> {
    try {
      return (await super.connect(options as Dispatcher.ConnectOptions)) as never
    } catch (cause) {
      throw Object.assign(new Error('No tunnel through the proxy', { cause }), { code: 'UND_ERR_PRX_CONN' })
    }
  }
}
