// Generates load and writes the result to a file: node load.js PLAN_FILE
import { readFileSync, writeFileSync } from 'node:fs'
import { createHistogram, performance } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { Pool } from 'undici'

const plan = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const authorizations = JSON.parse(readFileSync(plan.tokensFile, 'utf8')).map((token) => `Bearer ${token}`)
const pool = new Pool(plan.origin, { connections: plan.connections })
const latencies = createHistogram()
const statuses = {}
const shortestLifetime = 60
const lifetimes = 2_500_000
let sent = plan.firstRequest

/** Callers take turns. Each request asks for a different lifetime, unless the plan measures replays. */
function nextRequest() {
  sent += 1
  const lifetime = plan.isDistinct ? shortestLifetime + (sent % lifetimes) : 3600
  return {
    method: 'POST',
    path: '/onboarding/kyb-token',
    headers: {
      authorization: authorizations[sent % authorizations.length],
      'content-type': 'application/json',
    },
    body: `{"lifetime":${lifetime}}`,
  }
}

async function send() {
  const begin = performance.now()
  let status
  try {
    const { statusCode, body } = await pool.request(nextRequest())
    await body.dump()
    status = statusCode
  } catch (error) {
    status = error.code ?? error.name
  }
  latencies.record(Math.max(1, Math.round((performance.now() - begin) * 1000)))
  statuses[status] = (statuses[status] ?? 0) + 1
}

const shapes = {
  /** Each connection sends its next request as soon as it has a response. */
  async closed({ connections, seconds }) {
    const end = performance.now() + seconds * 1000
    const sendUntilEnd = async () => {
      while (performance.now() < end) await send()
    }
    await Promise.all(Array.from({ length: connections }, sendUntilEnd))
  },
  /** Requests at a fixed rate, whether or not earlier ones have a response. */
  async open({ ratePerSecond, seconds }) {
    const begin = performance.now()
    const all = []
    for (let index = 0; index < ratePerSecond * seconds; index += 1) {
      await delay(Math.max(0, begin + (index * 1000) / ratePerSecond - performance.now()))
      all.push(send())
    }
    await Promise.all(all)
  },
  /** All requests at once, in waves that fit into the queue of new connections. */
  async burst({ requests, waveSize, waveMs }) {
    const all = []
    while (all.length < requests) {
      for (let index = 0; index < waveSize; index += 1) all.push(send())
      await delay(waveMs)
    }
    await Promise.all(all)
  },
}

const begin = performance.now()
await shapes[plan.shape](plan)
const seconds = (performance.now() - begin) / 1000
writeFileSync(
  plan.resultFile,
  JSON.stringify({
    seconds,
    statuses,
    requests: latencies.count,
    p50Ms: latencies.percentile(50) / 1000,
    p99Ms: latencies.percentile(99) / 1000,
    maxMs: latencies.max / 1000,
  }),
)
process.exit(0)
