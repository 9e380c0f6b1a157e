import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createCallers } from './callers.js'
import { startCompetitors, startService } from './competitors.js'
import { imageMegabytes } from './image.js'
import { freePort, killAll, listening, start } from './processes.js'
import { report, restReport } from './report.js'
import { measureRests } from './rest.js'
import { compare, measureAddedLatency, measureBurst, measureMemory, measureStartup } from './scenarios.js'

const isQuick = process.env.BENCH_QUICK === '1'
const isLong = process.env.BENCH_LONG === '1'
const isOnlyRest = process.env.BENCH_ONLY === 'rest'
const lengths = isQuick
  ? {
      rounds: 3,
      seconds: 1.5,
      warmUpSeconds: 0.5,
      latencySeconds: 3,
      latencyWarmUpSeconds: 0.5,
      latencyRounds: 1,
      starts: 3,
      instancesPerTarget: 1,
      restSeconds: [6],
      idleSeconds: 2,
      memorySeconds: 5,
    }
  : {
      rounds: 5,
      seconds: 4,
      warmUpSeconds: 2.5,
      latencySeconds: 16,
      latencyWarmUpSeconds: 8,
      latencyRounds: 5,
      starts: 7,
      instancesPerTarget: 5,
      restSeconds: [60, 60, 10, 10, 10],
      // V8 cleans up after a start when its timer of 100 s has fired, and takes a few seconds more.
      idleSeconds: 115,
      memorySeconds: isLong ? 600 : 60,
    }
/** Ends a run that hangs. */
const timeoutMs = (isQuick ? 5 : isLong ? 40 : 25) * 60_000

const directory = mkdtempSync(join(tmpdir(), 'bench-'))
process.on('exit', () => rmSync(directory, { recursive: true, force: true }))
setTimeout(() => {
  process.stderr.write('The benchmark took too long\n')
  process.exit(1)
}, timeoutMs).unref()

const log = (text) => process.stderr.write(`${text}\n`)

log('creating access tokens')
const callers = await createCallers(directory)
const port = await freePort()
const upstream = `http://127.0.0.1:${port}`
const bench = { directory, upstream, callers, log }
await listening(
  start('upstream', [process.execPath, 'bench/upstream.js', String(port), callers.jwksFile], { directory }),
  upstream,
)

if (isOnlyRest) {
  process.stdout.write(restReport(await measureRests(bench, lengths)))
  killAll()
  process.exit(0)
}

log('start-up time')
const starts = await measureStartup(bench, lengths.starts)

const service = await startService(bench)
await listening(service, service.origin)
const serviceWithoutLog = await startService(bench, {
  name: 'service without a log',
  env: { LOG_LEVEL: 'silent' },
})
await listening(serviceWithoutLog, serviceWithoutLog.origin)
const competitors = await startCompetitors(bench)
const entries = await compare(bench, service, [...competitors, serviceWithoutLog], lengths)

log('added latency with an upstream of 80 ms')
const baseline = competitors.find(({ name }) => name === 'baseline')
const added = await measureAddedLatency(bench, service, baseline, {
  rounds: lengths.latencyRounds,
  seconds: lengths.latencySeconds,
  warmUpSeconds: lengths.latencyWarmUpSeconds,
})
for (const target of [service, serviceWithoutLog, ...competitors]) await target.stop()

log('5,000 requests at once')
const bursts = []
for (const maxInFlight of ['50', '5000']) {
  bursts.push({ maxInFlight, ...(await measureBurst(bench, { IDENFY_MAX_IN_FLIGHT: maxInFlight })) })
}

log('after a rest')
const rested = await measureRests(bench, lengths)

log('memory')
const memory = await measureMemory(bench, lengths)

const image = imageMegabytes(directory)

const text = report({ ...lengths, isLong, entries, added, bursts, starts, rested, memory, image })
process.stdout.write(text)
if (!isQuick) writeFileSync('bench/results.md', text)
killAll()
process.exit(0)
