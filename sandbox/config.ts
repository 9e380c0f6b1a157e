import { type Static, Type } from '@sinclair/typebox'
import { parseEnvironment } from '../src/config/parse-environment.js'

const port = (number: number) => Type.Integer({ minimum: 0, maximum: 65_535, default: number })

const SandboxConfig = Type.Object({
  SANDBOX_HOST: Type.String({ default: '127.0.0.1' }),
  SANDBOX_PORT: port(3000),
  SANDBOX_MANAGEMENT_PORT: port(9000),
  SANDBOX_IDENFY_PORT: port(4010),
  SANDBOX_IDENTITY_PORT: port(4011),
  SANDBOX_DEMO_PORT: port(4012),
  /** Origins of your own pages, in addition to the demo page. The default is Vite's development server. */
  SANDBOX_CORS_ORIGINS: Type.String({ default: 'http://localhost:5173' }),
})
export type SandboxConfig = Static<typeof SandboxConfig>

/** @throws Error that names every invalid variable */
export function loadSandboxConfig(environment: NodeJS.ProcessEnv = process.env): SandboxConfig {
  const { values, faults } = parseEnvironment(SandboxConfig, environment)
  if (faults.size > 0) throw new Error([...faults].map(([name, fault]) => `${name} ${fault}`).join('; '))
  return values
}
