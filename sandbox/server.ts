import closeWithGrace from 'close-with-grace'
import { buildApp, buildManagementApp } from '../src/app.js'
import { createLogger } from '../src/observability/logger.js'
import {
  audience,
  credentials,
  issuerOf,
  loadSandboxConfig,
  loadServiceConfig,
  originAt,
  type SandboxConfig,
  urlHostOf,
} from './config.js'
import { buildDemo, type DemoSettings } from './demo-server.js'
import { buildIdenfySimulator } from './idenfy-simulator.js'
import { buildIdentityProvider } from './identity-provider.js'
import { createTokenSigner } from './token-signer.js'

interface App {
  listen(options: { host: string; port: number }): Promise<string>
  close(): Promise<unknown>
}

type PortVariable = Extract<keyof SandboxConfig, `SANDBOX_${string}PORT`>

/** Starts everything, or one component for Docker Compose: node dist-sandbox/server.js [COMPONENT] */
async function main(component = 'all'): Promise<void> {
  const config = loadSandboxConfig()
  const issuer = issuerOf(config)
  const urlHost = urlHostOf(config)
  const listening: App[] = []
  closeWithGrace({ logger: false }, async () => {
    for (const app of listening.reverse()) await app.close()
  })

  async function listen(app: App, portVariable: PortVariable): Promise<string> {
    const port = config[portVariable]
    try {
      const url = await app.listen({ host: config.SANDBOX_HOST, port })
      listening.push(app)
      return originAt(urlHost, url)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EADDRINUSE') throw new Error(`Port ${port} is in use; set ${portVariable} to another one`)
      throw new Error(`Cannot listen on SANDBOX_HOST, ${config.SANDBOX_HOST} (${code})`)
    }
  }

  const startIdenfySimulator = () =>
    listen(buildIdenfySimulator({ ...credentials, pageHost: urlHost }), 'SANDBOX_IDENFY_PORT')

  async function startIdentityProvider(): Promise<string> {
    const signers = [await createTokenSigner()] as const
    return listen(buildIdentityProvider({ issuer, audience, signers }), 'SANDBOX_IDENTITY_PORT')
  }

  const defaultSettings: DemoSettings = {
    serviceUrl: `http://${urlHost}:${config.SANDBOX_PORT}`,
    identityUrl: `http://${urlHost}:${config.SANDBOX_IDENTITY_PORT}`,
    idenfyUrl: `http://${urlHost}:${config.SANDBOX_IDENFY_PORT}`,
  }

  const startDemo = (settings = () => defaultSettings) => listen(buildDemo(settings), 'SANDBOX_DEMO_PORT')

  async function startAll(): Promise<void> {
    const idenfyUrl = await startIdenfySimulator()
    const identityUrl = await startIdentityProvider()
    // The service needs the origin of the demo page for CORS. The demo page learns about the service later.
    let settings: DemoSettings = { ...defaultSettings, identityUrl, idenfyUrl }
    const demoUrl = await startDemo(() => settings)
    const { serviceConfig, ignored } = loadServiceConfig(config, { idenfyUrl, identityUrl, demoUrl })
    const { AUTH_REQUIRED_SCOPE: scope, KYB_CLIENT_ID, KYB_EXTERNAL_REF } = serviceConfig
    const logger = createLogger(serviceConfig.LOG_LEVEL)
    const app = await buildApp(serviceConfig, { logger })
    const serviceUrl = await listen(app, 'SANDBOX_PORT')
    const faultsByCaller = `${KYB_CLIENT_ID}${KYB_EXTERNAL_REF}`.includes('{userId}')
    settings = { ...settings, serviceUrl, faultsByCaller, ...(scope !== undefined && { scope }) }
    const managementUrl = await listen(await buildManagementApp(app, { logger }), 'SANDBOX_MANAGEMENT_PORT')
    process.stdout.write(`
Onboarding BFF sandbox. It never calls iDenfy. Its keys and tokens are lost when it stops.

  service            ${serviceUrl}
  management         ${managementUrl}
  iDenfy simulator   ${idenfyUrl}
  identity provider  ${identityUrl}
  documentation      ${serviceConfig.DOCS ? `${serviceUrl}/docs` : 'none, because DOCS is false'}
  demo page          ${demoUrl}

${ignored.length > 0 ? `Ignored, because the sandbox sets them itself: ${ignored.join(', ')}\n\n` : ''}Open the demo page in a browser, or create a KYB token as user u-1 of company acme:

  curl -sS -X POST ${serviceUrl}/onboarding/kyb-token \\
    -H "Authorization: Bearer $(curl -sS ${identityUrl}/token \\
      -H 'Content-Type: application/json' -d '${JSON.stringify({ userId: 'u-1', companyId: 'acme', scope })}' \\
      | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')"

`)
  }

  const components = new Map<string, () => Promise<string>>([
    ['idenfy-simulator', startIdenfySimulator],
    ['identity-provider', startIdentityProvider],
    ['demo', startDemo],
  ])
  if (component === 'all') return startAll()
  const startComponent = components.get(component)
  if (!startComponent) {
    throw new Error(`Unknown component "${component}"; use ${[...components.keys()].join(', ')} or all`)
  }
  process.stdout.write(`${await startComponent()}\n`)
}

try {
  await main(process.argv[2])
} catch (error) {
  process.stderr.write(`The sandbox cannot start. ${(error as Error).message}\n`)
  process.exit(1)
}
