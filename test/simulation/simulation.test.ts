import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import t from 'tap'
import type { Scenario } from './scenario.js'
import { brokenBy, scenarioOf } from './seeds.js'

/** A fix of the service, and the smallest scenario that breaks a rule without it. */
interface Fix {
  readonly name: string
  readonly rule: string
  readonly scenario: Scenario
}

const fixes: readonly Fix[] = JSON.parse(readFileSync('test/simulation/reverted-fixes.json', 'utf8'))
/** On a quiet machine it takes less than 30 seconds. */
const maxRunMs = 300_000

/** Runs `npm run simulate`. @returns its exit code and what it prints */
async function runSimulation(...args: string[]): Promise<{ code: number; output: string }> {
  const run = promisify(execFile)(process.execPath, ['test/simulation/run.js', ...args], {
    timeout: maxRunMs,
    // It would be slow, and measure a service without some of its fixes.
    env: { PATH: process.env.PATH, _TAPJS_PROCESSINFO_COVERAGE_: '0' },
  })
  return run.then(
    ({ stdout }) => ({ code: 0, output: stdout }),
    ({ code, stdout, stderr }) => ({ code, output: stdout + stderr }),
  )
}

t.test('no rule is broken in 10,000 scenarios', async (t) => {
  const { code, output } = await runSimulation('--from', '0', '--seeds', '10000', '--minutes', '4')
  t.match(output, /^10000 seeds from 0 in [\d.]+ s, 0 break a rule$/m)
  t.equal(code, 0, output)
})

t.test('the scenarios that once broke a rule break none', async (t) => {
  for (const { name, scenario } of fixes) t.equal(await brokenBy(scenario), undefined, name)
})

t.test('a defect is found again when its fix is taken back', async (t) => {
  for (const { name, rule, scenario } of fixes) {
    const { code, output } = await runSimulation('--revert', name, '--scenario', JSON.stringify(scenario))
    t.equal(code, 1, `${name}: ${output}`)
    t.ok(output.includes(`\n${rule}: `), `${name}: ${output}`)
  }
})

t.test('a seed is the same every time', async (t) => {
  for (let seed = 0; seed < 20; seed++) {
    const timelines: string[][] = [[], []]
    for (const timeline of timelines) await brokenBy(scenarioOf(seed), timeline)
    t.strictSame(timelines[0], timelines[1])
    t.not(timelines[0]?.length, 0)
  }
})
