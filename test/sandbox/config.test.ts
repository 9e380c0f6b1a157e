import t from 'tap'
import { loadSandboxConfig } from '../../sandbox/config.js'

const ports = [
  'SANDBOX_PORT',
  'SANDBOX_MANAGEMENT_PORT',
  'SANDBOX_IDENFY_PORT',
  'SANDBOX_IDENTITY_PORT',
  'SANDBOX_DEMO_PORT',
]

t.test('ports can be moved', async (t) => {
  t.strictSame(loadSandboxConfig({ SANDBOX_IDENFY_PORT: '5010', OTHER: 'x' }), {
    SANDBOX_HOST: '127.0.0.1',
    SANDBOX_PORT: 3000,
    SANDBOX_MANAGEMENT_PORT: 9000,
    SANDBOX_IDENFY_PORT: 5010,
    SANDBOX_IDENTITY_PORT: 4011,
    SANDBOX_DEMO_PORT: 4012,
    SANDBOX_CORS_ORIGINS: 'http://localhost:5173',
  })
  t.equal(loadSandboxConfig({ SANDBOX_HOST: '0.0.0.0' }).SANDBOX_HOST, '0.0.0.0')
  for (const name of ports) {
    for (const value of ['0', '65535'])
      t.match(loadSandboxConfig({ [name]: value }), { [name]: Number(value) })
  }
  t.throws(() => loadSandboxConfig({ SANDBOX_PORT: 'x', SANDBOX_IDENTITY_PORT: '70000' }), {
    message: /SANDBOX_PORT must be an integer from 0 to 65535; SANDBOX_IDENTITY_PORT must be /,
  })
  t.strictSame(
    loadSandboxConfig(),
    loadSandboxConfig(process.env),
    'the environment of the process is the default',
  )
})

t.test('an invalid port is named', async (t) => {
  for (const name of ports) {
    for (const value of ['x', '', '1.5', '-1', '65536']) {
      t.throws(() => loadSandboxConfig({ [name]: value }), { message: new RegExp(name) }, `${name}=${value}`)
    }
  }
})

t.test('a number without an end is no port', async (t) => {
  for (const name of ports) {
    t.throws(() => loadSandboxConfig({ [name]: 'Infinity' }), { message: new RegExp(name) }, name)
  }
})
