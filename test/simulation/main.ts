import { randomInt } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker } from 'node:worker_threads'
import type { Scenario } from './scenario.js'
import { brokenBy, scenarioOf, shrink } from './seeds.js'

/** Seeds that a thread gets at once. */
const chunk = 50
const reportEveryMs = 10_000

const help = `npm run simulate -- [options]

  --seeds <number>     how many seeds to run: 1000000
  --minutes <number>   stop after this time: 15
  --from <seed>        the first seed; a random one without it
  --until-broken       stop at the first seed that breaks a rule
  --seed <seed>        replay one seed with a timeline, and make it smaller if it breaks a rule
  --scenario <json>    replay a scenario, as printed by --seed
  --revert <name>      run the service without one of its fixes; also for a replay of what that has found
`

interface Broken {
  readonly seed: number
  readonly message: string
}

const print = (text: string) => process.stdout.write(`${text}\n`)

function runWorker(): void {
  // Stacks take time, and a replay shows them.
  Error.stackTraceLimit = 0
  parentPort?.on('message', async ({ from, end }: { from: number; end: number }) => {
    const broken: Broken[] = []
    for (let seed = from; seed < end; seed++) {
      const message = await brokenBy(scenarioOf(seed))
      if (message !== undefined) broken.push({ seed, message })
    }
    parentPort?.postMessage(broken)
  })
}

/** Runs many seeds on all cores. @returns those that break a rule, and how many were run */
async function runSeeds(from: number, count: number, minutes: number, untilBroken: boolean) {
  const endAtMs = performance.now() + minutes * 60_000
  const broken: Broken[] = []
  const end = from + count
  let next = from
  let done = 0
  const report = setInterval(() => print(`${done} seeds, ${broken.length} break a rule`), reportEveryMs)

  function runThread(): Promise<void> {
    const worker = new Worker(new URL(import.meta.url))
    return new Promise((resolve, reject) => {
      let given = 0
      const give = () => {
        const isOver = next >= end || performance.now() > endAtMs || (untilBroken && broken.length > 0)
        if (isOver) {
          void worker.terminate().then(() => resolve())
          return
        }
        given = Math.min(chunk, end - next)
        worker.postMessage({ from: next, end: next + given })
        next += given
      }
      worker.on('error', reject).on('message', (found: readonly Broken[]) => {
        broken.push(...found)
        done += given
        give()
      })
      give()
    })
  }
  await Promise.all(Array.from({ length: availableParallelism() }, runThread))
  clearInterval(report)
  broken.sort((a, b) => a.seed - b.seed)
  return { broken, done }
}

async function replay(scenario: Scenario): Promise<string | undefined> {
  const timeline: string[] = []
  const message = await brokenBy(scenario, timeline)
  print(
    `--scenario '${JSON.stringify(scenario)}'\n\n${timeline.join('\n')}\n\n${message ?? 'no rule is broken'}`,
  )
  return message
}

async function replaySeed(seed: number): Promise<boolean> {
  const message = await replay(scenarioOf(seed))
  if (message === undefined) return true
  print('\nThe smallest scenario that breaks a rule:\n')
  await replay(await shrink(seed))
  return false
}

/** One line for each kind of failure, the most frequent first. */
function printSummary(broken: readonly Broken[]): void {
  const kinds = new Map<string, Broken[]>()
  for (const one of broken) {
    const kind = one.message.replace(/\d+/g, '…').replace(/\n.*/s, '')
    kinds.set(kind, [...(kinds.get(kind) ?? []), one])
  }
  for (const [kind, seeds] of [...kinds].sort(([, a], [, b]) => b.length - a.length)) {
    print(`${seeds.length} × ${kind}\n    first seed: ${seeds[0]?.seed}`)
  }
}

function wholeNumber(option: string, text: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new Error(`--${option} needs a whole number`)
  return Number(text)
}

async function main(): Promise<boolean> {
  const { values } = parseArgs({
    options: {
      seeds: { type: 'string', default: '1000000' },
      minutes: { type: 'string', default: '15' },
      from: { type: 'string', default: String(randomInt(2 ** 31)) },
      'until-broken': { type: 'boolean', default: false },
      seed: { type: 'string' },
      scenario: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    print(help)
    return true
  }
  if (values.scenario !== undefined) return (await replay(JSON.parse(values.scenario))) === undefined
  if (values.seed !== undefined) return replaySeed(wholeNumber('seed', values.seed))
  const from = wholeNumber('from', values.from)
  const seeds = wholeNumber('seeds', values.seeds)
  const minutes = Number(values.minutes)
  if (!(minutes > 0)) throw new Error('--minutes needs a number above 0')
  const begin = performance.now()
  const { broken, done } = await runSeeds(from, seeds, minutes, values['until-broken'])
  const seconds = ((performance.now() - begin) / 1000).toFixed(1)
  print(`${done} seeds from ${from} in ${seconds} s, ${broken.length} break a rule`)
  printSummary(broken)
  return broken.length === 0 && done > 0
}

if (isMainThread) {
  const isGood = await main().catch((error) => {
    process.stderr.write(`${(error as Error).message}; see --help\n`)
    return false
  })
  process.exitCode = isGood ? 0 : 1
} else runWorker()
