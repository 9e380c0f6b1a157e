import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { makeCallers } from './callers.js'
import { startOthers, startService } from './contenders.js'
import { imageMegabytes } from './image.js'
import { freePort, killAll, listening, start } from './processes.js'
import { report } from './report.js'
import { addLatency, compare, flood, remember, startUp } from './scenarios.js'

const isQuick = process.env.BENCH_QUICK === '1'
const isLong = process.env.BENCH_LONG === '1'
const lengths = isQuick
  ? {
      rounds: 3,
      seconds: 1.5,
      warmUpSeconds: 0.5,
      latencySeconds: 3,
      latencyWarmUpSeconds: 0.5,
      latencyRounds: 1,
      starts: 3,
      restSeconds: 2,
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
      // So long, and a few seconds, V8 takes until it cleans up behind a start: its watchdog waits for 100.
      restSeconds: 115,
      memorySeconds: isLong ? 600 : 60,
    }
/** A run that hangs ends all the same. */
const giveUpAfterMs = (isQuick ? 5 : isLong ? 40 : 25) * 60_000

const directory = mkdtempSync(join(tmpdir(), 'bench-'))
process.on('exit', () => rmSync(directory, { recursive: true, force: true }))
setTimeout(() => {
  process.stderr.write('The benchmark takes too long\n')
  process.exit(1)
}, giveUpAfterMs).unref()

const say = (text) => process.stderr.write(`${text}\n`)

say('making callers')
const callers = await makeCallers(directory)
const port = await freePort()
const upstream = `http://127.0.0.1:${port}`
const bench = { directory, upstream, callers, say }
await listening(
  start('upstream', [process.execPath, 'bench/upstream.js', String(port), callers.jwksFile], { directory }),
  upstream,
)

say('starting the service, again and again')
const starts = await startUp(bench, lengths.starts)

const service = await startService(bench)
await listening(service, service.origin)
const silent = await startService(bench, { name: 'service without a log', env: { LOG_LEVEL: 'silent' } })
await listening(silent, silent.origin)
const others = await startOthers(bench)
const entries = await compare(bench, service, [...others, silent], lengths)

say('an upstream of 80 ms')
const floor = others.find(({ name }) => name === 'floor')
const added = await addLatency(bench, service, floor, {
  rounds: lengths.latencyRounds,
  seconds: lengths.latencySeconds,
  warmUpSeconds: lengths.latencyWarmUpSeconds,
})
for (const target of [service, silent, ...others]) await target.stop()

say('5,000 requests at once')
const floods = []
for (const maxInFlight of ['50', '5000']) {
  floods.push({ maxInFlight, ...(await flood(bench, { IDENFY_MAX_IN_FLIGHT: maxInFlight })) })
}

say('memory')
const memory = await remember(bench, lengths)

const image = imageMegabytes(directory)

const text = report({ ...lengths, isLong, entries, added, floods, starts, memory, image })
process.stdout.write(text)
if (!isQuick) writeFileSync('bench/results.md', text)
killAll()
process.exit(0)
