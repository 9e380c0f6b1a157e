import { fork } from 'node:child_process'
import { type ChannelListener, subscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises'
import { createServer as createTlsServer, TLSSocket } from 'node:tls'
import { fileURLToPath } from 'node:url'
import PQueue from 'p-queue'
import type { DiagnosticsChannel } from 'undici'
import { systemClock } from '../../src/clock.js'
import { outcomeOf } from '../../src/problems/catalog.js'
import { Problem } from '../../src/problems/problem.js'
import { createIdenfyClient } from '../../src/services/idenfy/client.js'
import { createConnections } from '../../src/services/idenfy/connections.js'
import { classifyFailure, createResilientClient } from '../../src/services/idenfy/resilient-client.js'
import { createBulkhead } from '../../src/services/resilience/bulkhead.js'
import { createCircuitBreaker } from '../../src/services/resilience/circuit-breaker.js'
import { createRetryBudget } from '../../src/services/resilience/retry-budget.js'
import { certificate, goodToken, httpResponse } from '../fault-server.js'

// Compares services with and without a standby connection, and counts how often the outcome of a POST is unknown. With
// arguments it runs only the kinds of upstreams with these names.

/** An instance sends its first request within this time after its start, when it has learned nothing yet. */
const firstRestMs = 2_000
const clock = systemClock
const { monotonicNow } = clock

/** How an upstream, or a firewall in front of it, ends a connection. */
const endings = {
  // A TLS server says goodbye first.
  FIN: (socket: Socket) => (socket instanceof TLSSocket ? socket.destroySoon() : socket.destroy()),
  RST: (socket: Socket) => socket.resetAndDestroy(),
  /** Nothing passes any more, in both directions, not even a FIN. */
  silence: () => {},
}

/** An upstream and the path to it, and how often it is used. */
interface Kind {
  readonly name: string
  readonly ending: keyof typeof endings
  /** How long a connection may be idle before it ends. */
  readonly limitMs?: number
  /** The upstream announces the limit. */
  readonly hasHint?: boolean
  readonly isTls?: boolean
  /** All idle connections end at each request: in the same turn of the event loop, or one before or after. */
  readonly moment?: 'turn before' | 'same turn' | 'turn after'
  readonly timeoutMs?: number
  readonly instances: number
  /** They start within this time. */
  readonly spreadMs: number
  /** Of each instance. */
  readonly requests: number
  /** Between the requests of an instance. */
  readonly restMs: readonly [min: number, max: number]
}

const many = { instances: 250, requests: 8, spreadMs: 30_000 }
const after = (seconds: number) => ({ limitMs: seconds * 1000, restMs: [0, seconds * 1500] as const })
const minute = {
  limitMs: 60_000,
  instances: 500,
  requests: 4,
  spreadMs: 90_000,
  restMs: [30_000, 75_000] as const,
}
const silent = { ...many, ending: 'silence', timeoutMs: 2_000 } as const
// A used connection is kept for 4 seconds. After most rests, a request needs another one.
const atRequest = (moment: Kind['moment']) => ({ ...many, moment, restMs: [3_500, 7_000] as const })

/** The first ones take minutes. The others run beside them. */
const kinds: readonly Kind[] = [
  { name: '60s-fin', ending: 'FIN', ...minute },
  { name: '60s-fin-hint', ending: 'FIN', ...minute, hasHint: true },
  { name: '30s-silent', ...silent, ...after(30), spreadMs: 90_000 },
  {
    name: '5s-fin-tls',
    ending: 'FIN',
    ...after(5),
    isTls: true,
    instances: 40,
    requests: 50,
    spreadMs: 60_000,
  },
  { name: '1s-fin', ending: 'FIN', ...many, ...after(1) },
  { name: '5s-fin', ending: 'FIN', ...many, ...after(5) },
  { name: 'fin-before-request', ending: 'FIN', ...atRequest('turn before') },
  { name: '5s-fin-hint', ending: 'FIN', ...many, ...after(5), hasHint: true },
  { name: 'fin-with-request', ending: 'FIN', ...atRequest('same turn') },
  { name: '1s-fin-hint', ending: 'FIN', ...many, ...after(1), hasHint: true },
  { name: '5s-rst', ending: 'RST', ...many, ...after(5) },
  { name: 'fin-after-request', ending: 'FIN', ...atRequest('turn after') },
  { name: '1s-silent', ...silent, ...after(1) },
  { name: 'rst-before-request', ending: 'RST', ...atRequest('turn before') },
  { name: '5s-silent', ...silent, ...after(5) },
  { name: 'rst-with-request', ending: 'RST', ...atRequest('same turn') },
  { name: 'rst-after-request', ending: 'RST', ...atRequest('turn after') },
]
const chosen = process.argv.slice(2)
const selected = kinds.filter(({ name }) => chosen.length === 0 || chosen.includes(name))
if (selected.length === 0) throw new Error(`choose from ${kinds.map(({ name }) => name).join(', ')}`)
const tls = selected.some(({ isTls }) => isTls) ? await certificate('localhost') : undefined

interface Connection {
  readonly socket: Socket
  endedAtMs: number
}

/** In the place of iDenfy, for one instance. */
async function startUpstream({ ending, limitMs = 0, hasHint }: Kind) {
  /** By the port of the client: the last connection from there. */
  const connections = new Map<number | undefined, Connection>()
  const posts: string[] = []
  const hint = hasHint && { 'Keep-Alive': `timeout=${limitMs / 1000}` }
  const response = httpResponse('201 Created', goodToken, { ...hint })

  function end(connection: Connection): void {
    if (Number.isFinite(connection.endedAtMs)) return
    connection.endedAtMs = monotonicNow()
    endings[ending](connection.socket)
  }
  function serve(socket: Socket): void {
    const connection = { socket, endedAtMs: Number.POSITIVE_INFINITY }
    const hasEnded = () => Number.isFinite(connection.endedAtMs)
    connections.set(socket.remotePort, connection)
    let received = ''
    socket
      .setEncoding('utf8')
      .setTimeout(limitMs, () => end(connection))
      .on('error', () => {})
      .on('end', () => hasEnded() || socket.end())
      .on('data', (text) => {
        received += text
        const [head = '', body = ''] = received.split('\r\n\r\n')
        const isComplete = body.length >= Number(/content-length: (\d+)/i.exec(head)?.[1])
        if (!isComplete || hasEnded()) return
        received = ''
        posts.push(JSON.parse(body).clientId)
        socket.write(response)
      })
  }
  const halfOpen = { allowHalfOpen: true }
  const server = tls ? createTlsServer({ ...tls, ...halfOpen }, serve) : createServer(halfOpen, serve)
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  return {
    origin: tls ? `https://localhost:${port}` : `http://127.0.0.1:${port}`,
    connections,
    posts,
    end,
    close(): void {
      server.close()
      for (const { socket } of connections.values()) socket.destroy()
    },
  }
}

/** What the pool of each origin sends, and on which connection. */
const onSent = new Map<string, (socket: Socket) => void>()
subscribe('undici:client:sendHeaders', ((message: DiagnosticsChannel.ClientSendHeadersMessage) => {
  onSent.get(String(message.request.origin))?.(message.socket)
}) as ChannelListener)

const noCounts = {
  requests: 0,
  attempts: 0,
  success: 0,
  'not created': 0,
  unknown: 0,
  /** Of these: on a connection that had a request before, as the standby connection never had. */
  'unknown, used': 0,
  /** Of these: on a connection that had no request before, and had ended when the request was sent. */
  'unknown, was dead': 0,
  /** Requests that began while a connection stood by. */
  ready: 0,
  /** By the connection that an attempt was sent on. */
  standby: 0,
  new: 0,
  used: 0,
  /** POSTs that arrived more than once. */
  repeated: 0,
}
type Counts = typeof noCounts

type Source = 'standby' | 'new' | 'used'

/** One instance of the service, put together as the plugins do. */
async function runInstance(kind: Kind, standbyMaxAgeMs: number, rests: number[], counts: Counts) {
  const { timeoutMs = 8_000, moment } = kind
  const upstream = await startUpstream(kind)
  const { origin } = upstream
  let newest = 'new' as Source
  const usedSockets = new WeakSet<Socket>()
  const sent = { source: newest, port: 0, atMs: 0 }
  onSent.set(origin, (socket) => {
    const source = usedSockets.has(socket) ? 'used' : newest
    usedSockets.add(socket)
    Object.assign(sent, { source, port: socket.localPort, atMs: monotonicNow() })
    counts[source] += 1
  })
  const connections = createConnections({
    origin,
    maxConnections: 50,
    connectTimeoutMs: 2_000,
    maxAgeMs: 120_000,
    standbyMaxAgeMs,
    extraCa: tls?.cert,
    userAgent: 'idle-connections',
    clock,
    onConnected: (isStandby) => {
      newest = isStandby ? 'standby' : 'new'
    },
    onReplaced: () => {},
    onUnavailable: () => {},
    onAvailable: () => {},
  })
  connections.standby?.open()
  const client = createResilientClient({
    client: createIdenfyClient({
      dispatcher: connections,
      origin,
      authorization: { value: () => 'Basic a', checkNow: async () => {} },
      userAgent: 'idle-connections',
      clock,
      onIdleLimit: (limitMs) => connections.standby?.noteIdleLimit(limitMs),
      onDrift: () => {},
    }),
    breaker: createCircuitBreaker({ classify: classifyFailure, clock }),
    bulkhead: createBulkhead({ maxInFlight: 50, clock }),
    budget: createRetryBudget(),
    timeoutMs,
    clock,
    onAttempt: (outcome) => {
      counts.attempts += 1
      if (outcome === 'provider-timeout') connections.renew()
    },
    onRetry: () => {},
  })

  async function request(clientId: string): Promise<void> {
    const call = {
      deadlineMs: monotonicNow() + timeoutMs,
      wasSuspended: () => false,
      isAbandoned: () => false,
      admit: async () => {},
      log: { warn: () => {} },
    }
    counts.requests += 1
    try {
      await client.createKybToken({ tokenType: 'FORM', clientId }, call)
      counts.success += 1
    } catch (error) {
      if (!(error instanceof Problem)) throw error
      if (outcomeOf(error.code) !== 'unknown') counts['not created'] += 1
      else {
        counts.unknown += 1
        const connection = upstream.connections.get(sent.port)
        if (sent.source === 'used') counts['unknown, used'] += 1
        else if (connection && connection.endedAtMs < sent.atMs) counts['unknown, was dead'] += 1
      }
    }
  }

  for (const [index, restMs] of rests.entries()) {
    await delay(restMs)
    if (connections.standby?.isReady()) counts.ready += 1
    // Not those that the request opens.
    const idle = moment === undefined ? [] : [...upstream.connections.values()]
    if (moment === 'turn before') {
      idle.forEach(upstream.end)
      await nextTurn()
    }
    const response = request(`client-${index}`)
    if (moment === 'turn after') await nextTurn()
    idle.forEach(upstream.end)
    await response
  }
  onSent.delete(origin)
  await connections.destroy()
  upstream.close()
  counts.repeated += upstream.posts.length - new Set(upstream.posts).size
}

/** Uses the same rests with and without a standby connection. */
async function runKind(kind: Kind) {
  const [min, max] = kind.restMs
  const rests = Array.from({ length: kind.instances }, () => [
    Math.random() * firstRestMs,
    ...Array.from({ length: kind.requests - 1 }, () => min + Math.random() * (max - min)),
  ])
  async function run(standbyMaxAgeMs: number): Promise<Counts> {
    const counts = { ...noCounts }
    const runLater = async (own: number[], index: number) => {
      await delay((kind.spreadMs * index) / rests.length)
      await runInstance(kind, standbyMaxAgeMs, own, counts)
    }
    await Promise.all(rests.map(runLater))
    return counts
  }
  const eventLoop = monitorEventLoopDelay()
  eventLoop.enable()
  const [counts, without] = await Promise.all([run(45_000), run(0)])
  return { name: kind.name, counts, without, lateMs: Math.round(eventLoop.max / 1e6) }
}

type Result = Awaited<ReturnType<typeof runKind>>

/** In a process of its own, so that no kind disturbs another one. */
async function runInChild({ name }: Kind): Promise<Result> {
  const [result] = await once(fork(fileURLToPath(import.meta.url), [name]), 'message')
  return result
}

/** What must not happen. */
function faultsOf({ name, counts, without }: Result): string[] {
  const onUnused = (of: Counts) => of.unknown - of['unknown, used']
  // Chance decides whether a used connection ends in the moment of a request, with a standby connection or without.
  const chance = 4 * Math.sqrt(counts['unknown, used'] + without['unknown, used'])
  const faults = {
    'a request was sent on an unused connection that was dead': counts['unknown, was dead'] > 0,
    'more outcomes are unknown': onUnused(counts) > onUnused(without),
    'more outcomes are unknown on used connections':
      counts['unknown, used'] > without['unknown, used'] + chance,
    'a POST was repeated': counts.repeated + without.repeated > 0,
    'fewer requests succeed': counts.success < without.success * 0.95,
    'no connection stood by': counts.ready === 0,
  }
  return Object.entries(faults).flatMap(([fault, isTrue]) => (isTrue ? [`${name}: ${fault}`] : []))
}

function report(results: Result[]): void {
  const columns = [...Object.keys(noCounts), 'ms late']
  const line = (name: string, standby: string, cells: readonly (string | number)[]) =>
    [
      name.padEnd(18),
      standby.padEnd(7),
      ...cells.map((cell, index) => `${cell}`.padStart(columns[index]?.length ?? 0)),
    ].join('  ')
  const faults = results.flatMap(faultsOf)
  const lines = [
    line('upstream', 'standby', columns),
    ...results.flatMap(({ name, counts, without, lateMs }) => [
      line(name, 'yes', [...Object.values(counts), lateMs]),
      line('', 'no', Object.values(without)),
    ]),
    ...(faults.length > 0 ? faults : ['No outcome is unknown because of a standby connection.']),
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
  process.exitCode = faults.length > 0 ? 1 : 0
}

if (process.send) {
  const [kind] = selected
  if (kind) process.send(await runKind(kind))
  process.disconnect()
} else {
  const queue = new PQueue({ concurrency: 7 })
  const results = await Promise.all(selected.map((kind) => queue.add(() => runInChild(kind))))
  report(results.sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true })))
}
