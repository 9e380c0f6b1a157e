import t from 'tap'
import { loadSandboxConfig } from '../../src/sandbox/config.js'

t.test('ports can be moved', async (t) => {
  t.strictSame(loadSandboxConfig({ SANDBOX_IDENFY_PORT: '5010', OTHER: 'x' }), {
    SANDBOX_HOST: '127.0.0.1',
    SANDBOX_PORT: 3000,
    SANDBOX_MANAGEMENT_PORT: 9000,
    SANDBOX_IDENFY_PORT: 5010,
    SANDBOX_IDENTITY_PORT: 4011,
  })
  t.throws(() => loadSandboxConfig({ SANDBOX_PORT: 'x', SANDBOX_IDENTITY_PORT: '70000' }), {
    message: /SANDBOX_PORT must be integer.*SANDBOX_IDENTITY_PORT must be <= 65535/,
  })
  t.ok(loadSandboxConfig(), 'the environment of the process is the default')
})
