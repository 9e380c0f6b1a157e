import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import { type Arrival, httpResponse } from '../fault-server.js'

/** What may be said of a POST afterwards. */
export interface Post {
  readonly clientId: string
  readonly fault: string
  readonly arrivedAtMs: number
  /** When its sender may first know how it ended. */
  readonly endsAtMs: number
}

type Fault = (socket: Socket, arrival: Arrival, token: string) => void

/** Long enough for every click of a double click to be in. */
const minDelayMs = 200
const maxDelayMs = 350

const created = (body: object, token: string) =>
  httpResponse('201 Created', {
    tokenType: 'FORM',
    tokenString: token,
    expiration: new Date(Date.now() + 3_600_000).toISOString(),
    ...body,
  })
const response =
  (status: string, body: unknown = '', headers: Record<string, string> = {}): Fault =>
  (socket) =>
    socket.write(httpResponse(status, body, headers))

const success = 'created'

/** Whether a POST that met this may have opened a verification. */
export const mayOpen = (fault: string): boolean => !fault.startsWith('R ')

/** All that can happen to a POST, by name; classes as in docs/reliability.md. */
export const faults: Record<string, Fault> = {
  [success]: (socket, { body: { clientId, externalRef } }, token) =>
    socket.write(created({ clientId, externalRef }, token)),
  'created, without its identity': (socket, _arrival, token) => socket.write(created({}, token)),
  'U reset': (socket) => socket.resetAndDestroy(),
  'U closed': (socket) => socket.end(),
  'U no response': () => {},
  'U stalled': (socket) =>
    socket.write('HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{'),
  'U truncated': (socket, _arrival, token) => socket.end(created({}, token).slice(0, -9)),
  'U no HTTP': (socket) => socket.write('hello\r\n\r\n'),
  'U too large': (socket, _arrival, token) => socket.write(created({ padding: 'x'.repeat(70_000) }, token)),
  'U encoded': response('201 Created', '{}', { 'Content-Encoding': 'gzip' }),
  'U HTML': response('200 OK', '<html>', { 'Content-Type': 'text/html' }),
  'U redirect': response('302 Found', '', { Location: 'http://127.0.0.1:1/' }),
  "U another company's token": (socket, _arrival, token) =>
    socket.write(created({ clientId: 'someone-else' }, token)),
  'U 500': response('500 Oops', { identifier: 'INTERNAL_ERROR', message: 'x' }),
  'U 503': response('503 Oops', '', { 'Retry-After': '1' }),
  'R 400': response('400 Bad', { identifier: 'BAD_VALUE', message: 'x' }),
  'R 401': response('401 No', { identifier: 'UNAUTHORIZED', message: 'x' }),
  'R 402': response('402 Pay'),
  'R 403': response('403 No'),
  'R 409': response('409 Conflict'),
  'R 429': response('429 Slow'),
  'R 429, to be retried': response('429 Slow', '', { 'Retry-After': '1' }),
}

/** An iDenfy that fails with the given probability (0 to 1), in any of the ways above. */
export function createFailingIdenfy(random: () => number, failureRate: () => number) {
  const posts: Post[] = []
  /** Whose each token is. */
  const owners = new Map<string, string>()
  const names = Object.keys(faults)
  return {
    posts,
    owners,
    script(socket: Socket, arrival: Arrival): void {
      const { clientId } = arrival.body
      const isFailure = random() < failureRate()
      const fault = isFailure ? String(names[Math.floor(random() * names.length)]) : success
      const delayMs = minDelayMs + random() * (maxDelayMs - minDelayMs)
      const token = randomBytes(12).toString('hex')
      owners.set(token, clientId)
      const arrivedAtMs = Date.now()
      posts.push({ clientId, fault, arrivedAtMs, endsAtMs: arrivedAtMs + delayMs })
      setTimeout(() => faults[fault]?.(socket, arrival, token), delayMs)
    },
  }
}
