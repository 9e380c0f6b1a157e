import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { request } from 'undici'
import { startService } from './competitors.js'
import { median, slope } from './figures.js'
import { measure, measureSuccess, setDelay } from './measure.js'
import { memoryMegabytes } from './processes.js'

/**
 * Measures every target in each round, so that other work of the machine affects all of them alike. Each turn begins
 * with a warm-up: after eight seconds without load, V8 shrinks the heap and discards compiled code. For the next second
 * or two, a request would cost up to twice as much.
 */
export async function compare(bench, service, competitors, { rounds, seconds, warmUpSeconds }) {
  const entries = [
    { name: 'service, RS256', target: service },
    ...competitors.map((target) => ({ name: target.name, target })),
    ...['RS256, new tokens', 'ES256', 'ES256, new tokens', 'EdDSA, new tokens'].map((tokens) => ({
      name: `service, ${tokens}`,
      target: service,
      plan: { tokens },
    })),
    { name: 'service, replayed', target: service, plan: { isDistinct: false } },
  ].map((entry) => ({ ...entry, results: [] }))
  for (let round = 1; round <= rounds; round += 1) {
    bench.log(`round ${round} of ${rounds}`)
    for (const { target, plan, results } of entries) {
      await measureSuccess(bench, target, { ...plan, seconds: warmUpSeconds })
      results.push(await measureSuccess(bench, target, { ...plan, seconds }))
    }
  }
  return entries
}

/**
 * Measures the latency that the service adds to that of the baseline, with a slow upstream and a steady, moderate rate.
 * The turns are long: a process that was idle for eight seconds has pauses of 15 ms in the seconds after.
 */
export async function measureAddedLatency(bench, service, baseline, { rounds, seconds, warmUpSeconds }) {
  const plan = { shape: 'open', ratePerSecond: 200, connections: 200 }
  const measureWarm = async (target) => {
    await measureSuccess(bench, target, { ...plan, seconds: warmUpSeconds })
    return measureSuccess(bench, target, { ...plan, seconds })
  }
  const added = { p50Ms: [], p99Ms: [] }
  await setDelay(bench, 80)
  for (let round = 1; round <= rounds; round += 1) {
    const ofBaseline = await measureWarm(baseline)
    const ofService = await measureWarm(service)
    for (const name of ['p50Ms', 'p99Ms']) added[name].push(ofService[name] - ofBaseline[name])
  }
  await setDelay(bench, 0)
  return added
}

/** 5,000 requests at once, with an upstream that takes 2 s. */
export async function measureBurst(bench, env) {
  const service = await startService(bench, { name: 'service-burst', env })
  await firstSuccess(bench, service)
  await measureSuccess(bench, service, { seconds: 2 })
  const idle = memoryMegabytes(service.pid).resident
  await setDelay(bench, 2000)
  const burst = await measure(bench, service, {
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
  return { idle, burst, recoveryMs, after, settled }
}

/** The time from the start of the process to its first token. */
export async function measureStartup(bench, rounds) {
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

/** Memory when idle and under load, and its growth. */
export async function measureMemory(bench, { idleSeconds, memorySeconds: seconds }) {
  const service = await startService(bench, { name: 'service-memory' })
  await firstSuccess(bench, service)
  await delay(idleSeconds * 1000)
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
  // The heap and the stores fill in the first half.
  const secondHalf = samples.slice(samples.length / 2)
  return {
    idle,
    idleSeconds,
    seconds,
    requests,
    loaded: median(secondHalf.map(([, megabytes]) => megabytes)),
    peak: after.peak,
    after: after.resident,
    growthPerMinute: slope(secondHalf),
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
        // Without it, the connection would stay open and count towards the service's connection limit.
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
