import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { request } from 'undici'
import { cpuMicroseconds, memoryMegabytes, start } from './processes.js'

const connections = 50
/** More than any run sends, so that no two runs request the same session. */
const requestsPerRun = 100_003
let runs = 0

async function control({ upstream }, options) {
  const { body } = await request(`${upstream}/`, options)
  return body.json()
}

export function setDelay(bench, delayMs) {
  return control(bench, { method: 'PUT', body: JSON.stringify({ delayMs }) })
}

/**
 * Runs a load generator in its own process.
 *
 * @returns what the load generator measured, the CPU time and memory of the target, and the number of upstream calls
 */
export async function measure(bench, target, plan) {
  const { directory, callers } = bench
  runs += 1
  const planFile = join(directory, 'plan.json')
  const resultFile = join(directory, 'result.json')
  const { tokens = 'RS256', ...shape } = plan
  writeFileSync(
    planFile,
    JSON.stringify({
      shape: 'closed',
      connections,
      isDistinct: true,
      ...shape,
      origin: target.origin,
      tokensFile: callers.tokenFiles[tokens],
      firstRequest: runs * requestsPerRun,
      resultFile,
    }),
  )
  const before = { cpu: cpuMicroseconds(target.pid), calls: (await control(bench)).calls }
  await start('load', [process.execPath, 'bench/load.js', planFile], { directory }).finished()
  const cpu = cpuMicroseconds(target.pid) - before.cpu
  const { calls, mostInFlight } = await control(bench)
  const seen = JSON.parse(readFileSync(resultFile, 'utf8'))
  return {
    ...seen,
    perSecond: seen.requests / seen.seconds,
    cpuMicroseconds: cpu / seen.requests,
    busy: cpu / (seen.seconds * 1_000_000),
    callsPerRequest: (calls - before.calls) / seen.requests,
    mostInFlight,
    memory: memoryMegabytes(target.pid),
  }
}

/** Like {@link measure}, but throws if any response is not a token. */
export async function measureSuccess(bench, target, plan) {
  const result = await measure(bench, target, plan)
  if (result.statuses[201] !== result.requests) {
    throw new Error(`${target.name} responded with ${JSON.stringify(result.statuses)}`)
  }
  return result
}
