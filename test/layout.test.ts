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

/**
 * Everything that a source text imports: by `import`, `export … from`, `import()` and `import type`.
 *
 * @param path where the text is, for relative imports
 * @throws Error for an import whose name is calculated
 */
function readImports(path: string, text: string): Import[] {
  const imports: Import[] = []
  function add(specifier: ts.Node | undefined, isTypeOnly: boolean): void {
    if (!specifier) return
    if (!ts.isStringLiteralLike(specifier)) throw new Error(`${path}: an import whose name is calculated`)
    const { text: fileName } = specifier
    const isRelative = fileName.startsWith('.')
    const name = isRelative ? normalize(join(dirname(path), fileName)).replace(/\.js$/, '.ts') : fileName
    imports.push({ name, isTypeOnly })
  }
  function isTypeOnly({ importClause }: ts.ImportDeclaration): boolean {
    if (!importClause) return false
    const { namedBindings, name } = importClause
    const isEachType =
      namedBindings !== undefined &&
      ts.isNamedImports(namedBindings) &&
      namedBindings.elements.length > 0 &&
      namedBindings.elements.every((element) => element.isTypeOnly)
    return importClause.phaseModifier === ts.SyntaxKind.TypeKeyword || (isEachType && name === undefined)
  }
  function visit(node: ts.Node): void {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier, isTypeOnly(node))
    else if (ts.isExportDeclaration(node)) add(node.moduleSpecifier, node.isTypeOnly)
    else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument))
      add(node.argument.literal, true)
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], false)
    }
    ts.forEachChild(node, visit)
  }
  visit(ts.createSourceFile(path, text, ts.ScriptTarget.ESNext))
  return imports
}

const imports = new Map([...sources].map(([path, text]) => [path, readImports(path, text)]))
const importsOf = (path: string): readonly Import[] => imports.get(path) ?? []

const ownImportsOf = (path: string) =>
  importsOf(path).filter(({ name }) => /^(src|sandbox|test|bench)\//.test(name))

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
    /^src\/(services|config|observability|problems)\/|^src\/(clock|server-options|version)\.ts$|^src\/plugins\/problem-details\.ts$/,
  ],
  // Routes reach services through decorators. They import only their schemas and types: see below.
  [/^src\/routes\//, /^src\/(problems|services)\//],
  [/^src\/plugins\//, /^src\/(services|problems|observability|config)\/|^src\/(clock|version)\.ts$/],
  [/^src\/observability\//, /^src\/problems\//],
  [/^src\/config\//, /^src\/services\//],
  [
    /^src\/services\/kyb\//,
    /^src\/services\/(idenfy|single-flight|auth)\/|^src\/problems\/|^src\/clock\.ts$/,
  ],
  [/^src\/services\/idenfy\//, /^src\/services\/resilience\/|^src\/problems\/|^src\/clock\.ts$/],
  [/^src\/services\//, /^src\/problems\/|^src\/clock\.ts$/],
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

t.test('src imports neither the sandbox nor the tests', async (t) => {
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

/** The clocks and timers of the system that a source text uses. */
function readSystemTime(path: string, text: string): string[] {
  const found: string[] = []
  function visit(node: ts.Node): void {
    const code = node.getText()
    const isCall = ts.isCallExpression(node) && /^(set(Timeout|Interval|Immediate)|clear\w+)\(/.test(code)
    const isRead = ts.isPropertyAccessExpression(node) && /^(Date\.now|performance\.\w+)$/.test(code)
    const isDate = ts.isNewExpression(node) && code === 'new Date()'
    if (isCall || isRead || isDate) found.push(code)
    ts.forEachChild(node, visit)
  }
  visit(ts.createSourceFile(path, text, ts.ScriptTarget.ESNext, true))
  return found
}

t.test('services use no other clock than the given one, so that the simulation can replace it', async (t) => {
  for (const path of filesIn('src/services/')) {
    // It opens sockets, which the simulation replaces as a whole.
    if (path === 'src/services/idenfy/connector.ts') continue
    t.strictSame(readSystemTime(path, sources.get(path) ?? ''), [], path)
    t.notOk(
      importsOf(path).some(({ name }) => /timers/.test(name)),
      path,
    )
  }
  t.strictSame(
    readSystemTime('a.ts', 'setTimeout(f, 1); clock.setTimeout(f, 1); f(Date.now); new Date(1); new Date()'),
    ['setTimeout(f, 1)', 'Date.now', 'new Date()'],
  )
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
    t.strictSame(
      importsOf(path).filter(
        ({ name, isTypeOnly }) =>
          name.startsWith('src/services/') && !isTypeOnly && !name.endsWith('/schemas.ts'),
      ),
      [],
      path,
    )
  }
})

t.test('only the config folder reads the environment', async (t) => {
  for (const [path, text] of sources) {
    if (path.startsWith('src/config/') || path === 'sandbox/config.ts') continue
    t.notMatch(text, /\benv\b/, path)
  }
})

t.test('the packages that an import names are installed in production', async (t) => {
  const { dependencies } = JSON.parse(readFileSync('package.json', 'utf8'))
  for (const path of filesIn('src/')) {
    const packages = importsOf(path)
      .filter(({ name, isTypeOnly }) => !isTypeOnly && !/^(src\/|node:)/.test(name))
      .map(({ name }) => /^(@[^/]+\/)?[^/]+/.exec(name)?.[0] ?? name)
    t.strictSame(
      packages.filter((name) => !Object.hasOwn(dependencies, name)),
      [],
      path,
    )
  }
})

t.test('optional packages are loaded only when they are enabled', async (t) => {
  const optional = ['ioredis', '@fastify/swagger', '@fastify/swagger-ui']
  for (const path of filesIn('src/')) {
    const text = sources.get(path) ?? ''
    const withoutDynamic = readImports(path, text.replace(/await import\([^)]*\)/g, 'undefined'))
    t.strictSame(
      withoutDynamic.filter(({ name, isTypeOnly }) => optional.includes(name) && !isTypeOnly),
      [],
      path,
    )
    // Only the list of public suffixes is loaded like this, because the check of a setting is synchronous.
    if (path !== 'src/services/http/origins.ts') t.notMatch(text, /createRequire|node:module/, path)
  }
})

t.test('every kind of import is found', async (t) => {
  const rows: [text: string, isTypeOnly: boolean][] = [
    ["import { a } from './b.js'", false],
    ["import {\n  a,\n  c,\n} from './b.js'", false],
    ["import './b.js'", false],
    ["import a, { type C } from './b.js'", false],
    ["import { type A, c } from './b.js'", false],
    ["import { type A, type C } from './b.js'", true],
    ["import type { A } from './b.js'", true],
    ["export { a } from './b.js'", false],
    ["export * from './b.js'", false],
    ["export type { A } from './b.js'", true],
    ["const a = await import('./b.js')", false],
    ["let a: typeof import('./b.js')", true],
  ]
  for (const [text, isTypeOnly] of rows) {
    t.strictSame(readImports('src/plugins/a.ts', text), [{ name: 'src/plugins/b.ts', isTypeOnly }], text)
  }
  t.throws(() => readImports('src/a.ts', 'import(name)'), /calculated/)
})

t.test('every folder and file has a subject', async (t) => {
  t.strictSame(
    files.filter((path) => /(^|\/)(utils?|types|lib|helpers?|common|index|misc)(\/|\.ts$)/.test(path)),
    [],
  )
})
