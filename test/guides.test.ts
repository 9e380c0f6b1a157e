import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import ts from 'typescript'
import { build } from './helper.js'

const documents = [
  'README.md',
  ...readdirSync('docs', { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
]

interface Block {
  readonly document: string
  readonly language: string
  readonly text: string
}

function blocksOf(document: string, text: string): Block[] {
  return [...text.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].map(([, language = '', text = '']) => ({
    document,
    language,
    text,
  }))
}

/** What the guides use of packages that need more than a compiler to be installed. */
const expo = `
declare module 'expo-web-browser' { export function openBrowserAsync(url: string): Promise<{ type: string }> }
`

/** What the compiler says about these files. */
function complaintsOf(directory: string, names: readonly string[]): string[] {
  const program = ts.createProgram(
    names.map((name) => join(directory, name)),
    {
      strict: true,
      noEmit: true,
      allowJs: true,
      checkJs: true,
      skipLibCheck: true,
      jsx: ts.JsxEmit.ReactJSX,
      target: ts.ScriptTarget.ES2023,
      lib: ['lib.es2023.d.ts', 'lib.dom.d.ts', 'lib.dom.iterable.d.ts'],
      module: ts.ModuleKind.ESNext,
      moduleResolution: ts.ModuleResolutionKind.Bundler,
      moduleDetection: ts.ModuleDetectionKind.Force,
      types: [],
    },
  )
  return ts.getPreEmitDiagnostics(program).map(({ file, start = 0, messageText }) => {
    const line = file ? file.text.slice(0, start).split('\n').length : 0
    return `${file?.fileName}:${line} ${ts.flattenDiagnosticMessageText(messageText, '\n')}`
  })
}

t.test('the code of the guides passes the compiler', async (t) => {
  const code = documents
    .flatMap((document) => blocksOf(document, readFileSync(document, 'utf8')))
    .filter(({ language }) => /^[jt]sx?$/.test(language))
  t.ok(code.length >= 6)
  const files = Object.fromEntries(
    code.map(({ document, language, text }, index) => {
      const [, name] = /^\/\/ (\S+\.tsx?)\n/.exec(text) ?? []
      return [name ?? `${document.replace(/\W/g, '-')}-${index}.${language}`, text]
    }),
  )
  const directory = t.testdir({
    ...files,
    'expo.d.ts': expo,
    'service-api.ts': readFileSync('sandbox/demo/service-api.ts', 'utf8'),
    'wrong.ts': "import { createKybToken } from './kyb'\ncreateKybToken(1)",
  })
  t.strictSame(complaintsOf(directory, [...Object.keys(files), 'expo.d.ts']), [])
  t.match(complaintsOf(directory, ['wrong.ts']), [/wrong\.ts:2 Expected 3-4 arguments/], 'it would say so')
})

t.test('the tokens of the identity providers are accepted as described', async (t) => {
  const [, ...sections] = readFileSync('docs/identity-providers.md', 'utf8').split(/^## /m)
  t.equal(sections.length, 7)
  for (const section of sections) {
    const [name = ''] = section.split('\n')
    const blocks = blocksOf(name, section)
    const env = Object.fromEntries(
      [...(blocks[0]?.text ?? '').matchAll(/^(\w+)=(.*)$/gm)].map(([, variable, value]) => [variable, value]),
    ) as Record<string, string>
    const claims = JSON.parse(blocks[1]?.text ?? '')
    const { AUTH_ISSUER, AUTH_JWKS_URL, AUTH_USER_CLAIM = 'sub', AUTH_COMPANY_CLAIM = '', ...others } = env
    t.match(AUTH_JWKS_URL ?? AUTH_ISSUER, /^https:/, name)
    const service = await build(t, { env: { AUTH_ISSUER, AUTH_USER_CLAIM, AUTH_COMPANY_CLAIM, ...others } })
    const token = await service.token({ company_id: undefined, ...claims }, { typ: 'JWT' })
    const company = AUTH_COMPANY_CLAIM.split('/').reduce(
      (value, part) => (part ? value[part] : value),
      claims,
    )
    t.match(
      await service.mint({ token }),
      { status: 201, json: { clientId: company, externalRef: claims[AUTH_USER_CLAIM] } },
      name,
    )
    t.equal((await service.mint({ token: await service.token({ ...claims, aud: 'other' }) })).status, 401)
  }
})
