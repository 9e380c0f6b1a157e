import { readdirSync } from 'node:fs'
import t from 'tap'

/** Files that do something when they are loaded; their tests run them in a process of their own, or in a browser. */
const entries = [
  'server.ts',
  'healthcheck.ts',
  'explain.ts',
  'sandbox/server.ts',
  'sandbox/demo/app.ts',
  'sandbox/demo/form.ts',
]

t.test('every file of src counts in the coverage, tested or not', async (t) => {
  const files = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((path) =>
    path.endsWith('.ts'),
  )
  for (const entry of entries) t.ok(files.includes(entry), entry)
  for (const path of files.filter((path) => !entries.includes(path))) {
    t.ok(await import(`../src/${path.replace(/\.ts$/, '.js')}`), path)
  }
})
