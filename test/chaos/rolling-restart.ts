import { spawn } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { freePort, inTime, Secrets, send, spawnNode, startPeers, until } from '../helper.js'

const rounds = Number(process.env.ROUNDS ?? 10)
const requestsPerSecond = 50
const drainDelayMs = 1_200

/** HAProxy as deployed, which tells on stdout which replicas it takes for up. */
async function startBalancer(t: Test, env: Record<string, string>) {
  const child = spawn('haproxy', ['-db', '-f', 'deploy/haproxy.cfg'], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => {
    child.kill('SIGKILL')
  })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    output += text
  })
  return {
    /** Resolves when HAProxy has reported a replica as up for the nth time. */
    cameUp: (name: string, times: number) => {
      const pattern = new RegExp(`Server replicas/${name} is UP`, 'g')
      return until(
        () => (output.match(pattern)?.length ?? 0) >= times,
        `HAProxy to report ${name} as up, ${times} time(s) in all`,
      )
    },
  }
}

t.test(`${rounds} rolling restarts of two replicas behind HAProxy lose no request`, async (t) => {
  const peers = await startPeers(t)
  const places = await Promise.all(
    ['replica-1', 'replica-2'].map(async (name) => ({
      name,
      port: await freePort(t),
      managementPort: await freePort(t),
    })),
  )
  const start = async ({ port, managementPort }: (typeof places)[number]) => {
    const replica = spawnNode(
      t,
      ['bundle/server.js'],
      {
        ...peers.environment,
        PORT: String(port),
        MANAGEMENT_PORT: String(managementPort),
        DRAIN_DELAY_MS: String(drainDelayMs),
        LOG_LEVEL: 'warn',
      },
      new Secrets(),
    )
    const isReady = async () => {
      const response = await send(`http://127.0.0.1:${managementPort}/readyz`).catch(() => undefined)
      if (response?.status !== 200) await delay(20)
      return response?.status === 200
    }
    await until(isReady, 'the replica to be ready', 60_000)
    return replica
  }
  const replicas = new Map<string, Awaited<ReturnType<typeof start>>>()
  for (const place of places) replicas.set(place.name, await start(place))

  const port = await freePort(t)
  const balancer = await startBalancer(t, {
    BIND: `127.0.0.1:${port}`,
    ...Object.fromEntries(
      places.flatMap((place, index) => [
        [`REPLICA_${index + 1}`, `127.0.0.1:${place.port}`],
        [`REPLICA_${index + 1}_MANAGEMENT_PORT`, String(place.managementPort)],
      ]),
    ),
  })
  const url = `http://127.0.0.1:${port}/onboarding/kyb-token`
  const isRouted = async () => {
    const response = await send(url, { method: 'POST' }).catch(() => undefined)
    if (response?.status !== 401) await delay(50)
    return response?.status === 401
  }
  await until(isRouted, 'a response of the service through HAProxy')

  await peers.setFault({ delayMs: 100 })
  const iat = Math.floor(Date.now() / 1000)
  const responses = new Map<string, number>()
  let requests = 0
  const mint = async () => {
    requests += 1
    const token = await peers.token({ sub: `u-${requests}`, iat, exp: iat + 3600 })
    const response = await send(url, { method: 'POST', headers: { authorization: `Bearer ${token}` } }).catch(
      (error) => ({ status: String(error.code) }),
    )
    responses.set(String(response.status), (responses.get(String(response.status)) ?? 0) + 1)
  }
  const running: Promise<void>[] = []
  const timer = setInterval(() => running.push(mint()), 1000 / requestsPerSecond)

  for (let round = 1; round <= rounds; round++) {
    for (const place of places) {
      const replica = replicas.get(place.name)
      replica?.child.kill('SIGTERM')
      t.equal(await replica?.exited(), 0, `round ${round}, ${place.name} ends with code 0`)
      replicas.set(place.name, await start(place))
      await balancer.cameUp(place.name, round)
    }
  }
  clearInterval(timer)
  await inTime(Promise.all(running), 'the last requests to end', 90_000)
  t.comment(
    `${rounds} rounds, ${requests} requests: ${[...responses].map((pair) => pair.join(' × ')).join(', ')}`,
  )
  t.strictSame([...responses], [['201', requests]])
})
