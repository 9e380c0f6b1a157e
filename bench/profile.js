// Shows where the main thread of the service spends its time, by layer and by function: node bench/profile.js
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createCallers } from './callers.js'
import { startService } from './competitors.js'
import { table } from './figures.js'
import { measureSuccess } from './measure.js'
import { freePort, listening, start } from './processes.js'

const seconds = 10
const shownFunctions = 45
const nodeOptions = (directory) => ['--cpu-prof', '--cpu-prof-dir', directory]

const directory = mkdtempSync(join(tmpdir(), 'bench-'))
process.on('exit', () => rmSync(directory, { recursive: true, force: true }))

const callers = await createCallers(directory)
const port = await freePort()
const upstream = `http://127.0.0.1:${port}`
const bench = { directory, upstream, callers }
await listening(
  start('upstream', [process.execPath, 'bench/upstream.js', String(port), callers.jwksFile], { directory }),
  upstream,
)
// Not the bundle, because a profile of it does not show the package of a function.
const service = await startService(bench, { nodeOptions: nodeOptions(directory), entry: 'dist/server.js' })
await listening(service, service.origin)
await measureSuccess(bench, service, { seconds: 3 })
const { requests, cpuMicroseconds } = await measureSuccess(bench, service, {
  seconds,
  tokens: process.argv[2] ?? 'RS256',
  isDistinct: process.argv[3] !== 'replayed',
})
await service.stop('SIGTERM')

const [file] = readdirSync(directory).filter((name) => name.endsWith('.cpuprofile'))
const { nodes, samples, timeDeltas, endTime } = JSON.parse(readFileSync(join(directory, file), 'utf8'))
const byId = new Map(nodes.map((node) => [node.id, node.callFrame]))
const spent = { layer: new Map(), function: new Map() }
let time = endTime
// Walk the samples backwards to count only the second run, which is last.
for (let index = samples.length - 1; index >= 0 && time > endTime - (seconds + 1) * 1e6; index -= 1) {
  time -= timeDeltas[index]
  const frame = byId.get(samples[index])
  if (frame.functionName === '(idle)') continue
  const layer = layerOf(frame)
  add(spent.layer, layer, timeDeltas[index])
  add(
    spent.function,
    `${layer}: ${frame.functionName || '(anonymous)'}:${frame.lineNumber + 1}`,
    timeDeltas[index],
  )
}

process.stdout.write(
  `CPU ${cpuMicroseconds.toFixed(0)} µs a request, including all threads and the profiler\n`,
)
for (const [kind, times] of Object.entries(spent)) {
  const ranked = [...times].sort(([, a], [, b]) => b - a).slice(0, shownFunctions)
  process.stdout.write(
    `\n${table(
      [kind, 'µs a request'],
      ranked.map(([name, microseconds]) => [name, (microseconds / requests).toFixed(1)]),
    )}\n`,
  )
}
process.exit(0)

function layerOf({ url, functionName }) {
  const [, packageName] = /node_modules\/((?:@[^/]+\/)?[^/]+)\/(?!.*node_modules\/)/.exec(url) ?? []
  const [, own] = /\/dist\/(.*)\.js$/.exec(url) ?? []
  if (packageName) return packageName
  if (own) return `src/${own}`
  return url.startsWith('node:') ? url : functionName
}

function add(times, name, microseconds) {
  times.set(name, (times.get(name) ?? 0) + microseconds)
}
