import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { openSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { request } from 'undici'

if (availableParallelism() < 2)
  throw new Error('The benchmark needs two cores: the measured process needs one for itself')

/** The measured process has the last core to itself. The load generator and the upstream share the others. */
export const measuredCore = availableParallelism() - 1
const otherCores = `0-${measuredCore - 1}`
/** The kernel counts the CPU time of processes in hundredths of a second. */
const tickMicroseconds = 10_000
const startTimeoutMs = 10_000

const running = new Set()

export function killAll() {
  for (const child of running) child.kill('SIGKILL')
}
process.on('exit', killAll)
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1))

/**
 * @param command what to run, with its arguments
 * @param directory where a log file gets its output
 */
export function start(name, command, { env = {}, directory, isMeasured = false }) {
  const logFile = join(directory, `${name}.log`)
  const log = openSync(logFile, 'w')
  const cores = isMeasured ? String(measuredCore) : otherCores
  // The kernel kills it when this process ends, even after a crash.
  const pinned = ['--pdeathsig', 'KILL', 'taskset', '--cpu-list', cores, ...command]
  const child = spawn('setpriv', pinned, {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', log, log],
  })
  running.add(child)
  const exited = once(child, 'exit').then(() => running.delete(child))
  return {
    name,
    pid: child.pid,
    logFile,
    hasExited: () => child.exitCode !== null || child.signalCode !== null,
    stop(signal = 'SIGKILL') {
      child.kill(signal)
      return exited
    },
    async finished() {
      await exited
      if (child.exitCode !== 0) throw new Error(`${name} failed: ${readFileSync(logFile, 'utf8')}`)
    },
  }
}

/** Resolves when the process sends a response: with this status, or with any. */
export async function listening(child, url, { status, pollMs = 20, dispatcher } = {}) {
  const giveUpAt = performance.now() + startTimeoutMs
  while (performance.now() < giveUpAt && !child.hasExited()) {
    try {
      const { statusCode, body } = await request(url, { dispatcher })
      await body.dump()
      if (status === undefined || statusCode === status) return
    } catch {
      // Not listening yet.
    }
    await delay(pollMs)
  }
  throw new Error(`${child.name} did not start: ${readFileSync(child.logFile, 'utf8')}`)
}

export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

/** User and system time of all threads. */
export function cpuMicroseconds(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * tickMicroseconds
}

/** The current and the highest resident memory. */
export function memoryMegabytes(pid) {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const megabytes = (name) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)[1]) / 1024
  return { resident: megabytes('VmRSS'), peak: megabytes('VmHWM') }
}
