import { createServer, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { createConnector } from '../../../src/services/idenfy/connector.js'
import { createStandby, type StandbyOptions } from '../../../src/services/idenfy/standby.js'
import { listen } from '../../ports.js'
import { createVirtualClock } from '../../virtual-clock.js'
import { inTime, until } from '../../waiting.js'

/** When a connection is replaced that was opened before anything is known about the path: two thirds of 800 ms. */
const firstReplacedMs = 534
const longMs = 10 * 60_000

interface SetUpOptions extends Partial<Pick<StandbyOptions, 'maxAgeMs' | 'random'>> {
  /** What the server does with each connection. */
  readonly serve?: (socket: Socket) => void
  /** After so long an idle connection is closed by the server. */
  readonly closedAfterMs?: number
  /** After so long the path drops all bytes of an idle connection. Asked for each connection when it is made. */
  readonly forgottenAfterMs?: (connection: number) => number
}

/** A standby connection to a server of this process. Time passes only when the test says so. */
async function setUp(t: Test, options: SetUpOptions = {}) {
  const { closedAfterMs, maxAgeMs = 45_000, random = () => 0 } = options
  const virtual = createVirtualClock()
  const { clock } = virtual
  const accepted: Socket[] = []
  const events: unknown[] = []
  /** The ports of clients whose connections are forgotten. */
  const forgotten = new Set<number | undefined>()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    accepted.push(socket)
    t.teardown(() => socket.destroy())
    const beganMs = clock.monotonicNow()
    const forgottenAfterMs = options.forgottenAfterMs?.(accepted.length - 1) ?? Number.POSITIVE_INFINITY
    socket
      .on('error', () => {})
      .on('end', () => {
        if (clock.monotonicNow() - beganMs <= forgottenAfterMs) socket.end()
        else forgotten.add(socket.remotePort)
      })
      .resume()
    if (closedAfterMs !== undefined) clock.setTimeout(() => socket.end(), closedAfterMs)
    options.serve?.(socket)
  })
  const port = await listen(t, server)
  const connect = createConnector({ timeoutMs: 10_000, tls: {}, userAgent: 'test/1' })
  let pending = 0
  let attempts = 0
  const opened: Socket[] = []
  const standby = createStandby({
    connect(target, callback, options) {
      pending += 1
      attempts += 1
      return connect(
        target,
        (...result) => {
          pending -= 1
          if (result[1]) opened.push(result[1])
          callback(...result)
        },
        options,
      )
    },
    target: { protocol: 'http:', hostname: '127.0.0.1', port: String(port) },
    maxAgeMs,
    random,
    clock: virtual.clock,
    onReplaced: (reason) => events.push(reason),
    onUnavailable: ({ message }) => events.push(`unavailable: ${message}`),
    onAvailable: () => events.push('available'),
  })
  t.teardown(standby.close)

  /** Waits for the network: it does not wait for the clock. */
  const settle = () =>
    until(
      () =>
        pending === 0 &&
        opened.length === accepted.length &&
        opened.every(
          (socket) => socket.destroyed || !socket.writableEnded || forgotten.has(socket.localPort),
        ),
      'the network to be quiet',
    )
  return {
    ...virtual,
    standby,
    server,
    accepted,
    opened,
    events,
    settle,
    attempts: () => attempts,
    port,
    /** Time passes, and connections are opened and closed meanwhile. */
    async passTime(milliseconds: number): Promise<void> {
      const endMs = virtual.clock.monotonicNow() + milliseconds
      for (;;) {
        await settle()
        const leftMs = endMs - virtual.clock.monotonicNow()
        if (leftMs <= 0) return
        await virtual.pass(Math.min(Math.max(virtual.nextTimerMs(), 0), leftMs))
      }
    },
    /** What a request gets. */
    take: () =>
      inTime(
        new Promise<{ error: Error | null; socket: Socket | null; standbyAgeMs: number | undefined }>(
          (resolve) =>
            standby.connect((...[error, socket, standbyAgeMs]) => resolve({ error, socket, standbyAgeMs })),
        ),
        'a connection',
      ),
  }
}

t.test('a request gets the connection that stands by, and another one is opened', async (t) => {
  const { standby, take, accepted, opened, settle, events } = await setUp(t)
  t.equal(standby.isReady(), false)
  standby.open()
  await standby.firstAttempt
  await settle()
  t.equal(accepted.length, 1)
  t.equal(standby.isReady(), true)
  const { socket, standbyAgeMs } = await take()
  t.equal(socket, opened[0])
  t.equal(standbyAgeMs, 0)
  t.equal(socket?.listenerCount('readable'), 0)
  await settle()
  t.equal(accepted.length, 2)
  t.equal(standby.isReady(), true)
  t.not((await take()).socket, socket)
  t.strictSame(events, [])
})

t.test('requests at the same time do not get the same connection', async (t) => {
  const { standby, take, settle, opened } = await setUp(t)
  standby.open()
  await settle()
  const results = await Promise.all([take(), take(), take()])
  t.equal(new Set(results.map(({ socket }) => socket)).size, 3)
  t.strictSame(
    results.map(({ standbyAgeMs }) => standbyAgeMs),
    [0, undefined, undefined],
  )
  await settle()
  // One for each request, and one that stands by.
  t.equal(opened.length, 4)
})

t.test('a connection is replaced before it is too old', async (t) => {
  const { standby, take, opened, passTime, events } = await setUp(t)
  standby.open()
  await passTime(firstReplacedMs - 1)
  t.equal(opened.length, 1)
  await passTime(1)
  t.equal(opened.length, 2)
  t.strictSame(events, ['age'])
  const { socket, standbyAgeMs } = await take()
  t.equal(socket, opened[1])
  t.ok((standbyAgeMs ?? 0) < 1, 'it is new')
})

t.test('a connection that stands by for longer than is known to be safe is not used', async (t) => {
  const { standby, take, skip, settle, opened } = await setUp(t)
  standby.open()
  await settle()
  // As a process that was stopped: no timer fires.
  skip(800)
  t.equal(standby.isReady(), false)
  const { socket, standbyAgeMs } = await take()
  t.equal(socket, opened[1])
  t.equal(standbyAgeMs, undefined)
})

t.test('time in which the machine was suspended counts as well', async (t) => {
  const { standby, clock, setWallClock, settle } = await setUp(t)
  standby.open()
  await settle()
  t.equal(standby.isReady(), true)
  setWallClock(clock.now() + 800)
  t.equal(standby.isReady(), false)
})

t.test('a path that keeps connections is trusted for longer and longer', async (t) => {
  const { standby, take, opened, passTime, accepted } = await setUp(t)
  standby.open()
  await passTime(5 * 60_000)
  const before = opened.length
  t.ok(before < 35, `${before} connections in five minutes`)
  await passTime(longMs)
  const perMinute = (opened.length - before) / (longMs / 60_000)
  t.ok(perMinute > 1.3 && perMinute < 1.5, `${perMinute} connections a minute`)
  t.ok(accepted.filter(({ destroyed }) => !destroyed).length <= 2, 'at most two are open')
  // Just after one has been replaced, and long after.
  for (const restMs of [1, 20_000, 40_000]) {
    await passTime(restMs)
    t.type((await take()).standbyAgeMs, 'number')
  }
})

t.test('short ages do not cause many connections', async (t) => {
  const { standby, opened, passTime } = await setUp(t, { maxAgeMs: 1_000 })
  standby.open()
  await passTime(60_000)
  const before = opened.length
  await passTime(longMs)
  t.equal(opened.length - before, longMs / 2_500)
})

/** The ages at which 200 requests get a connection that stood by, after rests of all lengths. */
async function agesOfUse(t: Test, options: SetUpOptions): Promise<number[]> {
  const { standby, passTime, take } = await setUp(t, options)
  standby.open()
  const ages: number[] = []
  for (let request = 0; request < 200; request++) {
    await passTime((request * 7_919) % 60_000)
    const { socket, standbyAgeMs } = await take()
    t.equal(socket?.destroyed, false)
    if (standbyAgeMs !== undefined) ages.push(standbyAgeMs)
    socket?.destroy()
  }
  return ages
}

t.test('requests get no connection that the server is about to close', async (t) => {
  for (const closedAfterMs of [1_000, 5_000, 20_000, 60_000]) {
    const ages = await agesOfUse(t, { closedAfterMs })
    t.ok(Math.max(...ages) <= closedAfterMs * 0.8, `${Math.max(...ages)} of ${closedAfterMs} ms`)
    t.ok(ages.length > (closedAfterMs === 1_000 ? 20 : 150), `${ages.length} stood by`)
  }
})

t.test('requests get no connection that the path has forgotten', async (t) => {
  for (const forgottenAfterMs of [1_000, 5_000, 20_000, 60_000]) {
    const ages = await agesOfUse(t, { forgottenAfterMs: () => forgottenAfterMs })
    t.ok(Math.max(...ages) < forgottenAfterMs, `${Math.max(...ages)} of ${forgottenAfterMs} ms`)
    t.ok(ages.length > (forgottenAfterMs === 1_000 ? 20 : 150), `${ages.length} stood by`)
  }
})

t.test('a path that begins to forget connections is trusted less, until it keeps them again', async (t) => {
  let limitMs = Number.POSITIVE_INFINITY
  const { standby, passTime, take } = await setUp(t, { forgottenAfterMs: () => limitMs })
  standby.open()
  await passTime(5 * 60_000)
  limitMs = 10_000
  // The connections that are retired now show that.
  await passTime(5 * 60_000)
  for (let request = 0; request < 100; request++) {
    await passTime(request * 977)
    const { standbyAgeMs = 0 } = await take()
    t.ok(standbyAgeMs < limitMs, `${standbyAgeMs} ms`)
  }
  limitMs = Number.POSITIVE_INFINITY
  await passTime(24 * 60 * 60_000)
  let oldestMs = 0
  for (let request = 0; request < 40; request++) {
    await passTime(30_000 + request)
    oldestMs = Math.max(oldestMs, (await take()).standbyAgeMs ?? 0)
  }
  t.ok(oldestMs > 20_000, `${oldestMs} ms`)
})

t.test('a connection that the server closes is replaced at once', async (t) => {
  const { standby, accepted, opened, settle, skip, events } = await setUp(t)
  standby.open()
  await settle()
  skip(600)
  accepted[0]?.end()
  await until(() => opened.length === 2, 'another connection')
  t.strictSame(events, ['closed'])
  t.equal(opened[0]?.destroyed, true)
})

t.test('a connection that is reset, or on which the server speaks first, is replaced at once', async (t) => {
  for (const [reason, end] of [
    ['broken', (server?: Socket) => server?.resetAndDestroy()],
    ['unexpected-data', (server?: Socket) => server?.write('HTTP/1.1 408 Request Timeout\r\n\r\n')],
    // As after an error in the process itself.
    ['closed', (_server?: Socket, client?: Socket) => client?.destroy()],
  ] as const) {
    const { standby, accepted, opened, settle, skip, events } = await setUp(t)
    standby.open()
    await settle()
    skip(600)
    end(accepted[0], opened[0])
    await until(() => opened.length === 2, 'another connection')
    t.strictSame(events, [reason])
    t.equal(opened[0]?.destroyed, true)
  }
})

t.test('a request does not get a connection that was closed just before', async (t) => {
  for (const end of [(socket?: Socket) => socket?.end(), (socket?: Socket) => socket?.resetAndDestroy()]) {
    const { standby, take, accepted, opened, settle, skip, events } = await setUp(t)
    standby.open()
    await settle()
    skip(600)
    // The client has not seen it yet: no turn of the event loop has passed.
    end(accepted[0])
    const { socket, standbyAgeMs } = await take()
    t.not(socket, opened[0])
    t.equal(standbyAgeMs, undefined)
    t.equal(socket?.destroyed, false)
    t.match(events, [/^(closed|broken)$/])
    await settle()
    t.equal(standby.isReady(), true)
  }
})

t.test(
  'a request of a busy process does not get a connection that has become too old meanwhile',
  async (t) => {
    const { standby, take, opened, settle, skip, events } = await setUp(t)
    standby.open()
    await settle()
    skip(700)
    const taken = take()
    skip(100)
    const { socket, standbyAgeMs } = await taken
    t.not(socket, opened[0])
    t.equal(standbyAgeMs, undefined)
    t.strictSame(events, ['age'])
  },
)

t.test('while the server is down, attempts become rare, and are reported once', async (t) => {
  for (const [random, delaysMs] of [
    [0, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 40_000, 40_000]],
    [1, [1_500, 3_000, 6_000, 12_000, 24_000, 48_000, 60_000, 60_000]],
  ] as const) {
    const { standby, server, settle, pass, nextTimerMs, events, attempts, port, passTime, pendingTimers } =
      await setUp(t, { random: () => random })
    server.close()
    standby.open()
    await standby.firstAttempt
    const waited: number[] = []
    for (const _ of delaysMs) {
      await settle()
      waited.push(Math.round(nextTimerMs()))
      t.equal(pendingTimers(), 1)
      await pass(nextTimerMs())
    }
    await settle()
    t.strictSame(waited, delaysMs)
    t.equal(attempts(), 1 + delaysMs.length)
    t.match(events, [/^unavailable: connect ECONNREFUSED/])
    await new Promise((resolve) => server.listen(port, '127.0.0.1', () => resolve(undefined)))
    await passTime(60_000)
    t.equal(standby.isReady(), true)
    t.notOk(events.includes('available'), 'not at once')
    await passTime(90_000)
    t.equal(events.filter((event) => event === 'available').length, 1)
  }
})

t.test('a server that closes connections at once counts as down', async (t) => {
  const { standby, passTime, accepted, events } = await setUp(t, { serve: (socket) => socket.end() })
  standby.open()
  await until(() => events.length > 0, 'the end of the first connection')
  for (let minute = 0; minute < 10; minute++) {
    await passTime(60_000)
    await until(() => accepted.every(({ destroyed }) => destroyed), 'the connections to close')
  }
  t.ok(accepted.length < 25, `${accepted.length} connections in ten minutes`)
  t.strictSame([...new Set(events)], ['closed', 'unavailable: The connection was closed at once'])
  t.equal(events.filter((event) => String(event).startsWith('unavailable')).length, 1)
})

t.test('a server that closes some connections at once is reported once', async (t) => {
  let connections = 0
  const { standby, passTime, attempts, events } = await setUp(t, {
    serve: (socket) => {
      connections += 1
      if (connections % 2 === 0) socket.end()
    },
  })
  standby.open()
  await passTime(60 * 60_000)
  t.equal(events.filter((event) => String(event).startsWith('unavailable')).length, 1)
  t.notOk(events.includes('available'))
  t.ok(attempts() < 1_000, `${attempts()} attempts in an hour`)
})

t.test('what is spent on connections that no request takes is not owed for long', async (t) => {
  const { standby, passTime, take, attempts } = await setUp(t, { closedAfterMs: 1_000 })
  standby.open()
  standby.noteIdleLimit(1_000)
  for (let request = 0; request < 1_000; request++) {
    await passTime(700)
    const { socket } = await take()
    socket?.destroy()
  }
  const before = attempts()
  await passTime(10_000)
  t.ok(attempts() - before >= 3, `${attempts() - before} in ten seconds`)
})

t.test('paths that differ: the one that forgets connections first counts', async (t) => {
  const isShort = (connection: number) => connection % 4 === 3
  const { standby, passTime, take, opened } = await setUp(t, {
    forgottenAfterMs: (connection) => (isShort(connection) ? 5_000 : Number.POSITIVE_INFINITY),
  })
  standby.open()
  let taken = 0
  let dead = 0
  for (let request = 0; request < 1_000; request++) {
    await passTime((request * 7_919) % 60_000)
    const { socket, standbyAgeMs } = await take()
    if (standbyAgeMs !== undefined) taken += 1
    if (standbyAgeMs !== undefined && standbyAgeMs > 5_000 && isShort(opened.indexOf(socket as Socket)))
      dead += 1
    socket?.destroy()
  }
  t.ok(taken > 900, `${taken} of 1000 stood by`)
  t.ok(dead < 10, `${dead} of 1000 were dead`)
})

t.test('a request that gets no response on such a connection counts as well', async (t) => {
  const { standby, passTime, take } = await setUp(t)
  standby.open()
  await passTime(10 * 60_000)
  let taken = await take()
  for (let restMs = 20_000; (taken.standbyAgeMs ?? 0) < 10_000; restMs += 1_000) {
    await passTime(restMs)
    taken = await take()
  }
  const { socket, standbyAgeMs = 0 } = taken
  socket?.write('POST / HTTP/1.1\r\n\r\n')
  await until(() => socket?.bytesWritten !== 0, 'the request to be sent')
  const closed = new Promise((resolve) => socket?.once('close', resolve))
  socket?.destroy()
  await inTime(closed, 'the connection to close')
  // One that was opened before may be older.
  await take()
  for (let request = 0; request < 10; request++) {
    await passTime(30_000 + request * 977)
    const { standbyAgeMs: ageMs = 0 } = await take()
    t.ok(ageMs <= standbyAgeMs * 0.8, `${ageMs} ms`)
  }
})

t.test('a server that says something before it closes has shown that the path works', async (t) => {
  const { standby, passTime, take } = await setUp(t, {
    serve: (socket) =>
      void socket.prependListener('end', () => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n')),
  })
  standby.open()
  await passTime(5 * 60_000)
  await passTime(30_000)
  t.ok(((await take()).standbyAgeMs ?? 0) > 1_000)
})

t.test('after a time in which the machine was suspended, a request has another one opened', async (t) => {
  const { standby, take, clock, setWallClock, settle, opened } = await setUp(t)
  standby.open()
  await settle()
  setWallClock(clock.now() + 60 * 60_000)
  t.equal((await take()).standbyAgeMs, undefined)
  await settle()
  t.equal(standby.isReady(), true)
  t.equal(opened.length, 3)
})

t.test('a longer limit that the server announces counts little by little', async (t) => {
  const { standby, passTime, take } = await setUp(t)
  standby.open()
  standby.noteIdleLimit(1_000)
  for (let response = 0; response < 400; response++) standby.noteIdleLimit(75_000)
  await passTime(20 * 60_000)
  await passTime(30_000)
  t.ok(((await take()).standbyAgeMs ?? 0) > 5_000)
})

t.test('a request that reaches the server ends the back-off', async (t) => {
  const { standby, server, settle, take, port, opened } = await setUp(t)
  server.close()
  standby.open()
  await settle()
  const { error, socket } = await take()
  t.match(error, { code: 'ECONNREFUSED' })
  t.equal(socket, null)
  t.equal(opened.length, 0)
  await new Promise((resolve) => server.listen(port, '127.0.0.1', () => resolve(undefined)))
  t.equal((await take()).standbyAgeMs, undefined)
  await settle()
  t.equal(opened.length, 2)
  t.equal(standby.isReady(), true)
})

t.test('anybody may cause one connection per age, if there is none', async (t) => {
  const { standby, server, settle, attempts, passTime } = await setUp(t)
  server.close()
  standby.open()
  await settle()
  for (let preflight = 0; preflight < 100; preflight++) standby.prepare()
  await settle()
  for (let preflight = 0; preflight < 100; preflight++) standby.prepare()
  await settle()
  t.equal(attempts(), 2)
  await passTime(44_999)
  const before = attempts()
  standby.prepare()
  await settle()
  t.equal(attempts(), before)
  await passTime(1)
  const then = attempts()
  standby.prepare()
  await settle()
  t.equal(attempts(), then + 1)
})

t.test('nothing is prepared while a connection stands by', async (t) => {
  const { standby, settle, attempts } = await setUp(t)
  standby.prepare()
  await settle()
  standby.prepare()
  await settle()
  t.equal(attempts(), 1)
})

t.test('a limit that the server announces is kept', async (t) => {
  const { standby, passTime, take } = await setUp(t)
  standby.open()
  standby.noteIdleLimit(10_000)
  standby.noteIdleLimit(75_000)
  for (let request = 0; request < 100; request++) {
    await passTime(request * 977)
    const { standbyAgeMs } = await take()
    t.ok((standbyAgeMs ?? 0) <= 8_000, `${standbyAgeMs} ms`)
  }
})

t.test('a connection is replaced when another one was dead', async (t) => {
  const { standby, settle, opened, events } = await setUp(t)
  standby.replace()
  t.strictSame(events, [], 'there is none')
  standby.open()
  await settle()
  standby.replace()
  t.equal(opened[0]?.destroyed, true)
  t.equal(standby.isReady(), false)
  await settle()
  t.equal(standby.isReady(), true)
  t.equal(opened.length, 2)
  t.strictSame(events, ['suspect'])
})

t.test('closing ends all connections, and opens no more', async (t) => {
  const { standby, passTime, take, opened, accepted, settle, events, pendingTimers } = await setUp(t)
  standby.open()
  await passTime(1_000)
  const before = events.length
  standby.close()
  t.equal(standby.isReady(), false)
  t.ok(opened.every(({ destroyed }) => destroyed))
  t.equal(pendingTimers(), 0)
  // Those in use go on.
  t.equal((await take()).standbyAgeMs, undefined)
  standby.open()
  standby.prepare()
  await settle()
  t.equal(accepted.length, opened.length)
  await until(
    () => accepted.filter(({ destroyed }) => !destroyed).length === 1,
    'all connections to close but the one in use',
  )
  t.equal(events.length, before)
})

t.test('closing also ends a connection that is being opened', async (t) => {
  const { standby, attempts, events } = await setUp(t)
  standby.open()
  standby.close()
  await standby.firstAttempt
  t.equal(attempts(), 1)
  t.equal(standby.isReady(), false)
  t.strictSame(events, [])
})
