import type { Socket } from 'node:net'
import type { FastifyReply } from 'fastify'
import fp from 'fastify-plugin'
import { Problem } from '../problems/problem.js'
import { sendProblem } from './problem-details.js'

declare module 'fastify' {
  interface FastifyInstance {
    connections: Connections
  }
  interface FastifyRequest {
    /** Whether the client has disconnected, so that no one will read the response. */
    isAbandoned(): boolean
  }
}

type RequestEndListener = (reply: FastifyReply, wasSent: boolean) => void

export interface Connections {
  /** The listener learns once of every request that its response was sent, or that its client disconnected before. */
  onRequestEnd(listener: RequestEndListener): void
  /** For requests that pass no hook: a request has begun. */
  begin(reply: FastifyReply): void
  /** For requests that pass no hook: the response was sent. */
  end(reply: FastifyReply): void
  /** The request that still arrives on a connection. */
  arriving(socket: Socket): FastifyReply | undefined
  /** Closes a connection once the responses in progress are sent; false if there are none. */
  closeAfterResponses(socket: Socket): boolean
  /** From now on every response closes its connection. */
  stopKeepAlive(): void
}

interface Connection {
  /**
   * Whose responses are not sent yet. A list: a Set that is filled and emptied leaves a chain of tables behind, which keeps
   * whole requests from V8's fast collector and costs a quarter of the CPU.
   */
  readonly inProgress: FastifyReply[]
  /** The one that the parser is busy with, or was. */
  latest: FastifyReply | undefined
  isLast: boolean
}

/** At shutdown a request body that has begun to arrive may take this long. */
const arrivalGraceMs = 500

/**
 * Knows which requests are in progress on which connection, until their responses are sent or their clients
 * disconnect. Neither Node's `close` of a response nor Fastify's `onRequestAbort` comes for every one of them.
 *
 * When the server closes, connections without a request are closed. Node waits for those on which no request ever
 * began, and enforces no timeouts meanwhile: https://github.com/nodejs/node/issues/63452
 */
export const connections = fp(
  async (app) => {
    const open = new Map<Socket, Connection>()
    let onEnd: RequestEndListener = () => {}
    let keepsAlive = true
    let isClosing = false

    function connectionOf(socket: Socket): Connection {
      const known = open.get(socket)
      if (known) return known
      const connection: Connection = { inProgress: [], latest: undefined, isLast: false }
      open.set(socket, connection)
      // Node forgets the address of a connection that was reset, unless it was read before.
      void socket.remoteAddress
      socket.once('close', () => {
        open.delete(socket)
        for (const reply of connection.inProgress) onEnd(reply, false)
      })
      return connection
    }

    function begin(reply: FastifyReply): void {
      const connection = connectionOf(reply.request.socket)
      connection.inProgress.push(reply)
      connection.latest = reply
      if (!keepsAlive) announceClose(connection)
    }

    function end(reply: FastifyReply): void {
      const { socket } = reply.request
      const connection = open.get(socket)
      // The listener has been told of a client that disconnected.
      if (connection?.inProgress.includes(reply)) {
        connection.inProgress.splice(connection.inProgress.indexOf(reply), 1)
        // What a connection refers to survives collections of the young generation, and is copied.
        if (connection.latest === reply && reply.request.raw.complete) connection.latest = undefined
        onEnd(reply, true)
        if ((isClosing || connection.isLast) && connection.inProgress.length === 0) socket.destroySoon()
      }
    }

    function stopKeepAlive(): void {
      keepsAlive = false
      open.forEach(announceClose)
    }

    function closeIdle(): void {
      for (const [socket, { inProgress }] of open) if (inProgress.length === 0) socket.destroySoon()
    }

    app.decorateRequest('isAbandoned', function () {
      return this.socket.destroyed
    })
    app.decorate('connections', {
      onRequestEnd: (listener) => {
        onEnd = listener
      },
      begin,
      end,
      arriving(socket) {
        const latest = open.get(socket)?.latest
        return latest?.request.raw.complete ? undefined : latest
      },
      closeAfterResponses(socket) {
        const connection = open.get(socket)
        if (!connection?.inProgress.length) return false
        connection.isLast = true
        announceClose(connection)
        return true
      },
      stopKeepAlive,
    })

    app.server.on('connection', connectionOf)
    app.addHook('onRequest', (_request, reply, done) => {
      begin(reply)
      done()
    })
    app.addHook('onResponse', (_request, reply, done) => {
      end(reply)
      done()
    })
    app.addHook('preClose', async () => {
      isClosing = true
      stopKeepAlive()
      closeIdle()
      setTimeout(() => {
        closeIdle()
        for (const { latest } of open.values()) {
          if (latest && !latest.request.raw.complete && !latest.sent) {
            sendProblem(new Problem('draining'), latest.request, latest)
          }
        }
      }, arrivalGraceMs).unref()
    })
  },
  { name: 'connections', fastify: '5.x', dependencies: ['problem-details'] },
)

/** In the last of the responses: Node drops those that come after it. */
function announceClose({ inProgress, latest }: Connection): void {
  for (const reply of inProgress) {
    if (reply.raw.headersSent) continue
    if (reply === latest) reply.raw.setHeader('connection', 'close')
    else reply.raw.removeHeader('connection')
  }
}
