import { readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { startFaultServer } from '../fault-server.js'
import {
  addressesOf,
  inTime,
  listen,
  openSocket,
  Secrets,
  send,
  spawnNode,
  startPeers,
  until,
} from '../helper.js'
import { connectRedis, startRedis } from '../redis-server.js'
import { createFailingIdenfy, mayOpen, type Post } from './idenfy-outages.js'

const totalMs = Number(process.env.CHAOS_SECONDS ?? 60) * 1000
const seed = Number(process.env.CHAOS_SEED ?? Date.now() % 1_000_000)
const attemptsPerSecond = 40
const timeoutMs = 5_000
/** How often a mesh sends a request again that got a 503 or no response. */
const meshRetries = 2

/** Milliseconds of the wall clock, which replicas write into their logs. */
interface Window {
  readonly from: number
  readonly to: number
}

interface Replica {
  readonly url: string
  readonly managementUrl: string
  readonly process: ReturnType<typeof spawnNode>
  readonly samples: { atMs: number; megabytes: number; files: number }[]
}

/** One user who wants one verification: clicks at once, and perhaps one more after a success. */
interface Attempt {
  readonly company: string
  readonly sentAtMs: number[]
  endedAtMs: number
  readonly responses: string[]
}

/** The same numbers for the same seed (mulberry32). */
function randomFrom(state: number): () => number {
  let s = state
  return () => {
    s = (s + 0x6d2b79f5) | 0
    let x = Math.imul(s ^ (s >>> 15), 1 | s)
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x
    return ((x ^ (x >>> 14)) >>> 0) / 4_294_967_296
  }
}

async function startReplica(t: Test, env: Record<string, string>): Promise<Replica> {
  const server = spawnNode(
    t,
    ['bundle/server.js'],
    { ...env, PORT: '0', MANAGEMENT_PORT: '0' },
    new Secrets(),
  )
  const samples: Replica['samples'] = []
  const pid = String(server.child.pid)
  const timer = setInterval(() => {
    try {
      const [, kilobytes] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
      const files = readdirSync(`/proc/${pid}/fd`).length
      samples.push({ atMs: Date.now(), megabytes: Number(kilobytes) / 1024, files })
    } catch (error) {
      // The process has ended.
      clearInterval(timer)
      if (!['ENOENT', 'ESRCH'].includes(String((error as NodeJS.ErrnoException).code))) throw error
    }
  }, 500)
  t.teardown(() => clearInterval(timer))
  return { ...(await addressesOf(server)), process: server, samples }
}

/** When this replica was on its own, by its log. */
function timesAlone({ process: { output } }: Replica): Window[] {
  const changes = [...output.stdout.matchAll(/^.*"time":"([^"]+)".*"msg":"Redis (available|unavailable)/gm)]
  return changes.flatMap(([, time, state], index) => {
    if (state === 'available') return []
    const until = changes[index + 1]?.[1]
    // What was under way when it began counts too.
    return [
      { from: Date.parse(String(time)) - 500, to: until ? Date.parse(until) : Number.POSITIVE_INFINITY },
    ]
  })
}

/** An egress proxy. While it stalls, tunnels break and CONNECT gets no response. */
async function startProxy(t: Test, target: string) {
  const sockets = new Set<Socket>()
  let isStalling = false
  const server = createServer().on('connect', (_request, client: Socket) => {
    sockets.add(client.on('error', () => {}).on('close', () => sockets.delete(client)))
    if (isStalling) return
    const upstream = connect(Number(new URL(target).port), '127.0.0.1', () => {
      client.write('HTTP/1.1 200 Connection Established\r\n\r\n')
      upstream.pipe(client).pipe(upstream)
    })
    client.on('close', () => upstream.destroy())
    upstream.on('error', () => client.destroy()).on('close', () => client.destroy())
  })
  const destroyAll = () => {
    for (const socket of sockets) socket.destroy()
  }
  const port = await listen(t, server)
  t.teardown(destroyAll)
  return {
    url: `http://127.0.0.1:${port}`,
    stall(stalling: boolean) {
      isStalling = stalling
      destroyAll()
    },
  }
}

async function metric({ managementUrl }: Replica, name: string): Promise<number> {
  const { text } = await send(`${managementUrl}/metrics`)
  return Number(new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1])
}

async function isSharing(replica: Replica): Promise<boolean> {
  return (await metric(replica, 'redis_up')) === 1
}

function groupBy(posts: readonly Post[], member: 'clientId' | 'fault'): Map<string, Post[]> {
  const groups = new Map<string, Post[]>()
  for (const post of posts) groups.set(post[member], [...(groups.get(post[member]) ?? []), post])
  return groups
}

/** Least squares, a minute. */
function slope(samples: Replica['samples'], value: 'megabytes' | 'files'): number {
  const mean = (of: (sample: Replica['samples'][number]) => number) =>
    samples.reduce((sum, sample) => sum + of(sample), 0) / samples.length
  const meanX = mean(({ atMs }) => atMs)
  const meanY = mean((sample) => sample[value])
  const covariance = mean((sample) => (sample.atMs - meanX) * (sample[value] - meanY))
  return (covariance / mean(({ atMs }) => (atMs - meanX) ** 2)) * 60_000
}

t.test('two replicas, one Redis, an egress proxy, a failing iDenfy, a mesh, impatient users', async (t) => {
  const random = randomFrom(seed)
  const begin = Date.now()
  const elapsed = () => (Date.now() - begin) / totalMs
  // An outage on the way, so that the circuit opens and closes.
  const isOutage = () => elapsed() > 0.2 && elapsed() < 0.25
  const idenfy = createFailingIdenfy(random, () => (isOutage() ? 1 : 0.25))
  const peer = await startFaultServer(t, idenfy.script)
  const redis = await startRedis(t)
  const proxy = await startProxy(t, peer.url)
  const peers = await startPeers(t)
  const env = {
    ...peers.environment,
    ...redis.env,
    IDENFY_BASE_URL: peer.url,
    IDENFY_PROXY_URL: proxy.url,
    IDENFY_TIMEOUT_MS: String(timeoutMs),
    IDENFY_MAX_IN_FLIGHT: '200',
    KYB_REPLAY_SECONDS: '30',
  }
  const replicas = [await startReplica(t, env), await startReplica(t, env)]
  const all = [...replicas]
  const anyReplica = () => replicas[Math.floor(random() * replicas.length)] as Replica

  const attempts: Attempt[] = []
  const codes = new Map<string, number>()
  let requests = 0
  let misdelivered = 0

  /** As a mesh would: a request that gets a 503, or no connection, is sent again, to any replica. */
  async function click(
    attempt: Attempt,
    token: string,
    key?: string,
    retries = meshRetries,
  ): Promise<string> {
    requests += 1
    attempt.sentAtMs.push(Date.now())
    const headers = { authorization: `Bearer ${token}`, ...(key !== undefined && { 'idempotency-key': key }) }
    const response = await send(`${anyReplica().url}/onboarding/kyb-token`, {
      method: 'POST',
      headers,
    }).catch(() => null)
    const code =
      response === null ? 'no connection' : response.status === 201 ? 'success' : String(response.json.code)
    codes.set(code, (codes.get(code) ?? 0) + 1)
    if ((response === null || response.status === 503) && retries > 0)
      return click(attempt, token, key, retries - 1)
    if (response?.status === 201) {
      const { clientId, externalRef, tokenString } = response.json
      const isTheirs = clientId === attempt.company && externalRef === `of-${clientId}`
      if (!isTheirs || idenfy.owners.get(tokenString) !== attempt.company) misdelivered += 1
    }
    return code
  }

  /** A client that resets its connection at any moment. */
  async function clickAndReset(attempt: Attempt, token: string, key?: string): Promise<string> {
    requests += 1
    attempt.sentAtMs.push(Date.now())
    const { socket, closed } = openSocket(anyReplica().url)
    const field = key === undefined ? '' : `Idempotency-Key: ${key}\r\n`
    socket.write(
      `POST /onboarding/kyb-token HTTP/1.1\r\nHost: a\r\n${field}Authorization: Bearer ${token}\r\n\r\n`,
    )
    await delay(random() * 400)
    socket.resetAndDestroy()
    await closed()
    return 'reset by the client'
  }

  async function attemptOnce(index: number): Promise<void> {
    const company = `company-${index}`
    const attempt: Attempt = { company, sentAtMs: [], endedAtMs: 0, responses: [] }
    attempts.push(attempt)
    const token = await peers.token({ company_id: company, sub: `of-${company}` })
    const key = random() < 0.3 ? `key-${index}` : undefined
    const clicks = 1 + Math.floor(random() * 3)
    attempt.responses.push(
      ...(await Promise.all(
        Array.from({ length: clicks }, () =>
          random() < 0.1 ? clickAndReset(attempt, token, key) : click(attempt, token, key),
        ),
      )),
    )
    if (attempt.responses.includes('success') && random() < 0.3) {
      await delay(random() * 1000)
      attempt.responses.push(await click(attempt, token, key))
    }
    attempt.endedAtMs = Date.now()
  }

  const running: Promise<void>[] = []
  const timer = setInterval(() => running.push(attemptOnce(attempts.length)), 1000 / attemptsPerSecond)

  await delay(totalMs * 0.1)
  proxy.stall(true)
  await delay(totalMs * 0.05)
  proxy.stall(false)

  await delay(totalMs * 0.28 - (Date.now() - begin))
  const admin = connectRedis(t, redis.env.REDIS_URL)
  await admin.acl('SETUSER', 'default', '-@scripting')
  await delay(totalMs * 0.05)
  await admin.acl('SETUSER', 'default', '+@scripting')
  admin.disconnect()

  await delay(totalMs * 0.4 - (Date.now() - begin))
  const killedAt = Date.now()
  await redis.stop()
  await delay(totalMs * 0.1)
  await redis.restart()
  await until(
    async () => (await Promise.all(replicas.map(isSharing))).every(Boolean),
    'all replicas to use Redis again',
  )
  const withoutRedis: Window[] = [{ from: killedAt, to: Date.now() }]

  await delay(totalMs * 0.56 - (Date.now() - begin))
  const stopped = anyReplica()
  stopped.process.child.kill('SIGSTOP')
  await delay(Math.min(totalMs * 0.05, timeoutMs / 2))
  stopped.process.child.kill('SIGCONT')

  await delay(totalMs * 0.65 - (Date.now() - begin))
  const leaving = replicas.pop() as Replica
  const next = await startReplica(t, env)
  replicas.push(next)
  all.push(next)
  leaving.process.child.kill('SIGTERM')
  t.equal(await leaving.process.exited(), 0, 'SIGTERM ends in exit code 0')

  await delay(totalMs * 0.8 - (Date.now() - begin))
  peer.vanish()
  await delay(totalMs * 0.05)
  peer.comeBack()

  await delay(totalMs - (Date.now() - begin))
  clearInterval(timer)
  await inTime(Promise.all(running), 'the last attempts to end', 90_000)

  for (const replica of all) {
    const times = timesAlone(replica)
    // Redis was stopped after all but the last replica had started.
    if (replica !== next) t.not(times.length, 0, 'the log says when the replica was without Redis')
    withoutRedis.push(...times)
  }
  const postsOf = groupBy(idenfy.posts, 'clientId')
  const extra = { 'after a refusal, which opened nothing': 0, 'without Redis': 0 }
  const duplicates: string[] = []
  const counts = new Map<number, number>()
  for (const attempt of attempts) {
    const posts = postsOf.get(attempt.company) ?? []
    counts.set(posts.length, (counts.get(posts.length) ?? 0) + 1)
    for (const [index, post] of posts.entries()) {
      const before = posts[index - 1]
      if (before !== undefined) {
        const reason = excuse(attempt, before)
        if (reason) extra[reason] += 1
        else duplicates.push(`${attempt.company}: ${before.fault}, then ${post.fault}`)
      }
    }
  }

  function excuse(attempt: Attempt, before: Post): keyof typeof extra | undefined {
    if (!mayOpen(before.fault)) return 'after a refusal, which opened nothing'
    const sentFirst = Math.min(...attempt.sentAtMs)
    const isAlone = withoutRedis.some(({ from, to }) => attempt.endedAtMs > from && sentFirst < to)
    return isAlone ? 'without Redis' : undefined
  }

  const list = (entries: Iterable<[string | number, number]>) =>
    [...entries]
      .sort(([, a], [, b]) => b - a)
      .map(([name, count]) => `    ${String(count).padStart(6)}  ${name}`)
  const faultCounts = groupBy(idenfy.posts, 'fault')
  t.comment(
    [
      `chaos, ${totalMs / 1000} s, seed ${seed}`,
      `  attempts ${attempts.length}, requests ${requests}, POSTs at iDenfy ${idenfy.posts.length}`,
      '  responses',
      ...list(codes),
      '  what iDenfy did',
      ...list([...faultCounts].map(([fault, posts]): [string, number] => [fault, posts.length])),
      '  attempts by their POSTs',
      ...list([...counts].map(([posts, count]): [string, number] => [`${posts} POST(s)`, count])),
      '  POSTs beyond the first, of the allowed classes',
      ...list(Object.entries(extra)),
      `  times a replica was without Redis ${withoutRedis.length - 1}, the kill included`,
      `  duplicate POSTs outside of them: ${duplicates.length}`,
      `  tokens handed to the wrong company: ${misdelivered}`,
      '  replicas: resident memory, open files (least squares over the second half)',
      ...all.map(({ samples, process: { child } }) => {
        const half = samples.slice(samples.length >> 1)
        const { megabytes = 0, files = 0 } = samples.at(-1) ?? {}
        return `    pid ${child.pid}: ${megabytes.toFixed(0)} MB, ${slope(half, 'megabytes').toFixed(1)} MB/min; ${files} files, ${slope(half, 'files').toFixed(1)}/min`
      }),
    ].join('\n'),
  )
  t.strictSame(duplicates, [], 'no POST is repeated where that could open a second verification')
  t.equal(misdelivered, 0, 'no token is handed to the wrong company')
  t.ok((codes.get('success') ?? 0) > requests / 4, 'it works in between')
  t.notOk(codes.has('internal-error'), 'nothing fails that has no name')
  for (const replica of replicas) {
    t.ok(await isSharing(replica), 'state is shared again')
    // A POST whose clients have disconnected goes on until its deadline.
    await until(async () => (await metric(replica, 'idenfy_in_flight')) === 0, 'no slot to stay behind')
    t.equal(await metric(replica, 'idenfy_waiting'), 0)
  }
})
