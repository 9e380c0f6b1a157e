import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { environmentSchema } from '../src/config.js'
import { problems } from '../src/problems.js'
import { redisFailureCauses } from '../src/services/redis-failure.js'
import { build } from './helper.js'

let readme = readFileSync('README.md', 'utf8')
const variables = Object.entries(environmentSchema.properties)
const required: readonly string[] = environmentSchema.required ?? []

/** That the text between `<!-- name… -->` and `<!-- /name -->` is `expected`; or makes it so. */
function matchBlock(t: Test, name: string, expected: string): void {
  const from = readme.indexOf('\n', readme.indexOf(`<!-- ${name}`)) + 1
  const to = readme.indexOf(`<!-- /${name} -->`)
  if (process.env.TAP_SNAPSHOT === '1') {
    readme = readme.slice(0, from) + expected + readme.slice(to)
    writeFileSync('README.md', readme)
  }
  t.equal(readme.slice(from, readme.indexOf(`<!-- /${name} -->`)), expected)
}

t.test('the configuration table is the schema', async (t) => {
  const rows = variables.map(([name, { default: fallback, description, secret }]) => {
    const shown =
      fallback !== undefined ? `\`${fallback}\`` : required.includes(name) ? '**required**' : 'none'
    return `| \`${name}\`${secret ? ` or \`${name}_FILE\`` : ''} | ${shown} | ${description} |\n`
  })
  matchBlock(t, 'configuration', `| variable | default | meaning |\n|---|---|---|\n${rows.join('')}`)
})

t.test('.env.example names every variable, with its default', async (t) => {
  const example = readFileSync('.env.example', 'utf8')
  const lines = [...example.matchAll(/^(# )?([A-Z_]+)=(.*)$/gm)]
  t.strictSame(lines.map(([, , name]) => name).sort(), variables.map(([name]) => name).sort())
  for (const [, comment, name = '', value] of lines) {
    const { default: fallback } =
      environmentSchema.properties[name as keyof typeof environmentSchema.properties]
    if (comment) t.equal(value, String(fallback ?? ''), name)
    else t.equal(fallback, undefined, `${name} has to be set`)
  }
})

t.test('the error table is the table of problems', async (t) => {
  const rows = Object.entries(problems).map(
    ([code, { status, retryable, when }]) =>
      `| ${status} | \`${code}\` | ${retryable ? 'yes' : 'no'} | ${when.replaceAll('|', '\\|')} |\n`,
  )
  matchBlock(t, 'errors', `| status | code | retryable | when |\n|---|---|---|---|\n${rows.join('')}`)
})

t.test('the table of faults answers with problems that exist', async (t) => {
  const [, table = ''] = readFileSync('docs/reliability.md', 'utf8').split(/<!-- \/?faults.*-->/)
  const answers = [...table.matchAll(/ (\d{3}) `([a-z-]+)`/g)]
  t.ok(answers.length > 10)
  for (const [, status, code = ''] of answers) {
    t.equal(problems[code as keyof typeof problems]?.status, Number(status), code)
  }
})

t.test('the table of Redis failures has every cause', async (t) => {
  const [, table = ''] = readFileSync('docs/reliability.md', 'utf8').split(/<!-- \/?redis-causes.*-->/)
  t.strictSame(
    [...table.matchAll(/^\| `([a-z-]+)` \| \w/gm)].map(([, cause]) => cause),
    redisFailureCauses,
  )
})

t.test('the metrics that the documents name exist', async (t) => {
  const service = await build(t)
  const names = new Set((await service.app.metrics.registry.getMetricsAsJSON()).map(({ name }) => name))
  for (const name of ['redis_up', 'redis_failures_total']) names.add(name) // with REDIS_URL alone
  const named = ['docs/operations.md', 'docs/reliability.md'].flatMap((document) => [
    ...readFileSync(document, 'utf8').matchAll(
      /\b((?:[a-z0-9]+_)+(?:total|seconds|open|in_flight|waiting|up|generation|fds|info))\b/g,
    ),
  ])
  t.ok(named.length > 20)
  for (const [, name = ''] of named) t.ok(names.has(name), name)
})

t.test('every dependency says what it is for', async (t) => {
  const { dependencies, devDependencies } = JSON.parse(readFileSync('package.json', 'utf8'))
  for (const name of Object.keys({ ...dependencies, ...devDependencies })) {
    t.match(readme, new RegExp(`^\\|[^|]*\`${name}\`[^|]*\\| \\w`, 'm'), name)
  }
})

t.test('links into the repository lead somewhere', async (t) => {
  const documents = ['README.md', ...readdirSync('docs').map((name) => join('docs', name))]
  for (const document of documents) {
    const links = readFileSync(document, 'utf8').matchAll(/\]\((?!https?:|#)([^)#]+)[^)]*\)/g)
    for (const [, target = ''] of links) {
      const path = join(dirname(document), target)
      t.ok(existsSync(path), `${document}: ${path}`)
    }
  }
})
