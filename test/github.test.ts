import { spawnSync } from 'node:child_process'
import { accessSync, chmodSync, constants, existsSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { type TSchema, Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { build as bundle } from 'esbuild'
import t, { type Test } from 'tap'
import { parse } from 'yaml'

interface Step {
  readonly uses?: string
  readonly run?: string
  readonly with?: Readonly<Record<string, unknown>>
}

interface Job {
  readonly uses?: string
  readonly needs?: string | readonly string[]
  readonly permissions?: unknown
  readonly steps?: readonly Step[]
  readonly strategy?: { readonly matrix: Readonly<Record<string, unknown>> }
}

interface Workflow {
  readonly permissions?: unknown
  readonly jobs: Readonly<Record<string, Job>>
}

const read = (path: string) => readFileSync(path, 'utf8')
const { scripts, engines, dependencies, devDependencies } = JSON.parse(read('package.json'))
const { dependencies: mutationDependencies } = JSON.parse(read('test/mutation/package.json'))
const workflowPaths = readdirSync('.github/workflows')
  .sort()
  .map((name) => join('.github/workflows', name))
const workflows = Object.fromEntries(
  workflowPaths.map((path): [string, Workflow] => [path, parse(read(path))]),
)
const ci = read('.github/workflows/ci.yml')
const release = read('.github/workflows/release.yml')
const steps = Object.values(workflows).flatMap(({ jobs }) =>
  Object.values(jobs).flatMap(({ steps = [] }) => steps),
)
const documents = ['CONTRIBUTING.md', 'SECURITY.md', '.github/pull_request_template.md']

// --- workflows ---

type Validate = (
  document: { readonly uri: string; getText(): string },
  options: { readonly fileProvider: { getFileContent(file: { readonly path: string }): Promise<unknown> } },
) => Promise<readonly { readonly message: string }[]>

/** GitHub's own validator, as in its extension for editors. Its packages cannot run in Node until they are bundled. */
const { outputFiles } = await bundle({
  stdin: { contents: "export { validate } from '@actions/languageservice'", resolveDir: '.' },
  bundle: true,
  platform: 'node',
  format: 'cjs',
  write: false,
})
const validatorPath = join(t.testdir({ 'validator.cjs': outputFiles[0]?.text ?? '' }), 'validator.cjs')
const { validate }: { validate: Validate } = createRequire(import.meta.url)(validatorPath)

let validated = 0
async function faultsOf(workflow: string): Promise<string[]> {
  validated += 1 // the validator caches by name
  const document = { uri: `file:///.github/workflows/${validated}.yml`, getText: () => workflow }
  const fileProvider = {
    getFileContent: async ({ path }: { path: string }) => ({ name: path, content: read(path) }),
  }
  return (await validate(document, { fileProvider })).map(({ message }) => message)
}

t.test('the workflows are valid', async (t) => {
  t.strictSame(workflowPaths, ['.github/workflows/ci.yml', '.github/workflows/release.yml'])
  for (const path of workflowPaths) t.strictSame(await faultsOf(read(path)), [], path)
})

t.test('a fault of a workflow is found', async (t) => {
  const cases: [string, string, string, RegExp][] = [
    [ci, 'runs-on:', 'run-on:', /Unexpected value 'run-on'/],
    [ci, 'contents: read', 'content: read', /Unexpected value 'content'/],
    [ci, 'contents: read', 'contents: all', /Unexpected value 'all'/],
    [ci, 'pull_request:', 'pull_requests:', /Unexpected value 'pull_requests'/],
    [ci, 'matrix.node }}\n      - run', 'matrix.nod }}\n      - run', /Context access might be invalid: nod/],
    [ci, '- run: npm test', '- run: npm test\n        uses: a/b@v1', /Unexpected value 'uses'/],
    [ci, 'jobs:', 'jobs: [', /./],
    [release, 'needs: ci', 'needs: tests', /depends on unknown job 'tests'/],
    [release, 'steps.image.outputs', 'steps.images.outputs', /Context access might be invalid: images/],
    [
      release,
      'needs.build.outputs.digest',
      'needs.build.outputs.digset',
      /Context access might be invalid: digset/,
    ],
    [
      release,
      'uses: ./.github/workflows/ci.yml',
      'uses: ./.github/workflows/no.yml',
      /Unable to find reusable workflow/,
    ],
  ]
  for (const [workflow, good, bad, fault] of cases) {
    t.ok(workflow.includes(good), good)
    t.match((await faultsOf(workflow.replace(good, bad))).join('\n'), fault, bad)
  }
})

/** What is used in a workflow without being part of the repository or pinned to a commit, with its version beside it. */
function unpinned(workflow: string): string[] {
  return [...workflow.matchAll(/\buses:\s*(.*)/g)]
    .map(([, use = '']) => use)
    .filter((use) => !/^[\w-]+\/[\w-]+(\/[\w-]+)*@[0-9a-f]{40} # v\d+\.\d+\.\d+$/.test(use))
    .filter((use) => !(use.startsWith('./') && existsSync(use)))
}

t.test('actions are pinned to a commit', async (t) => {
  for (const path of workflowPaths) t.strictSame(unpinned(read(path)), [], path)
  const commits = new Map<string, string>()
  for (const uses of steps.flatMap(({ uses }) => uses ?? [])) {
    const [action = '', commit = ''] = uses.split('@')
    t.equal(commits.get(action) ?? commit, commit, `one version of ${action}`)
    commits.set(action, commit)
  }
  const bad = [
    'a/b@v1',
    'a/b@main',
    'a/b',
    `a/b@${'0'.repeat(40)}`,
    `a/b@${'0'.repeat(39)} # v1.0.0`,
    './no.yml',
  ]
  t.strictSame(unpinned(bad.map((use) => `uses: ${use}`).join('\n')), bad)
})

t.test('only jobs of the release may write, and only what they need', async (t) => {
  const more: Record<string, unknown> = {
    build: { contents: 'read', packages: 'write' },
    scan: { packages: 'read' },
    publish: { contents: 'read', packages: 'write', 'id-token': 'write', attestations: 'write' },
  }
  for (const [path, { permissions, jobs }] of Object.entries(workflows)) {
    t.strictSame(permissions, { contents: 'read' }, path)
    for (const [name, job] of Object.entries(jobs)) {
      t.strictSame(job.permissions, path.endsWith('/release.yml') ? more[name] : undefined, `${path} ${name}`)
    }
  }
  const checkouts = steps.filter(({ uses }) => uses?.startsWith('actions/checkout@'))
  t.ok(checkouts.length > 1)
  for (const { with: inputs } of checkouts) t.equal(inputs?.['persist-credentials'], false)
})

/** The commands of `run` that a checkout does not have. */
function unknownCommands(commands: readonly string[]): string[] {
  return commands.filter((command) => {
    const [program = '', subcommand = '', script = ''] = command.split(' ')
    if (program.startsWith('.')) return !isExecutable(program)
    if (program !== 'npm') return !['docker', 'cosign'].includes(program)
    return !(subcommand === 'run' ? script in scripts : subcommand === 'test' || subcommand === 'ci')
  })
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

t.test('each step runs one command, and the command exists', async (t) => {
  const commands = steps.flatMap(({ run }) => run ?? [])
  t.ok(commands.length > 10)
  t.strictSame(unknownCommands(commands), [])
  for (const command of commands) t.notMatch(command, /\n|\$\{\{|&&|;|\|/, command)
  const bad = ['npm run no', 'npm publish', '.ci/no', '.github/scripts/no', 'curl https://example.com']
  t.strictSame(unknownCommands(bad), bad)
})

t.test('the tests run on the oldest supported Node and the newer even ones', async (t) => {
  const [, oldest] = /^>=(\d+)\.\d+$/.exec(engines.node) ?? []
  t.strictSame(workflows['.github/workflows/ci.yml']?.jobs.test?.strategy?.matrix, { node: [20, 22, 24] })
  t.equal(oldest, '20')
  t.equal(read('.nvmrc'), `${oldest}\n`, '.nvmrc is the newest release of it')
})

t.test('an image gets its tag after everything else', async (t) => {
  const { check, ci, build, scan, publish } = workflows['.github/workflows/release.yml']?.jobs ?? {}
  t.match(check?.steps?.at(-1)?.run, /check-release/)
  t.equal(ci?.needs, 'check')
  t.equal(build?.needs, 'ci')
  t.match(build?.steps?.at(-1)?.run, /build-image/)
  t.equal(scan?.needs, 'build')
  t.match(scan?.steps?.at(-1)?.with, { 'only-fixed': true, 'severity-cutoff': 'high', 'fail-build': true })
  t.strictSame(publish?.needs, ['build', 'scan'])
  t.match(publish?.steps?.filter(({ run }) => run).at(-2)?.run, /^cosign sign /)
  t.match(publish?.steps?.at(-1)?.run, /publish-tag/)
})

// --- scripts ---

interface Run {
  readonly status: number | null
  readonly output: string
}

function run(script: string, args: readonly string[], cwd: string, env: NodeJS.ProcessEnv = {}): Run {
  const { status, stdout, stderr } = spawnSync(join(process.cwd(), '.github/scripts', script), args, {
    cwd,
    env: { ...process.env, NODE_OPTIONS: '', ...env },
    encoding: 'utf8',
    timeout: 60_000,
  })
  return { status, output: stdout + stderr }
}

t.test('a release needs its version in all places', async (t) => {
  const files = {
    'package.json': '{ "version": "1.2.3" }',
    'package-lock.json': '{ "version": "1.2.3" }',
    'CHANGELOG.md':
      '# Changelog\n\n## Unreleased\n\n## 1.2.3 - 2026-01-31\n\n### Added\n\n- A thing.\n\n## 1.2.2\n\n- Old.\n',
    'SECURITY.md': '| 1.2.x | yes |\n',
  }
  const check = (tag: string[], changed: Partial<typeof files> = {}) =>
    run('check-release', tag, t.testdir({ ...files, ...changed }))

  t.strictSame(check(['v1.2.3']), { status: 0, output: 'check-release: v1.2.3 is ready\n' })
  t.equal(check(['v1.2.3'], { 'CHANGELOG.md': '## [1.2.3] - 2026-01-31\n\n- A thing.\n' }).status, 0)

  const refused: [string, Run, RegExp][] = [
    ['no tag', check([]), /must look like v1\.2\.3; got ''/],
    ['no v', check(['1.2.3']), /must look like/],
    ['a pre-release', check(['v1.2.3-rc.1']), /must look like/],
    ['another version', check(['v1.2.4']), /package\.json has version 1\.2\.3, the tag says 1\.2\.4/],
    [
      'an old lock file',
      check(['v1.2.3'], { 'package-lock.json': '{ "version": "1.2.2" }' }),
      /package-lock\.json/,
    ],
    [
      'no section',
      check(['v1.2.3'], { 'CHANGELOG.md': '## 1.2.2 - 2026-01-31\n\n- A thing.\n' }),
      /no section '## 1\.2\.3 - YYYY-MM-DD'/,
    ],
    [
      'a section without a date',
      check(['v1.2.3'], { 'CHANGELOG.md': '## 1.2.3 - unreleased\n\n- A thing.\n' }),
      /no section/,
    ],
    [
      'a longer version',
      check(['v1.2.3'], { 'CHANGELOG.md': '## 1.2.30 - 2026-01-31\n\n- A thing.\n' }),
      /no section/,
    ],
    [
      'an empty section',
      check(['v1.2.3'], {
        'CHANGELOG.md': '## 1.2.3 - 2026-01-31\n\n### Added\n\n## 1.2.2 - 2026-01-01\n\n- Old.\n',
      }),
      /with text/,
    ],
    ['an old policy', check(['v1.2.3'], { 'SECURITY.md': '| 1.1.x | yes |\n' }), /SECURITY\.md .*1\.2\.x/],
  ]
  for (const [name, { status, output }, message] of refused) {
    t.equal(status, 1, name)
    t.match(output, message, name)
  }
})

const digest = `sha256:${'a'.repeat(64)}`

/** A folder with a `docker` that knows one tag, and writes down how it is called. */
function stubDocker(t: Test, tag = '', built = digest) {
  const directory = t.testdir({
    docker: `#!/usr/bin/env bash
echo "$*" >>calls
case "$2 $3" in
  'imagetools inspect') cat tag; [ -s tag ] ;;
  'imagetools create') printf %s "\${!#}" | sed 's/.*@//' >tag ;;
  'build --target') while [ "$1" != --metadata-file ]; do shift; done; cp built "$2" ;;
esac
`,
    tag,
    built: JSON.stringify({ 'containerimage.digest': built }),
    output: '',
  })
  chmodSync(join(directory, 'docker'), 0o755)
  const env = {
    PATH: `${directory}:${process.env.PATH}`,
    GITHUB_OUTPUT: join(directory, 'output'),
    GITHUB_REPOSITORY: 'Example/Onboarding-BFF',
    GITHUB_SERVER_URL: 'https://github.example',
    GITHUB_SHA: 'c0ffee',
  }
  return {
    run: (script: string, ...args: string[]) => run(script, args, directory, env),
    read: (name: string) => read(join(directory, name)),
  }
}

t.test('the image is built with SBOM and provenance, and pushed without a tag', async (t) => {
  const docker = stubDocker(t)
  t.strictSame(docker.run('build-image', 'v1.2.3'), { status: 0, output: '' })
  t.equal(docker.read('output'), `image=ghcr.io/example/onboarding-bff\ndigest=${digest}\n`)
  const calls = docker.read('calls')
  t.match(calls, / --target production --sbom=true --provenance=mode=max /)
  t.match(calls, / --label org\.opencontainers\.image\.version=1\.2\.3 /)
  t.match(calls, /name=ghcr\.io\/example\/onboarding-bff,push-by-digest=true/)
  t.notMatch(calls, / --tag /)
})

t.test('a build without a digest fails', async (t) => {
  const docker = stubDocker(t, '', 'latest')
  t.match(docker.run('build-image', 'v1.2.3'), { status: 1, output: /no digest, got 'latest'/ })
  t.equal(docker.read('output'), '')
})

t.test('a version is published once', async (t) => {
  const fresh = stubDocker(t)
  t.match(fresh.run('publish-tag', 'ghcr.io/a/b', digest, 'v1.2.3'), { status: 0 })
  t.match(fresh.read('calls'), `imagetools create --tag ghcr.io/a/b:1.2.3 ghcr.io/a/b@${digest}\n`)

  const same = stubDocker(t, digest)
  t.match(same.run('publish-tag', 'ghcr.io/a/b', digest, 'v1.2.3'), { status: 0 }, 'the same image again')

  const other = stubDocker(t, `sha256:${'b'.repeat(64)}`)
  t.match(other.run('publish-tag', 'ghcr.io/a/b', digest, 'v1.2.3'), { status: 1, output: /already exists/ })
  t.notMatch(other.read('calls'), /imagetools create/)
})

// --- Dependabot and issues: what GitHub's documentation says, as far as it is used here ---

const strict = { additionalProperties: false }
const Text = Type.String({ minLength: 1 })

const Dependabot = Type.Object(
  {
    version: Type.Literal(2),
    updates: Type.Array(
      Type.Object(
        {
          'package-ecosystem': Type.Union(
            ['npm', 'docker', 'docker-compose', 'github-actions'].map((name) => Type.Literal(name)),
          ),
          directory: Type.Optional(Text),
          directories: Type.Optional(Type.Array(Text, { minItems: 1, uniqueItems: true })),
          schedule: Type.Object({ interval: Type.Literal('weekly') }, strict),
          cooldown: Type.Optional(
            Type.Object({ 'default-days': Type.Integer({ minimum: 1, maximum: 90 }) }, strict),
          ),
          groups: Type.Record(
            Text,
            Type.Object(
              { 'update-types': Type.Array(Type.Union([Type.Literal('minor'), Type.Literal('patch')])) },
              strict,
            ),
          ),
          ignore: Type.Optional(
            Type.Array(
              Type.Object(
                {
                  'dependency-name': Text,
                  versions: Type.Array(Type.String({ pattern: '^>=\\d+(\\.\\d+)*$' })),
                },
                strict,
              ),
            ),
          ),
          'commit-message': Type.Object({ prefix: Type.String({ maxLength: 50 }) }, strict),
        },
        strict,
      ),
    ),
  },
  strict,
)

const Label = { label: Text, description: Type.Optional(Type.String()) }
const Field = <T extends Record<string, TSchema>>(type: string, attributes: T) =>
  Type.Object(
    {
      type: Type.Literal(type),
      id: Type.String({ pattern: '^[a-zA-Z0-9_-]+$' }),
      attributes: Type.Object({ ...Label, ...attributes }, strict),
      validations: Type.Optional(Type.Object({ required: Type.Boolean() }, strict)),
    },
    strict,
  )
const placeholder = Type.Optional(Type.String())

const IssueForm = Type.Object(
  {
    name: Text,
    description: Text,
    labels: Type.Array(Text),
    body: Type.Array(
      Type.Union([
        Type.Object(
          { type: Type.Literal('markdown'), attributes: Type.Object({ value: Text }, strict) },
          strict,
        ),
        Field('input', { placeholder }),
        Field('textarea', { placeholder, render: Type.Optional(Type.String()) }),
        Field('dropdown', { options: Type.Array(Text, { minItems: 1, uniqueItems: true }) }),
      ]),
      { minItems: 1 },
    ),
  },
  strict,
)

const TemplateChooser = Type.Object(
  {
    blank_issues_enabled: Type.Boolean(),
    contact_links: Type.Array(
      Type.Object({ name: Text, url: Type.String({ pattern: '^https://' }), about: Text }, strict),
    ),
  },
  strict,
)

const formPaths = ['bug_report.yml', 'feature_request.yml'].map((name) =>
  join('.github/ISSUE_TEMPLATE', name),
)

function breaches(schema: TSchema, yaml: string): string[] {
  return [...Value.Errors(schema, parse(yaml))].map(({ path, message }) => `${path} ${message}`)
}

t.test('the settings of Dependabot are valid, and a fault in them is found', async (t) => {
  const text = read('.github/dependabot.yml')
  t.strictSame(breaches(Dependabot, text), [])
  const faults: [string, string][] = [
    ['version: 2', 'version: 1'],
    ['interval:', 'intervall:'],
    ['package-ecosystem: npm', 'package-ecosystem: node'],
    ['[minor, patch]', '[minor, patches]'],
    ["['>=7']", "'>=7'"],
  ]
  for (const [good, bad] of faults) {
    t.ok(text.includes(good), good)
    t.ok(breaches(Dependabot, text.replace(good, bad)).length > 0, bad)
  }
})

t.test('Dependabot finds a file in every folder, and leaves the versions that we need', async (t) => {
  const files: Record<string, string> = {
    npm: 'package-lock.json',
    docker: 'Dockerfile',
    'docker-compose': 'docker-compose.yml',
    'github-actions': '.github/workflows',
  }
  const ignored = new Map<string, string>()
  for (const update of parse(read('.github/dependabot.yml')).updates) {
    for (const folder of update.directories ?? [update.directory]) {
      t.ok(existsSync(join('.', folder, files[update['package-ecosystem']] ?? '?')), folder)
    }
    for (const { 'dependency-name': name, versions } of update.ignore ?? [])
      ignored.set(name, versions[0].slice(2))
  }
  const pinned = [
    'typescript',
    'undici',
    '@types/node',
    '@sinclair/typebox',
    '@fastify/type-provider-typebox',
    '@stryker-mutator/core',
    '@stryker-mutator/tap-runner',
  ]
  t.strictSame([...ignored.keys()].sort(), pinned.sort())
  const numbers = (version: string) => version.split('.').map(Number)
  for (const [name, next] of ignored) {
    const [major = 0, minor = 0] = numbers(
      String({ ...mutationDependencies, ...dependencies, ...devDependencies }[name]).replace(/^\D/, ''),
    )
    const [nextMajor = 0, nextMinor = 0] = numbers(next)
    t.ok(
      major < nextMajor || (major === nextMajor && minor < nextMinor),
      `${name}: ${major}.${minor} is before ${next}`,
    )
  }
})

t.test('the issue forms are valid, and a fault in them is found', async (t) => {
  t.strictSame(readdirSync('.github/ISSUE_TEMPLATE').sort(), [
    'bug_report.yml',
    'config.yml',
    'feature_request.yml',
  ])
  for (const path of formPaths) {
    const text = read(path)
    t.strictSame(breaches(IssueForm, text), [], path)
    const ids: string[] = parse(text).body.flatMap(({ id }: { id?: string }) => id ?? [])
    t.equal(new Set(ids).size, ids.length, `${path}: each id occurs once`)
  }
  const chooser = read('.github/ISSUE_TEMPLATE/config.yml')
  t.strictSame(breaches(TemplateChooser, chooser), [])
  t.match(parse(chooser), { blank_issues_enabled: false, contact_links: [{ url: /vulnerability$/ }] })

  const form = read(formPaths[0] ?? '')
  for (const [good, bad] of [
    ['type: textarea', 'type: text'],
    ['label:', 'labels:'],
    ['required: true', 'required: yes please'],
    ['options:', 'choices:'],
    ['id: version', 'id: the version'],
    ['description:', 'about:'],
  ] as const) {
    t.ok(form.includes(good), good)
    t.ok(breaches(IssueForm, form.replace(good, bad)).length > 0, bad)
  }
  t.ok(breaches(TemplateChooser, chooser.replace('https:', 'http:')).length > 0)
})

t.test('every file has an owner', async (t) => {
  const rules = read('.github/CODEOWNERS')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
  t.ok(rules.length > 0)
  for (const rule of rules) t.match(rule, /^\S+( @[\w-]+(\/[\w-]+)?)+$/)
  t.match(rules[0], /^\* /)
})

// --- documents ---

/** The paths that a document links to or names, as seen from the root, and that do not exist. */
function deadPaths(document: string, text: string): string[] {
  const links = [...text.matchAll(/\]\((?!https?:|#)([^)#]+)[^)]*\)/g)].map(([, target = '']) =>
    join(dirname(document), target),
  )
  const named = [...text.matchAll(/`((?:\.ci|\.github|bench|deploy|docs|sandbox|src|test)\/[^\s`]*)/g)].map(
    ([, path = '']) => path,
  )
  return [...links, ...named].filter((path) => !existsSync(path))
}

t.test('links and paths lead to existing files', async (t) => {
  for (const document of documents) t.strictSame(deadPaths(document, read(document)), [], document)
  t.strictSame(
    deadPaths('docs/a.md', '[a](../no.md) [b](web.md#x) [c](https://a.example) `src/no.ts` `src/app.ts`'),
    ['no.md', 'src/no.ts'],
  )
})

t.test('every npm script that a document names exists', async (t) => {
  const named = [...documents, ...formPaths].flatMap((document) =>
    [...read(document).matchAll(/npm run (?:--\S+ )*([\w:-]+)/g)].map(([, script = '']) => ({
      document,
      script,
    })),
  )
  t.ok(named.length > 10)
  for (const { document, script } of named) t.ok(script in scripts, `${document}: ${script}`)
})

/** The first column of the table below a heading: what is in backticks there. */
function namesInTable(heading: string): string[] {
  const [, section = ''] = read('CONTRIBUTING.md').split(`\n## ${heading}\n`)
  const [text = ''] = section.split('\n## ')
  return [...text.matchAll(/^\|([^|]*)\| *\S/gm)].flatMap(([, cell = '']) =>
    [...cell.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name),
  )
}

t.test('the table of commands has every script of package.json, and all of .ci', async (t) => {
  const commands = Object.keys(scripts)
    .filter((name) => !/^(pre|post)/.test(name)) // npm runs these by itself
    .map((name) => (['test', 'start'].includes(name) ? `npm ${name}` : `npm run ${name}`))
  const checks = readdirSync('.ci').map((name) => `.ci/${name}`)
  t.strictSame(
    namesInTable('Commands')
      .filter((name) => /^(npm|\.ci)/.test(name))
      .sort(),
    [...commands, ...checks].sort(),
  )
})

t.test('the table of dependencies has every package, and says what it is for', async (t) => {
  t.strictSame(
    namesInTable('Dependencies').sort(),
    Object.keys({ ...dependencies, ...devDependencies }).sort(),
  )
})

t.test('editors format as Biome does', async (t) => {
  const { formatter } = JSON.parse(read('biome.json'))
  const settings = read('.editorconfig')
  t.match(settings, new RegExp(`^indent_style = ${formatter.indentStyle}$`, 'm'))
  t.match(settings, new RegExp(`^indent_size = ${formatter.indentWidth}$`, 'm'))
  t.match(settings, new RegExp(`^max_line_length = ${formatter.lineWidth}$`, 'm'))
})
