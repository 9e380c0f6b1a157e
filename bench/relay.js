// Stands for the distance to iDenfy. A new connection takes one round trip, and so does each exchange on it:
// node relay.js PORT UPSTREAM_PORT
import { connect, createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

const [port, upstreamPort] = process.argv.slice(2).map(Number)
const oneWayMs = 20
const socketOptions = { noDelay: true, allowHalfOpen: true }

/** Passes everything on later, in the same order. */
function forward(from, to) {
  const queue = []
  const later = (action) => {
    queue.push(action)
    setTimeout(() => queue.shift()(), oneWayMs)
  }
  from.on('data', (chunk) => later(() => to.write(chunk)))
  from.on('end', () => later(() => to.end()))
  from.on('error', () => {})
  from.on('close', () => later(() => to.destroy()))
}

createServer(socketOptions, async (caller) => {
  // The TCP handshake on this machine takes no time, so the first bytes wait instead.
  await delay(2 * oneWayMs)
  const upstream = connect({ ...socketOptions, port: upstreamPort, host: '127.0.0.1' })
  forward(caller, upstream)
  forward(upstream, caller)
}).listen({ port, host: '127.0.0.1' })
