import t from 'tap'
import { build, spawnNode } from '../helper.js'

t.test('the health check asks the management listener of this configuration', async (t) => {
  const service = await build(t)
  const { port } = new URL(service.managementUrl)
  const check = (env: Record<string, string>) =>
    spawnNode(t, ['dist/commands/healthcheck.js'], { ...service.environment, ...env }).exited()

  // The first fetch of the signing keys may still be under way.
  await service.mint()
  t.equal(await check({ MANAGEMENT_PORT: port }), 0)
  t.equal(await check({ MANAGEMENT_PORT: port, MANAGEMENT_HOST: '0.0.0.0' }), 0)
  t.equal(await check({ MANAGEMENT_PORT: port, MANAGEMENT_HOST: '::' }), 0)
  t.equal(await check({ MANAGEMENT_PORT: '1' }), 1, 'no process listens')
})

t.test('not ready is not healthy', async (t) => {
  const service = await build(t, { env: { AUTH_JWKS_URL: 'http://127.0.0.1:1/jwks' } })
  const { port } = new URL(service.managementUrl)
  t.equal(
    await spawnNode(t, ['dist/commands/healthcheck.js'], {
      ...service.environment,
      MANAGEMENT_PORT: port,
    }).exited(),
    1,
  )
})

t.test('a configuration that would not start again does not make a running instance unhealthy', async (t) => {
  const service = await build(t)
  const { port } = new URL(service.managementUrl)
  await service.mint()
  const directory = t.testdir({ 'policy.json': '{broken' })
  const broken = {
    MANAGEMENT_PORT: port,
    AUTH_ISSUER: '',
    IDENFY_API_KEY_FILE: `${directory}/none`,
    KYB_POLICY_FILE: `${directory}/policy.json`,
    AUTH_CANARY: 'canary',
  }
  const { exited, output } = spawnNode(t, ['dist/commands/healthcheck.js'], broken)
  t.equal(await exited(), 0)
  t.strictSame(output, { stdout: '', stderr: '' })
})
