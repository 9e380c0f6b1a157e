import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import t from 'tap'
import ts from 'typescript'

const typescriptIn = (folder: string) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts'))
    .map((path) => join(folder, path))
const files = [...typescriptIn('src'), ...typescriptIn('sandbox')]
const sources = new Map(files.map((path) => [path, readFileSync(path, 'utf8')]))

/** The source files in a folder, of which there must be one. */
function filesIn(folder: string): string[] {
  const found = files.filter((path) => path.startsWith(folder))
  if (found.length === 0) throw new Error(`no files in ${folder}`)
  return found
}

interface Import {
  /** A path for a file of this repository, a name for a package. */
  readonly name: string
  readonly isTypeOnly: boolean
}

function importsOf(path: string): Import[] {
  const text = sources.get(path) ?? ''
  const typeOnly = new Set(
    [...text.matchAll(/^import type [^;]*? from '([^']+)'/gm)].map(([, fileName]) => fileName),
  )
  return ts.preProcessFile(text).importedFiles.map(({ fileName }) => ({
    name: fileName.startsWith('.')
      ? normalize(join(dirname(path), fileName)).replace(/\.js$/, '.ts')
      : fileName,
    isTypeOnly: typeOnly.has(fileName),
  }))
}

const ownImportsOf = (path: string) => importsOf(path).filter(({ name }) => sources.has(name))

/**
 * Which files of this repository a file may import, by the first rule that matches its path. Every file may also import
 * from its own folder, except for `src` itself.
 */
const rules: readonly (readonly [of: RegExp, mayImport: RegExp])[] = [
  [/^sandbox\/demo\//, /^$/],
  [/^sandbox\//, /^src\//],
  [/^src\/server\.ts$/, /^src\/(app|listen)\.ts$|^src\/(config|observability)\//],
  [
    /^src\/app\.ts$/,
    /^src\/(plugins|routes)\/|^src\/(clock|server-options)\.ts$|^src\/(config|observability)\//,
  ],
  [/^src\/listen\.ts$/, /^src\/config\//],
  [/^src\/(clock|server-options|version)\.ts$/, /^$/],
  [
    /^src\/commands\//,
    /^src\/(services|config|observability|problems)\/|^src\/server-options\.ts$|^src\/plugins\/problem-details\.ts$/,
  ],
  // Routes reach services through decorators. What they share with them are schemas and types.
  [/^src\/routes\//, /^src\/problems\/|^src\/services\/(idenfy\/schemas|auth\/caller)\.ts$/],
  [/^src\/plugins\//, /^src\/(services|problems|observability|config)\/|^src\/(clock|version)\.ts$/],
  [/^src\/observability\//, /^src\/problems\//],
  [/^src\/config\//, /^src\/services\//],
  [/^src\/services\/kyb\//, /^src\/services\/(idenfy|single-flight|auth)\/|^src\/problems\//],
  [/^src\/services\/idenfy\//, /^src\/services\/resilience\/|^src\/problems\//],
  [/^src\/services\//, /^src\/problems\//],
  [/^src\/problems\//, /^$/],
]

t.test('imports point one way', async (t) => {
  t.ok(files.length > 60)
  for (const path of files) {
    const folder = dirname(path)
    const [, mayImport] = rules.find(([of]) => of.test(path)) ?? []
    if (!mayImport) {
      t.fail(`no rule for ${path}`)
      continue
    }
    t.strictSame(
      ownImportsOf(path)
        .map(({ name }) => name)
        .filter((name) => !mayImport.test(name) && (folder === 'src' || dirname(name) !== folder)),
      [],
      path,
    )
  }
})

t.test('no file imports itself through others', async (t) => {
  /** The paths of imports that lead from a file back to it. */
  function cycleFrom(path: string, way: readonly string[]): readonly string[] | undefined {
    if (way.includes(path)) return [...way, path]
    for (const { name, isTypeOnly } of ownImportsOf(path)) {
      const cycle = isTypeOnly ? undefined : cycleFrom(name, [...way, path])
      if (cycle) return cycle
    }
    return undefined
  }
  for (const path of files) t.equal(cycleFrom(path, []), undefined, path)
})

t.test('what ships knows nothing of the sandbox and the tests', async (t) => {
  for (const path of filesIn('src/')) {
    t.strictSame(
      importsOf(path).filter(({ name }) => /^(sandbox|test|bench)\//.test(name)),
      [],
      path,
    )
  }
})

t.test('services know nothing of Fastify', async (t) => {
  for (const path of filesIn('src/services/')) {
    t.strictSame(
      importsOf(path).filter(({ name }) => /fastify/.test(name)),
      [],
      path,
    )
  }
})

t.test('the kyb services take only types from auth, and the grammar of ids', async (t) => {
  for (const path of filesIn('src/services/kyb/')) {
    t.strictSame(
      ownImportsOf(path).filter(
        ({ name, isTypeOnly }) =>
          name.startsWith('src/services/auth/') && name !== 'src/services/auth/id-grammar.ts' && !isTypeOnly,
      ),
      [],
      path,
    )
  }
})

t.test('routes import no service, only types and schemas', async (t) => {
  for (const path of filesIn('src/routes/')) {
    t.notMatch(sources.get(path), /^import (?!type ).*services\/(?!idenfy\/schemas)/m, path)
  }
})

t.test('only the config folder reads the environment', async (t) => {
  for (const [path, text] of sources) {
    if (path.startsWith('src/config/') || path === 'sandbox/config.ts') continue
    t.notMatch(text, /process\s*\.\s*env|import\.meta\.env/, path)
  }
})

t.test('optional packages are loaded only when they are enabled', async (t) => {
  const optional = new Set(['ioredis', '@fastify/swagger', '@fastify/swagger-ui'])
  for (const path of filesIn('src/')) {
    const text = sources.get(path) ?? ''
    const loaded = [...text.matchAll(/^import (?!type )[^;]*? from '([^']+)'/gm)].map(([, name]) =>
      String(name),
    )
    t.strictSame(
      loaded.filter((name) => optional.has(name)),
      [],
      path,
    )
  }
})

t.test('every folder and file has a subject', async (t) => {
  t.strictSame(
    files.filter((path) => /(^|\/)(utils?|types|lib|helpers?|common|index|misc)(\/|\.ts$)/.test(path)),
    [],
  )
})
