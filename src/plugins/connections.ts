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
    /** Whether the client has disconnected. No one will read the response. */
    isAbandoned(): boolean
  }
}

type RequestEndListener = (reply: FastifyReply, wasSent: boolean) => void

export interface Connections {
  /** Calls the listener once for every request: its response was sent, or its client disconnected before that. */
  onRequestEnd(listener: RequestEndListener): void
  /** For requests that run no hooks: a request has begun. */
  begin(reply: FastifyReply): void
  /** For requests that run no hooks: the response was sent. */
  end(reply: FastifyReply): void
  /** The request that is still being received on a connection. */
  arriving(socket: Socket): FastifyReply | undefined
  /** Closes a connection after the responses in progress. @returns false if there are none */
  closeAfterResponses(socket: Socket): boolean
  /** From now on every response closes its connection. */
  stopKeepAlive(): void
}

interface Connection {
  /**
   * Requests whose responses are not sent yet. Not a Set: V8 keeps the former tables of a Set, and with them whole
   * requests. That costs a quarter of the CPU.
   */
  readonly inProgress: FastifyReply[]
  /** The request that the parser reads now, or has read last. */
  latest: FastifyReply | undefined
  isLast: boolean
}

/** At shutdown a request body that is being received may take this long. */
const arrivalGraceMs = 500

/**
 * Tracks which requests are in progress on which connection, until the response is sent or the client disconnects.
 * Neither Node's `close` event of a response nor Fastify's `onRequestAbort` is emitted for every request.
 *
 * When the server closes, connections without a request are closed. Node would wait for connections on which no request
 * ever began, without enforcing timeouts: https://github.com/nodejs/node/issues/63452
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
      // Node drops the address of a connection that was reset, unless it was read before.
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
      if (!keepsAlive) setConnectionClose(connection)
    }

    function end(reply: FastifyReply): void {
      const { socket } = reply.request
      const connection = open.get(socket)
      // Otherwise the client disconnected, and the listener was called then.
      if (connection?.inProgress.includes(reply)) {
        connection.inProgress.splice(connection.inProgress.indexOf(reply), 1)
        // V8 copies everything that a connection refers to in each collection of the young generation.
        if (connection.latest === reply && reply.request.raw.complete) connection.latest = undefined
        onEnd(reply, true)
        if ((isClosing || connection.isLast) && connection.inProgress.length === 0) socket.destroySoon()
      }
    }

    function stopKeepAlive(): void {
      keepsAlive = false
      open.forEach(setConnectionClose)
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
        setConnectionClose(connection)
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

/** Sets `Connection: close` on the last response only. Node drops responses that come after it. */
function setConnectionClose({ inProgress, latest }: Connection): void {
  for (const reply of inProgress) {
    if (reply.raw.headersSent) continue
    if (reply === latest) reply.raw.setHeader('connection', 'close')
    else reply.raw.removeHeader('connection')
  }
}
