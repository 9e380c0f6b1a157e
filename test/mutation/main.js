import { Stryker } from '@stryker-mutator/core'
import { folders } from './folders.js'
import { strykerOptions } from './stryker.config.js'

// Without this, tests whose program is missing are skipped, and then mutants survive.
process.env.CI = 'true'
// A mutant often removes what a test waits for. Then the test fails after this time,
process.env.TEST_WAIT_MS = '3000'
// and if it hangs, its process ends after this time, in seconds, also if Stryker has given it up.
process.env.TAP_TIMEOUT = '20'

const chosen = process.argv.slice(2)
const unknown = chosen.filter((name) => !Object.hasOwn(folders, name))
if (unknown.length > 0) {
  throw new Error(`${unknown.join(', ')}: choose one of ${Object.keys(folders).join(', ')}`)
}

const rows = []
for (const folder of chosen.length > 0 ? chosen : Object.keys(folders)) {
  const begin = performance.now()
  const mutants = await new Stryker(strykerOptions(folder, folders[folder])).runMutationTest()
  const seconds = (performance.now() - begin) / 1000
  const count = (...statuses) => mutants.filter(({ status }) => statuses.includes(status)).length
  const killed = count('Killed', 'Timeout')
  const survived = count('Survived', 'NoCoverage')
  const tested = killed + survived
  rows.push({
    folder,
    mutants: tested,
    killed,
    survived,
    'score in %': Math.round((1000 * killed) / tested) / 10,
    minutes: Math.round(seconds / 6) / 10,
    'seconds per mutant': Math.round((100 * seconds) / tested) / 100,
  })
}
// biome-ignore lint/suspicious/noConsole: it is a command
console.table(rows)
