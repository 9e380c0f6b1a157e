import { readdirSync, readFileSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import { basename, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t, { type Test } from 'tap'
import ts from 'typescript'
import { problems } from '../src/problems/catalog.js'
import { blocksOf } from './guides/blocks.js'
import { build, listen } from './helper.js'

const documents = [
  'README.md',
  ...readdirSync('docs', { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
]

const allBlocks = documents.flatMap((document) => blocksOf(document, readFileSync(document, 'utf8')))

function codeOf(path: string): string {
  const block = allBlocks.find((block) => block.path === path)
  if (!block) throw new Error(`no document has code for ${path}`)
  return block.text
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
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      noUnusedLocals: true,
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
  const code = allBlocks.filter(({ language }) => /^[jt]sx?$/.test(language))
  t.ok(code.length >= 6)
  const files = Object.fromEntries(
    code.map(({ document, language, path, text }, index) => [
      path ? basename(path) : `${document.replace(/\W/g, '-')}-${index}.${language}`,
      text,
    ]),
  )
  const directory = t.testdir({
    ...files,
    'expo.d.ts': expo,
    'service-api.ts': readFileSync('sandbox/demo/service-api.ts', 'utf8'),
    'wrong.ts': "import { createKybToken } from './kyb'\ncreateKybToken({ accessToken: 1 })",
  })
  t.strictSame(complaintsOf(directory, [...Object.keys(files), 'expo.d.ts']), [])
  t.match(
    complaintsOf(directory, ['wrong.ts']),
    [/wrong\.ts:2 Type 'number' is not assignable/],
    'it would say so',
  )
})

const typesAgree = `
import type { KybToken, Problem } from './kyb'
import type { components } from './service-api'

type Generated = components['schemas']
type IsSame<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
type Without<T, K> = Pick<T, Exclude<keyof T, K>>

// Of the codes a page has to know only some.
export const sameToken: IsSame<Pick<Generated['KybToken'], keyof KybToken>, Pick<KybToken, keyof KybToken>> = true
export const sameProblem: IsSame<Pick<Generated['Problem'], Exclude<keyof Problem, 'code'>>, Without<Problem, 'code'>> = true
export const code = (generated: Generated['Problem']): Problem['code'] => generated.code
`

t.test('the types in kyb.ts agree with those made from openapi.json', async (t) => {
  const kyb = codeOf('src/kyb.ts')
  const serviceApi = readFileSync('sandbox/demo/service-api.ts', 'utf8')
  const complaints = (code: string) =>
    complaintsOf(t.testdir({ 'kyb.ts': code, 'service-api.ts': serviceApi, 'agree.ts': typesAgree }), [
      'agree.ts',
    ])
  t.strictSame(complaints(kyb), [])
  for (const [right, wrong] of [
    ['retryable: boolean', 'retryable?: boolean'],
    ["outcome?: 'not-created' | 'unknown'", "outcome?: 'unknown'"],
    ['requestId: string', 'request_id: string'],
    ['expiresIn: number', 'expiresIn: string'],
  ] as const) {
    t.ok(kyb.includes(right), right)
    t.not(complaints(kyb.replace(right, wrong)).length, 0, wrong)
  }
})

t.test('the codes that the guides decide by exist', async (t) => {
  const [, table = ''] = readFileSync('docs/web.md', 'utf8').split(/<!-- \/?failures.*-->/)
  const named = [
    ...[...codeOf('src/App.tsx').matchAll(/code === '([a-z-]+)'/g)],
    ...[...table.matchAll(/^\| (.*?) \|/gm)].flatMap(([, cell = '']) => [...cell.matchAll(/`([a-z-]+)`/g)]),
  ].map(([, code = '']) => code)
  t.ok(named.length > 4)
  for (const code of named) t.ok(Object.hasOwn(problems, code), code)
})

/** The module `kyb.ts` of the guide, which calls this address. */
async function importKyb(t: Test, serviceUrl: string) {
  const code = codeOf('src/kyb.ts').replace('http://127.0.0.1:3000', serviceUrl)
  const { outputText } = ts.transpileModule(code, { compilerOptions: { target: ts.ScriptTarget.ES2023 } })
  const directory = t.testdir({ 'kyb.mjs': outputText })
  return import(pathToFileURL(join(directory, 'kyb.mjs')).href) as Promise<{
    createKybToken(
      request: object,
    ): Promise<{ token?: object; problem?: object; status?: number; retryAfterSeconds?: number }>
    createIdempotencyKey(): string
  }>
}

t.test('kyb.ts gets a token, and chooses a company', async (t) => {
  const service = await build(t, { env: { CORS_ORIGINS: undefined } })
  const { createKybToken, createIdempotencyKey } = await importKyb(t, service.url)
  const { signal } = new AbortController()
  const request = { idempotencyKey: createIdempotencyKey(), signal }
  t.not(createIdempotencyKey(), createIdempotencyKey())
  const accessToken = await service.token({ company_id: ['acme', 'globex'] })
  t.match(await createKybToken({ ...request, accessToken }), {
    status: 403,
    problem: { code: 'company-required', companyIds: ['acme', 'globex'] },
  })
  t.match(await createKybToken({ ...request, accessToken, companyId: 'globex' }), {
    token: { clientId: 'globex' },
  })
  t.match(await createKybToken({ ...request, accessToken: 'x' }), {
    status: 401,
    problem: { code: 'invalid-token' },
  })
})

t.test('kyb.ts makes a result of every failure', async (t) => {
  let respond = (_response: ServerResponse): void => {}
  const server = createServer((_request, response) => respond(response))
  const port = await listen(t, server)
  const { createKybToken } = await importKyb(t, `http://127.0.0.1:${port}`)
  const { signal } = new AbortController()
  const call = (send: typeof respond, options: object = {}) => {
    respond = send
    return createKybToken({ accessToken: 'a', idempotencyKey: 'k', signal, ...options })
  }
  const with_ =
    (status: number, type: string, body: string, retryAfter?: string) => (response: ServerResponse) =>
      response
        .writeHead(status, {
          'content-type': type,
          ...(retryAfter !== undefined && { 'retry-after': retryAfter }),
        })
        .end(body)
  const problem = { code: 'overloaded', title: 'Busy', status: 503, requestId: '1', retryable: true }
  const text = JSON.stringify(problem)

  for (const type of ['application/problem+json', 'Application/Problem+JSON; charset=utf-8']) {
    t.strictSame(await call(with_(503, type, text, '7')), { status: 503, retryAfterSeconds: 7, problem })
  }
  for (const [type, body] of [
    ['text/html', '<h1>Bad Gateway</h1>'],
    ['text/html', text],
    ['application/json', text],
    ['application/problem+json-seq', text],
    ['application/problem+json', text.slice(0, -5)],
    ['application/problem+json', ''],
  ] as const) {
    t.strictSame(await call(with_(502, type, body)), { status: 502 }, `${type}: ${body}`)
  }
  t.strictSame(await call(with_(200, 'application/json', '{}')), { status: 200 })

  const inSeconds = (seconds: number) => new Date(Date.now() + seconds * 1000)
  for (const [value, least, most] of [
    ['0', 0, 0],
    ['120', 120, 120],
    [inSeconds(60).toUTCString(), 58, 60],
    [inSeconds(-60).toUTCString(), 0, 0],
    ['Sun, 06 Nov 1994 08:49:37 GMT', 0, 0],
    ['Sunday, 06-Nov-94 08:49:37 GMT', 0, 0],
    ['Sun Nov  6 08:49:37 1994', 0, 0],
  ] as const) {
    const { retryAfterSeconds = Number.NaN } = await call(with_(503, 'text/html', '', value))
    t.ok(retryAfterSeconds >= least && retryAfterSeconds <= most, `${value}: ${retryAfterSeconds}`)
  }
  for (const value of ['', '-5', '1.5', 'soon', 'Soon', '1, 2', '9'.repeat(400)]) {
    t.strictSame(await call(with_(503, 'text/html', '', value)), { status: 503 }, `Retry-After: ${value}`)
  }

  const cutOff = (response: ServerResponse) => {
    response.writeHead(201, { 'content-type': 'application/json', 'content-length': 100 })
    response.write('{"redirectUrl":', () => response.destroy())
  }
  t.strictSame(await call(cutOff), { status: 201 })
  t.strictSame(await call((response) => response.destroy()), {})
  t.strictSame(await call(() => t.fail('nothing is sent'), { signal: AbortSignal.abort() }), {})

  const controller = new AbortController()
  t.strictSame(await call(() => controller.abort(), { signal: controller.signal }), {})
  t.strictSame(
    await call(() => t.fail('nothing is sent'), { accessToken: 'a\nb' }),
    {},
    'no header can have this',
  )
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
