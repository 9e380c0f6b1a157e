import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import { inTime } from './waiting.js'

/** The key endpoint of an identity provider, which a test can change, break and stop. */
export async function startKeyServer(t: Test, ...keys: unknown[]) {
  const peer = {
    /** What the key set holds from now on. */
    keys,
    /** Responds instead, from now on; `undefined` is well again. */
    respond: undefined as RequestListener | undefined,
    /** The header fields of every fetch. */
    fetches: [] as IncomingHttpHeaders[],
    url: '',
  }
  const server = createServer((request, response) => {
    peer.fetches.push(request.headers)
    if (peer.respond) peer.respond(request, response)
    else response.end(JSON.stringify({ keys: peer.keys }))
  })
  const start = async (port: number) => {
    server.listen(port, '127.0.0.1')
    await inTime(once(server, 'listening'), 'the key server to listen')
  }
  const stop = async () => {
    server.closeAllConnections()
    server.close()
    await inTime(once(server, 'close'), 'the key server to close')
  }
  await start(0)
  t.teardown(() => server.listening && stop())
  const { port } = server.address() as AddressInfo
  peer.url = `http://127.0.0.1:${port}/keys`
  return Object.assign(peer, {
    /** No one listens any more. */
    stop,
    comeBack: async () => {
      if (!server.listening) await start(port)
    },
  })
}

export type KeyServer = Awaited<ReturnType<typeof startKeyServer>>
