import { readdirSync } from 'node:fs'
import t from 'tap'

/** Files that do something when they are loaded. Their tests run them in a process of their own, or in a browser. */
const entries = ['server.ts', 'commands/healthcheck.ts', 'commands/explain.ts']
const sandboxEntries = ['server.ts', 'explain.ts']

t.test('every file counts in the coverage, tested or not', async (t) => {
  for (const [folder, excepted] of [
    ['src', entries],
    ['sandbox', sandboxEntries],
  ] as const) {
    const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(
      (path) => path.endsWith('.ts') && !/^demo\/(app|form)\.ts$/.test(path),
    )
    for (const entry of excepted) t.ok(files.includes(entry), entry)
    for (const path of files.filter((path) => !(excepted as readonly string[]).includes(path))) {
      t.ok(await import(`../${folder}/${path.replace(/\.ts$/, '.js')}`), path)
    }
  }
})
