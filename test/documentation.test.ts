import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { parse } from 'yaml'
import { loadSandboxConfig } from '../sandbox/config.js'
import { environmentSchema } from '../src/config/environment-schema.js'
import { problems } from '../src/problems/catalog.js'
import { redisFailureCauses } from '../src/services/single-flight/redis-failure.js'
import { build } from './helper.js'

interface Alert {
  readonly alert: string
  readonly labels: { readonly severity: string }
  readonly annotations: { readonly summary: string; readonly action: string }
}

const operations = readFileSync('docs/operations.md', 'utf8')
const rules = readFileSync('deploy/prometheus-rules.yaml', 'utf8')
const alerts: Alert[] = parse(rules).groups.flatMap(({ rules }: { rules: Alert[] }) =>
  rules.filter(({ alert }) => alert !== undefined),
)
const variables = Object.entries(environmentSchema.properties)
const required: readonly string[] = environmentSchema.required ?? []

/** That in a file the text between `<!-- name… -->` and `<!-- /name -->` is `expected`; or makes it so. */
function matchBlock(t: Test, file: string, name: string, expected: string): void {
  let text = readFileSync(file, 'utf8')
  const from = text.indexOf('\n', text.indexOf(`<!-- ${name}`)) + 1
  const end = `<!-- /${name} -->`
  if (process.env.TAP_SNAPSHOT === '1') {
    text = text.slice(0, from) + expected + text.slice(text.indexOf(end))
    writeFileSync(file, text)
  }
  t.equal(text.slice(from, text.indexOf(end)), expected)
}

t.test('the configuration table is the schema', async (t) => {
  const rows = variables.map(([name, { default: fallback, description, secret }]) => {
    const shown =
      fallback !== undefined ? `\`${fallback}\`` : required.includes(name) ? '**required**' : 'none'
    return `| \`${name}\`${secret ? ` or \`${name}_FILE\`` : ''} | ${shown} | ${description} |\n`
  })
  matchBlock(
    t,
    'docs/configuration.md',
    'configuration',
    `| variable | default | meaning |\n|---|---|---|\n${rows.join('')}`,
  )
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
  const cell = (text: string) => text.replaceAll('|', '\\|')
  const rows = Object.entries(problems).map(
    ([code, { status, retryable, when, advice }]) =>
      `| ${status} | \`${code}\` | ${retryable ? 'yes' : 'no'} | ${cell(when)} | ${cell(advice)} |\n`,
  )
  const head = '| status | code | retryable | when | what the front-end should do |\n|---|---|---|---|---|\n'
  matchBlock(t, 'docs/errors.md', 'errors', head + rows.join(''))
})

t.test('the table of faults names problems that exist', async (t) => {
  const [, table = ''] = readFileSync('docs/reliability.md', 'utf8').split(/<!-- \/?faults.*-->/)
  const responses = [...table.matchAll(/ (\d{3}) `([a-z-]+)`/g)]
  t.ok(responses.length > 10)
  for (const [, status, code = ''] of responses) {
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

t.test('the table of alerts is that of the rules', async (t) => {
  const rows = alerts.map(
    ({ alert, labels, annotations }) =>
      `| \`${alert}\` | ${labels.severity} | ${annotations.summary} | ${annotations.action} |\n`,
  )
  for (const { labels } of alerts) t.match(labels.severity, /^(page|ticket)$/)
  const head = '| alert | severity | what it means | what to do |\n|---|---|---|---|\n'
  matchBlock(t, 'docs/operations.md', 'alerts', head + rows.join(''))
})

t.test('the table of mistakes names settings and alerts that exist', async (t) => {
  const [, table = ''] = operations.split(/<!-- \/?mistakes.*-->/)
  const names = [...table.matchAll(/`([A-Z]\w*[A-Z_]\w*)/g)].map(([, name = '']) =>
    name.replace(/_FILE$/, ''),
  )
  t.ok(names.length > 30)
  const known = new Set([
    ...alerts.map(({ alert }) => alert),
    ...variables.map(([name]) => name.replace(/_FILE$/, '')),
  ])
  for (const name of names) t.ok(known.has(name), name)
})

t.test('the metrics that documents and rules name exist', async (t) => {
  const service = await build(t)
  const metrics = await service.app.metrics.registry.getMetricsAsJSON()
  const names = new Set(metrics.map(({ name }) => name))
  // With REDIS_URL alone.
  for (const name of ['redis_up', 'redis_failures_total']) names.add(name)
  const named = [operations, readFileSync('docs/reliability.md', 'utf8'), rules].flatMap((text) => [
    ...text.matchAll(
      /\b((?:[a-z0-9]+_)+(?:total|seconds|open|in_flight|waiting|up|generation|fds|info|failing|usable))\b/g,
    ),
  ])
  t.ok(named.length > 20)
  for (const [, name = ''] of named) t.ok(names.has(name), name)

  const text = await service.metrics()
  const values = [...rules.matchAll(/\b(reason|outcome|class|granted|what)=~?"([^"]+)"/g)]
  t.ok(values.length > 20)
  for (const [, label, alternatives = ''] of values) {
    for (const value of alternatives.split('|')) t.match(text, `${label}="${value}"`)
  }
})

const documents = [
  ...['README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md', 'bench/README.md'],
  ...readdirSync('docs', { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
]

/** The anchors of the headings of a document, as GitHub makes them. */
function anchorsOf(text: string): string[] {
  return [...text.replace(/^```.*?^```$/gms, '').matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  )
}

t.test('links into the repository lead somewhere', async (t) => {
  let count = 0
  for (const document of documents) {
    const links = [...readFileSync(document, 'utf8').matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)/g)]
    count += links.length
    for (const [link, target = '', anchor] of links) {
      const path = target === '' ? document : join(dirname(document), target)
      t.ok(existsSync(path), `${document}: ${link}`)
      if (anchor !== undefined && path.endsWith('.md'))
        t.ok(anchorsOf(readFileSync(path, 'utf8')).includes(anchor), `${document}: ${link}`)
    }
  }
  t.ok(count > 100, `${count} links`)
})

t.test('every document is linked from the README, and the README is short', async (t) => {
  const readme = readFileSync('README.md', 'utf8')
  t.ok(Buffer.byteLength(readme) < 10_000, `${Buffer.byteLength(readme)} bytes`)
  for (const document of documents) {
    if (/^docs\/[^/]*$/.test(document)) t.match(readme, `](${document}`)
  }
})

t.test('lines of documents fit on a screen', async (t) => {
  for (const document of documents) {
    const text = readFileSync(document, 'utf8').replace(/^ *```.*?^ *```$/gms, '')
    // A table row and a line that is one link cannot be broken.
    const long = text
      .split('\n')
      .filter((line) => line.length > 120 && !/^ *(\||<!--)|^ *\S*\]\(\S*$/.test(line))
    t.strictSame(long, [], document)
  }
})

t.test('the sandbox table names the variables of the sandbox, with their defaults', async (t) => {
  const [, section = ''] = readFileSync('docs/sandbox.md', 'utf8').split('## Settings\n')
  const rows = [...section.matchAll(/^\| `(SANDBOX_\w+)` \| `(\w\S*)` \|/gm)].map(([, name, value]) => [
    name,
    value,
  ])
  const { SANDBOX_HOST, ...defaults } = loadSandboxConfig({})
  const expected = { ...defaults, SANDBOX_HOST, SANDBOX_URL_HOST: 'SANDBOX_HOST' }
  t.strictSame(
    Object.fromEntries(rows),
    Object.fromEntries(Object.entries(expected).map(([name, value]) => [name, String(value)])),
  )
})
