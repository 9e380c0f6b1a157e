import { writeFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { createTokenSigner } from '../../sandbox/token-signer.js'
import { runExplain } from '../../src/commands/explain-command.js'
import { explainToken } from '../../src/commands/explanation.js'
import type { TokenCheck } from '../../src/commands/token-checks.js'
import { loadConfig } from '../../src/config/load-config.js'
import { invalidTokenReasons } from '../../src/services/auth/access-token.js'
import { audience, build, issuer, Secrets, signer, spawnNode } from '../helper.js'

const uuid = '7b1d8a1e-6c1b-4d53-9d3a-0c5a3f2e9a10'
const policy = {
  session: { lifetime: 3600, tags: ['portal'] },
  callerMaySet: { locale: true },
  companies: { acme: { session: { flow: uuid }, callerMaySet: { lifetime: { maximum: 7200 } } } },
}

/** `explain`, beside the service with the same configuration. */
async function start(t: Test, { env = {} }: { env?: Record<string, string> } = {}) {
  const directory = t.testdir({ 'policy.json': JSON.stringify(policy) })
  const KYB_POLICY_FILE = `${directory}/policy.json`
  const service = await build(t, { env: { KYB_POLICY_FILE, ...env } })
  const explain = async (...args: string[]) => {
    const { exited, output } = spawnNode(
      t,
      ['dist/commands/explain.js', ...args],
      { ...service.environment, KYB_POLICY_FILE, ...env },
      new Secrets(),
    )
    const code = await exited()
    return { code, ...output, ...(output.stdout && { json: JSON.parse(output.stdout) }) }
  }
  return { service, explain, directory }
}

t.test('explain shows the request that the service sends', async (t) => {
  const { service, explain } = await start(t)
  const body = { locale: 'lt', lifetime: 7200 }
  const { code, json } = await explain('--company', 'acme', '--user', 'u-1', '--body', JSON.stringify(body))
  t.equal(code, 0)
  t.strictSame(json, {
    clientId: 'acme',
    externalRef: 'u-1',
    callerMaySet: { locale: true, lifetime: { maximum: 7200 } },
    session: { lifetime: 7200, tags: ['portal'], flow: uuid, locale: 'lt' },
  })
  t.strictSame(await service.arrived(), [], 'iDenfy is not called')
  await service.mint({ body })
  const { clientId, externalRef, session } = json
  t.strictSame(await service.arrived(), [{ tokenType: 'FORM', clientId, externalRef, ...session }])
})

t.test('why it would be refused is what the service says', async (t) => {
  const { service, explain } = await start(t)
  const bodies = [{ tags: ['a'], lifetime: 7201 }, { locale: 'xx', nothing: 1 }, null, []]
  for (const body of bodies) {
    const { code, json } = await explain('--company=acme', '--user=u-1', '--body', JSON.stringify(body))
    t.equal(code, 1)
    const { json: problem } = await service.mint({ body })
    t.strictSame(json.session.refused, {
      code: problem.code,
      status: problem.status,
      ...(problem.errors && { errors: problem.errors }),
    })
  }
  const broken = await explain('--company=acme', '--user=u-1', '--body', '{')
  t.match(broken.json, { session: { refused: { code: 'malformed-request' } } })
  t.strictSame(await service.arrived(), [])
})

t.test('an identity that cannot be mapped, and why', async (t) => {
  const { explain } = await start(t)
  const rows = [
    ['acme', 'u'.repeat(41), 'externalRef-too-long'],
    ['acme', 'u:1', 'user-id'],
    ['a/b', 'u-1', 'company-id'],
  ] as const
  for (const [company, user, reason] of rows) {
    const { code, json } = await explain('--company', company, '--user', user)
    t.equal(code, 1)
    t.strictSame(json.refused, { code: 'identity-not-mappable', status: 403, reason })
    t.match(json.session, { lifetime: 3600 })
  }
})

t.test('pseudonyms are those of the service', async (t) => {
  const { service, explain } = await start(t, {
    env: { KYB_CLIENT_ID: '{companyHash}', KYB_IDENTITY_KEY: 'k'.repeat(32) },
  })
  const { json } = await explain('--company', 'acme', '--user', 'u-1')
  t.equal(json.clientId, (await service.mint()).json.clientId)
})

t.test('wrong arguments and a wrong configuration exit with code 2', async (t) => {
  const { explain } = await start(t)
  const wrong = [
    [],
    ['--company', 'acme'],
    ['--company', 'acme', '--user', 'u', '--canary', 'x'],
    ['canary.as.token'],
    ['--token-file'],
  ]
  for (const args of wrong) {
    const { code, stderr } = await explain(...args)
    t.equal(code, 2)
    t.notMatch(stderr, 'canary')
    t.match(stderr, /^\S.*\n\nUsage:\n {2}node dist\/commands\/explain\.js --company ID/)
  }
  const { exited, output } = spawnNode(t, ['dist/commands/explain.js', '--company', 'a', '--user', 'u'], {})
  t.equal(await exited(), 2)
  t.match(output.stderr, /AUTH_ISSUER is required/)
  t.notMatch(output.stderr, 'Usage')
})

t.test('--help says what the program can do', async (t) => {
  const { exited, output } = spawnNode(t, ['dist/commands/explain.js', '--help'], {})
  t.equal(await exited(), 0)
  t.match(output, { stdout: /--token-file FILE .*--help/s, stderr: '' })
})

t.test('an access token is explained step by step', async (t) => {
  const { service, explain, directory } = await start(t)
  const token = await service.token()
  writeFileSync(`${directory}/token`, `Bearer ${token}\r\n`)
  const { code, json } = await explain('--token-file', `${directory}/token`, '--body', '{"locale":"lt"}')
  t.equal(code, 0)
  t.ok(json.token.length > 10)
  for (const check of json.token) t.match(check, { result: 'passed', expected: /./, received: /./ })
  t.match(json.token, [{ check: 'form', received: /^3 parts/ }])
  t.match(json, {
    caller: { userId: 'u-1', companyId: 'acme' },
    clientId: 'acme',
    externalRef: 'u-1',
    session: { locale: 'lt' },
  })
  t.notMatch(JSON.stringify(json), token.split('.')[2])
  t.strictSame(await service.arrived(), [])
})

t.test(
  'a token that is refused: the check that failed, what was expected and what was received',
  async (t) => {
    const env = {
      AUTH_REQUIRED_SCOPE: 'kyb',
      AUTH_ALGORITHMS: 'RS256,ES256',
      AUTH_MAX_TOKEN_LIFETIME_SECONDS: '900',
    }
    const service = await build(t, { env })
    const config = loadConfig({ ...service.environment, ...env })
    const scope = 'kyb'
    const sign = (claims: object, header = {}, by = signer) => service.token({ scope, ...claims }, header, by)
    const now = Math.floor(Date.now() / 1000)
    const other = await createTokenSigner('RS256', 'other')
    const forger = await createTokenSigner('RS256')
    const [valid, longest] = [await sign({}), await sign({ text: 'x'.repeat(11_050) })]
    const [header = '', payload = '', signature = ''] = valid.split('.')

    /** `reason`, the check that fails, the token, and what is shown. */
    const rows: [string, TokenCheck['check'], string, Partial<Record<'expected' | 'received', unknown>>?][] =
      [
        ['too-long', 'form', longest, { expected: /15000/, received: /^3 parts, 15\d{3} characters$/ }],
        ['not-compact', 'form', 'opaque-token', { received: '1 parts, 12 characters' }],
        ['encoding', 'form', `${header}.${payload}.${signature.slice(0, -1)}B`],
        ['header', 'form', `bm9uZQ.${payload}.${signature}`],
        ['header', 'form', `MQ.${payload}.${signature}`],
        ['claims', 'form', `${header}.${Buffer.from('\ufeff{}').toString('base64url')}.${signature}`],
        [
          'algorithm',
          'algorithm',
          await sign({}, { alg: 'RS256' }).then((token) => withHeader(token, { alg: 'HS256' })),
          {
            expected: 'one of RS256, ES256',
            received: 'HS256',
          },
        ],
        ['key-id', 'header parameters', withHeader(valid, { alg: 'RS256', kid: 7 })],
        [
          'header-parameter',
          'header parameters',
          await sign({}, { jku: 'https://x.example' }),
          { received: /jku/ },
        ],
        [
          'unknown-key',
          'signing key',
          await sign({}, {}, other),
          { expected: /a key of http:.*jwks\.json$/, received: 'kid other' },
        ],
        ['signature', 'signature', await sign({}, {}, forger)],
        ['claim-exp', 'required claims', await sign({ exp: undefined }), { received: 'iss, aud, sub' }],
        [
          'claim-iss',
          'issuer',
          await sign({ iss: `${issuer}/` }),
          { expected: issuer, received: `${issuer}/` },
        ],
        ['claim-aud', 'audience', await sign({ aud: ['a', 'b'] }), { expected: audience, received: 'a, b' }],
        [
          'expired',
          'times',
          await sign({ iat: now - 600, exp: now - 60 }),
          { received: /^exp 20\d\d-.*nbf none, iat 20/ },
        ],
        ['claim-nbf', 'times', await sign({ nbf: now + 300 })],
        ['claim-exp', 'times', await sign({ exp: 'never' }), { received: /^exp never, nbf none, iat 20/ }],
        ['claim-iat', 'times', await sign({ iat: 'never' }), { received: /iat never$/ }],
        [
          'token-type',
          'token type',
          await sign({}, { typ: 'id+jwt' }),
          { expected: 'one of at+jwt, JWT', received: 'id+jwt' },
        ],
        ['not-an-access-token', 'kind of token', await sign({ at_hash: 'x' }), { received: 'at_hash' }],
        [
          'not-an-access-token',
          'kind of token',
          await sign({ token_use: 'id' }),
          { received: 'token_use; token_use id' },
        ],
        ['not-an-access-token', 'kind of token', await sign({ typ: 'ID' }), { received: 'typ; typ ID' }],
        ['claim-sub', 'subject', await sign({ sub: 7 }), { received: 'number' }],
        ['issued-in-future', 'lifetime', await sign({ iat: now + 300 })],
        [
          'lifetime',
          'lifetime',
          await sign({ iat: undefined, exp: now + 1000 }),
          { received: /^(9\d\d|1000) seconds, iat none$/ },
        ],
        [
          'insufficient-scope',
          'scope',
          await sign({ scope: 'openid profile' }),
          { expected: 'kyb', received: 'openid, profile' },
        ],
        ['insufficient-scope', 'scope', await sign({ scope: undefined }), { received: 'none' }],
        ['user-claim', 'user', await sign({ sub: ' ' })],
        ['no-user', 'user', await sign({ client_id: 'u-1' })],
        ['user-id', 'user', await sign({ sub: 'a\nb' })],
        ['company-id', 'company', await sign({ company_id: 'a\nb' })],
        ['no-company', 'company', await sign({ company_id: undefined }), { received: 'none' }],
        ['company-required', 'company', await sign({ company_id: ['a', 'b'] }), { received: 'a, b' }],
      ]
    for (const [reason, check, token, shown = {}] of rows) {
      const { isAccepted, explanation } = await explainToken(config, token, undefined, '{}')
      t.equal(isAccepted, false, reason)
      const { token: checks = [] } = explanation
      const failed = checks.findIndex(({ result }) => result === 'failed')
      t.match(checks[failed], { check, reason, ...shown }, reason)
      t.strictSame(
        checks.map(({ result }) => result),
        checks.map((_, index) => (index < failed ? 'passed' : index === failed ? 'failed' : 'not reached')),
      )
      const { json, status } = await service.mint({ token })
      t.match(explanation.refused, { code: json.code, status }, reason)
      t.strictSame(await service.arrived(), [])
    }
    const tested = new Set(rows.map(([reason]) => reason))
    t.strictSame(
      invalidTokenReasons.filter((reason) => !tested.has(reason)),
      ['ambiguous-key'],
      'which the next test has',
    )

    const selected = await explainToken(config, await sign({ company_id: ['a', 'b'] }), 'b', '{}')
    t.match(selected, { isAccepted: true, explanation: { caller: { companyId: 'b' } } })
  },
)

t.test('explain writes no character that changes what a terminal shows', async (t) => {
  const { service, explain, directory } = await start(t)
  const text = 'a\u009b31m\u202eb\u2028c\u{e0001}'
  writeFileSync(
    `${directory}/token`,
    await service.token({ aud: [audience, text], sub: 'u\u202e1' }, { [text]: 1 }),
  )
  const { code, stdout } = await explain('--token-file', `${directory}/token`)
  t.equal(code, 1)
  t.notMatch(stdout, /[\u007f-\u009f\u202e\u2028\u{e0001}]/u)
  t.match(stdout, '"userId": "u\\u202e1"')
})

t.test('without a usable key set, explain says what the identity provider sent', async (t) => {
  const service = await build(t)
  const token = await service.token()
  const keys = (AUTH_JWKS_URL: string) => loadConfig({ ...service.environment, AUTH_JWKS_URL })
  const missing = await explainToken(keys(`${service.idenfyUrl}/missing`), token, undefined, '{}')
  t.match(missing.explanation, { refused: { code: 'auth-keys-unavailable', status: 503 } })
  t.match(missing.explanation.token?.[3], {
    check: 'signing key',
    result: 'failed',
    reason: 'auth-keys-unavailable',
    received: 'status 404',
  })
})

t.test('explain names the keys of the set that the service does not use', async (t) => {
  const weak = { ...signer, publicJwk: { ...signer.publicJwk, kid: 'for-encryption', use: 'enc' } }
  const service = await build(t, { signers: [signer, weak] })
  const token = await service.token({}, { kid: 'for-encryption' })
  const { explanation } = await explainToken(loadConfig(service.environment), token, undefined, '{}')
  t.match(explanation.token?.[3], {
    reason: 'unknown-key',
    received: 'kid for-encryption; keys of the set that are not used: for-encryption (use)',
  })
})

t.test('a token without a kid that fits several keys is refused as ambiguous', async (t) => {
  const keys = await Promise.all([createTokenSigner('RS256', 'a'), createTokenSigner('RS256', 'b')])
  const service = await build(t, { signers: [keys[0], keys[1]] })
  const token = await service.token({}, { kid: undefined }, keys[0])
  const { explanation } = await explainToken(loadConfig(service.environment), token, undefined, '{}')
  t.match(explanation.token?.[3], {
    result: 'failed',
    reason: 'ambiguous-key',
    received: 'no kid',
  })
})

t.test('a token file that cannot be used exits with code 2, and shows nothing of it', async (t) => {
  const directory = t.testdir({ empty: ' \n', large: 'x'.repeat(70_000) })
  const rows: [string[], RegExp][] = [
    [['--token-file', `${directory}/missing`], /^--token-file cannot be read: ENOENT\./],
    [['--token-file', directory], /^--token-file cannot be read: EISDIR\./],
    [['--token-file', `${directory}/empty`], /^--token-file is empty\./],
    [['--token-file', `${directory}/large`], /^--token-file is larger than 64 KiB\./],
    [['--token-file', `${directory}/empty`, '--user', 'u-1'], /^--user cannot be used with --token-file/],
  ]
  for (const [args, message] of rows) {
    const written = t.capture(process.stderr, 'write')
    const code = await runExplain(args, 'explain', () => t.fail('the settings are not read') as never)
    written.restore()
    t.equal(code, 2)
    const [[text = ''] = []] = written.args() as string[][]
    t.match(text, message)
    t.notMatch(text, /xxx/)
  }
})

/** The token with another header, whose signature is then wrong. */
function withHeader(token: string, header: object): string {
  return [Buffer.from(JSON.stringify(header)).toString('base64url'), ...token.split('.').slice(1)].join('.')
}
