import t, { type Test } from 'tap'
import { build, Secrets, spawnNode } from '../helper.js'

const uuid = '7b1d8a1e-6c1b-4d53-9d3a-0c5a3f2e9a10'
const policy = {
  session: { lifetime: 3600, tags: ['portal'] },
  callerMaySet: { locale: true },
  companies: { acme: { session: { flow: uuid }, callerMaySet: { lifetime: { maximum: 7200 } } } },
}

/** `explain`, beside the service with the same configuration. */
async function start(t: Test, env: Record<string, string> = {}) {
  const KYB_POLICY_FILE = `${t.testdir({ 'policy.json': JSON.stringify(policy) })}/policy.json`
  const service = await build(t, { env: { KYB_POLICY_FILE, ...env } })
  const explain = async (...args: string[]) => {
    const { exited, output } = spawnNode(
      t,
      ['dist/commands/explain.js', ...args],
      { ...service.environment, KYB_POLICY_FILE, ...env },
      new Secrets(),
    )
    const code = await exited()
    return { code, stderr: output.stderr, ...(output.stdout && { json: JSON.parse(output.stdout) }) }
  }
  return { service, explain }
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
    KYB_CLIENT_ID: '{companyHash}',
    KYB_IDENTITY_KEY: 'k'.repeat(32),
  })
  const { json } = await explain('--company', 'acme', '--user', 'u-1')
  t.equal(json.clientId, (await service.mint()).json.clientId)
})

t.test('wrong arguments and a wrong configuration exit with code 2', async (t) => {
  const { explain } = await start(t)
  for (const args of [[], ['--company', 'acme'], ['--company', 'acme', '--user', 'u', '--canary', 'x']]) {
    const { code, stderr } = await explain(...args)
    t.equal(code, 2)
    t.match(stderr, /Usage: node dist\/commands\/explain\.js --company ID/)
  }
  const { exited, output } = spawnNode(t, ['dist/commands/explain.js', '--company', 'a', '--user', 'u'], {})
  t.equal(await exited(), 2)
  t.match(output.stderr, /AUTH_ISSUER is required/)
})
