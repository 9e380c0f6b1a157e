import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { request } from 'undici'
import { startService } from './contenders.js'
import { median, slope } from './figures.js'
import { measure, measureSuccess, setDelay } from './measure.js'
import { memoryMegabytes } from './processes.js'

/**
 * Everybody takes turns, round for round, so that what else the machine does meets all alike. A turn begins with load
 * that is not counted: after eight seconds without any, V8 shrinks the heap and forgets code, and for the next second or
 * two a request costs up to twice as much.
 */
export async function compare(bench, service, others, { rounds, seconds, warmUpSeconds }) {
  const entries = [
    { name: 'service, RS256', target: service },
    ...others.map((target) => ({ name: target.name, target })),
    ...['RS256, new tokens', 'ES256', 'ES256, new tokens', 'EdDSA, new tokens'].map((tokens) => ({
      name: `service, ${tokens}`,
      target: service,
      plan: { tokens },
    })),
    { name: 'service, replayed', target: service, plan: { isDistinct: false } },
  ].map((entry) => ({ ...entry, results: [] }))
  for (let round = 1; round <= rounds; round += 1) {
    bench.say(`round ${round} of ${rounds}`)
    for (const { target, plan, results } of entries) {
      await measureSuccess(bench, target, { ...plan, seconds: warmUpSeconds })
      results.push(await measureSuccess(bench, target, { ...plan, seconds }))
    }
  }
  return entries
}

/**
 * What the service adds to the latency of a slow upstream at a moderate rate that is steady: the turns are long, because
 * who has rested for eight seconds is tidied up by V8 in the seconds after, with pauses of 15 ms.
 */
export async function addLatency(bench, service, floor, { rounds, seconds, warmUpSeconds }) {
  const plan = { shape: 'open', ratePerSecond: 200, connections: 200 }
  const measureWarm = async (target) => {
    await measureSuccess(bench, target, { ...plan, seconds: warmUpSeconds })
    return measureSuccess(bench, target, { ...plan, seconds })
  }
  const added = { p50Ms: [], p99Ms: [] }
  await setDelay(bench, 80)
  for (let round = 1; round <= rounds; round += 1) {
    const atFloor = await measureWarm(floor)
    const atService = await measureWarm(service)
    for (const name of ['p50Ms', 'p99Ms']) added[name].push(atService[name] - atFloor[name])
  }
  await setDelay(bench, 0)
  return added
}

/** 5,000 requests at once on an upstream that takes 2 s. */
export async function flood(bench, env) {
  const service = await startService(bench, { name: 'service-flooded', env })
  await firstSuccess(bench, service)
  await measureSuccess(bench, service, { seconds: 2 })
  const idle = memoryMegabytes(service.pid).resident
  await setDelay(bench, 2000)
  const flooded = await measure(bench, service, {
    shape: 'burst',
    requests: 5000,
    connections: 5000,
    waveSize: 250,
    waveMs: 25,
  })
  await setDelay(bench, 0)
  const begin = performance.now()
  await firstSuccess(bench, service)
  const recoveryMs = performance.now() - begin
  const after = await measureSuccess(bench, service, { seconds: 2 })
  await delay(5000)
  const settled = memoryMegabytes(service.pid).resident
  await service.stop()
  return { idle, flooded, recoveryMs, after, settled }
}

/** From the start of the process to the first token. */
export async function startUp(bench, rounds) {
  const milliseconds = []
  for (let round = 1; round <= rounds; round += 1) {
    const begin = performance.now()
    const service = await startService(bench, { name: 'service-starting' })
    await firstSuccess(bench, service)
    milliseconds.push(performance.now() - begin)
    await service.stop()
  }
  return milliseconds
}

/** Memory at rest, under load, and whether it goes on growing. */
export async function remember(bench, { restSeconds, memorySeconds: seconds }) {
  const service = await startService(bench, { name: 'service-remembering' })
  await firstSuccess(bench, service)
  await delay(restSeconds * 1000)
  const idle = memoryMegabytes(service.pid).resident
  const samples = []
  const timer = setInterval(
    () => samples.push([performance.now() / 60_000, memoryMegabytes(service.pid).resident]),
    500,
  )
  const { requests } = await measureSuccess(bench, service, { seconds })
  clearInterval(timer)
  await delay(5000)
  const after = memoryMegabytes(service.pid)
  await service.stop()
  // The first half is for the heap and the stores to fill.
  const later = samples.slice(samples.length / 2)
  return {
    idle,
    restSeconds,
    seconds,
    requests,
    loaded: median(later.map(([, megabytes]) => megabytes)),
    peak: after.peak,
    after: after.resident,
    growthPerMinute: slope(later),
  }
}

async function firstSuccess({ callers }, { origin, logFile }) {
  const [token] = JSON.parse(readFileSync(callers.tokenFiles.RS256, 'utf8'))
  const giveUpAt = performance.now() + 10_000
  for (;;) {
    try {
      const { statusCode, body } = await request(`${origin}/onboarding/kyb-token`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}` },
        // Or the connection would count among those that the service takes.
        reset: true,
      })
      await body.dump()
      if (statusCode === 201) return
    } catch {
      // Not listening yet.
    }
    if (performance.now() > giveUpAt)
      throw new Error(`No token: ${readFileSync(logFile, 'utf8').slice(-2000)}`)
    await delay(1)
  }
}
