import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import t from 'tap'
import ts from 'typescript'

const files = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts'))
const sources = new Map(files.map((path) => [path, readFileSync(join('src', path), 'utf8')]))

/** What a file imports: paths below src for our own modules, names for packages. */
function importsOf(path: string): string[] {
  return ts
    .preProcessFile(sources.get(path) ?? '')
    .importedFiles.map(({ fileName }) =>
      fileName.startsWith('.')
        ? relative('.', join(dirname(path), fileName)).replace(/\.js$/, '.ts')
        : fileName,
    )
}

function layerOf(path: string): string {
  return /^(sandbox|services|plugins|routes)\//.exec(path)?.[1] ?? path
}

/** Which of our own modules each layer may import; what is not named may import nothing of ours. */
const allowed: Record<string, RegExp> = {
  'server.ts': /^(app|config|log-output|logger|start-up)\.ts$/,
  'start-up.ts': /^(app|config)\.ts$/,
  'healthcheck.ts': /^config\.ts$/,
  'explain.ts': /^((app|config|logger|problems)\.ts|plugins\/problem-details\.ts|services\/.*)$/,
  'app.ts': /^((plugins|routes)\/.*|config\.ts)$/,
  'config.ts': /^services\//,
  'logger.ts': /^problems\.ts$/,
  // Routes reach services through decorators; the schemas are what they share, the caller's type is erased.
  routes: /^(problems\.ts|services\/idenfy\/schemas\.ts|services\/caller\.ts)$/,
  plugins: /^(plugins\/|services\/|config\.ts|problems\.ts)/,
  services: /^(services\/|problems\.ts)/,
  sandbox: /./,
}

t.test('imports go one way', async (t) => {
  t.ok(files.length > 20)
  for (const path of files) {
    const own = importsOf(path).filter((name) => sources.has(name))
    const rule = allowed[layerOf(path)] ?? /^$/
    t.strictSame(
      own.filter((name) => !rule.test(name)),
      [],
      path,
    )
    if (layerOf(path) !== 'sandbox') {
      t.strictSame(
        own.filter((name) => layerOf(name) === 'sandbox'),
        [],
        `${path} knows nothing of the sandbox`,
      )
    }
  }
})

t.test('services know nothing of Fastify', async (t) => {
  for (const path of files.filter((path) => layerOf(path) === 'services')) {
    t.strictSame(
      importsOf(path).filter((name) => /fastify/.test(name)),
      [],
      path,
    )
  }
})

t.test('routes import no service, only types and schemas', async (t) => {
  for (const path of files.filter((path) => layerOf(path) === 'routes')) {
    t.notMatch(sources.get(path), /^import (?!type ).*services\/(?!idenfy\/schemas)/m, path)
  }
})

t.test('only config.ts reads the environment', async (t) => {
  for (const [path, text] of sources) {
    if (/(^|\/)config\.ts$/.test(path)) continue
    t.notMatch(text, /process\s*\.\s*env|import\.meta\.env/, path)
  }
})

t.test('no drawers for whatever has no place', async (t) => {
  t.strictSame(
    files.filter((path) => /(^|\/)(utils?|types|lib|helpers?|common|index)(\/|\.ts$)/.test(path)),
    [],
  )
})
