// An egress proxy that supports CONNECT and needs no credentials: node egress-proxy.js PORT
import { createServer } from 'node:http'
import { connect } from 'node:net'
import { pipeline } from 'node:stream'

const [port] = process.argv.slice(2)

createServer((_request, response) => response.writeHead(405).end())
  .on('connect', ({ url }, caller) => {
    const { hostname, port } = new URL(`http://${url}`)
    const origin = connect({ host: hostname, port: Number(port), noDelay: true })
    origin.once('connect', () => caller.write('HTTP/1.1 200 Connection established\r\n\r\n'))
    pipeline(caller, origin, caller, () => {})
  })
  .listen({ port: Number(port), host: '127.0.0.1' })
