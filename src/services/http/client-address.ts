import type { IncomingMessage } from 'node:http'
import { BlockList, isIP, isIPv6 } from 'node:net'

/** Used when there is no address: the client had reset the connection before it was accepted. */
const unknown = 'unknown'

type Received = Pick<IncomingMessage, 'headers' | 'socket'>

export interface ClientAddress {
  /** Whether a request comes directly from a trusted proxy. */
  isFromProxy(request: Received): boolean
  /** The address of the client: that of the connection, or the one that trusted proxies report. */
  of(request: Received): string
}

/** Reads `X-Forwarded-For` as far as the proxies that wrote it are trusted. */
export function createClientAddress(trustedNetworks: readonly string[]): ClientAddress {
  const trusted = new BlockList()
  for (const network of trustedNetworks) {
    const [address = '', prefix] = network.split('/')
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    if (prefix === undefined) trusted.addAddress(address, family)
    else trusted.addSubnet(address, Number(prefix), family)
  }
  const isTrusted = (address: string) => trusted.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')

  return {
    isFromProxy: ({ socket }) => isTrusted(socket.remoteAddress ?? ''),
    of({ socket, headers }) {
      const hops = String(headers['x-forwarded-for'] ?? '').split(',')
      let address = socket.remoteAddress ?? unknown
      while (isTrusted(address)) {
        const reported = withoutPort(hops.pop() ?? '')
        // Without a valid report the proxy's address is used. An IPv6 zone is refused: it would give a client many addresses.
        if (isIP(reported) === 0 || reported.includes('%')) break
        address = reported
      }
      return address
    },
  }
}

/** Proxies also report `203.0.113.7:54321` and `[2001:db8::1]:443`. */
function withoutPort(text: string): string {
  const [, v6, v4] = /^\[([^\]]*)\](?::\d+)?$|^([\d.]+):\d+$/.exec(text.trim()) ?? []
  return v6 ?? v4 ?? text.trim()
}
