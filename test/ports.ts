import { once } from 'node:events'
import { type AddressInfo, createServer, type Server } from 'node:net'
import type { Test } from 'tap'
import { inTime } from './waiting.js'

/** Lets a bare server listen on a free port until the test ends. */
export async function listen(t: Test, server: Server, host = '127.0.0.1'): Promise<number> {
  server.listen(0, host)
  await inTime(once(server, 'listening'), `a server to listen on ${host}`)
  t.teardown(() => server.close())
  return (server.address() as AddressInfo).port
}

/** A port that was free a moment ago, for peers that cannot be given port 0. */
export async function freePort(t: Test): Promise<number> {
  const server = createServer()
  const port = await listen(t, server)
  server.close()
  await inTime(once(server, 'close'), `the server on port ${port} to close`)
  return port
}
