import closeWithGrace from 'close-with-grace'
import { buildApp, buildManagementApp } from '../src/app.js'
import { loadConfig } from '../src/config/load-config.js'
import { createLogger } from '../src/observability/logger.js'
import { loadSandboxConfig, type SandboxConfig } from './config.js'
import { buildDemo, type DemoSettings } from './demo.js'
import { buildIdenfySimulator } from './idenfy-simulator.js'
import { buildIdentityProvider } from './identity-provider.js'
import { createTokenSigner } from './token-signer.js'

interface Listener {
  listen(options: { host: string; port: number }): Promise<string>
  close(): Promise<unknown>
}

const credentials = { apiKey: 'sandbox-key', apiSecret: 'sandbox-secret' }
const audience = 'onboarding-bff'
const opened: Listener[] = []

async function open(app: Listener, variable: keyof SandboxConfig): Promise<string> {
  const { SANDBOX_HOST: host, [variable]: port } = config
  try {
    const address = await app.listen({ host, port: Number(port) })
    opened.push(app)
    return address
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    throw new Error(`Port ${port} is in use; set ${variable} to another one`)
  }
}

/** The parts that can be started alone, for compose. */
const parts = {
  'idenfy-simulator': () => open(buildIdenfySimulator(credentials), 'SANDBOX_IDENFY_PORT'),
  'identity-provider': async () => {
    const signers = [await createTokenSigner()] as const
    return open(buildIdentityProvider({ issuer, audience, signers }), 'SANDBOX_IDENTITY_PORT')
  },
  demo: (settings: Partial<DemoSettings> = {}) =>
    open(
      buildDemo(() => ({
        serviceUrl: `http://127.0.0.1:${config.SANDBOX_PORT}`,
        identityUrl: `http://127.0.0.1:${config.SANDBOX_IDENTITY_PORT}`,
        idenfyUrl: `http://127.0.0.1:${config.SANDBOX_IDENFY_PORT}`,
        ...settings,
      })),
      'SANDBOX_DEMO_PORT',
    ),
}

async function startAll(): Promise<void> {
  const idenfy = await parts['idenfy-simulator']()
  const identityProvider = await parts['identity-provider']()
  // Its origin is part of the service's configuration, the service's address part of its own.
  const settings: { -readonly [K in keyof DemoSettings]?: string } = {
    idenfyUrl: idenfy,
    identityUrl: identityProvider,
  }
  const demo = await parts.demo(settings)
  const serviceConfig = loadConfig({
    AUTH_ISSUER: issuer,
    AUTH_AUDIENCE: audience,
    AUTH_JWKS_URL: `${identityProvider}/.well-known/jwks.json`,
    IDENFY_API_KEY: credentials.apiKey,
    IDENFY_API_SECRET: credentials.apiSecret,
    IDENFY_BASE_URL: idenfy,
    IDENFY_UI_URL: `${idenfy}/welcome`,
    IDENFY_ENVIRONMENT: 'sandbox',
    ALLOW_INSECURE_URLS: 'true',
    DOCS: 'true',
    CORS_ORIGINS: [demo, demo.replace('127.0.0.1', 'localhost'), config.SANDBOX_CORS_ORIGINS].join(),
  })
  const logger = createLogger(serviceConfig.LOG_LEVEL)
  const app = await buildApp(serviceConfig, { logger })
  const service = await open(app, 'SANDBOX_PORT')
  settings.serviceUrl = service
  const management = await open(await buildManagementApp(app, { logger }), 'SANDBOX_MANAGEMENT_PORT')
  process.stdout.write(`
Onboarding BFF sandbox. Nothing here reaches iDenfy; keys and tokens are gone when it stops.

  service            ${service}
  management         ${management}
  iDenfy simulator   ${idenfy}
  identity provider  ${identityProvider}
  documentation      ${service}/docs
  demo page          ${demo}

Open the demo page in a browser, or create a KYB token as user u-1 of company acme:

  curl -sS -X POST ${service}/onboarding/kyb-token \\
    -H "Authorization: Bearer $(curl -sS ${identityProvider}/token \\
      -H 'Content-Type: application/json' -d '{"userId":"u-1","companyId":"acme"}' \\
      | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')"

`)
}

let config: SandboxConfig
let issuer: string
try {
  config = loadSandboxConfig()
  issuer = `http://localhost:${config.SANDBOX_IDENTITY_PORT}`
  closeWithGrace({ logger: false }, async () => {
    for (const app of opened.reverse()) await app.close()
  })
  const [, , part = 'all'] = process.argv
  if (part === 'all') await startAll()
  else if (Object.hasOwn(parts, part)) process.stdout.write(`${await parts[part as keyof typeof parts]()}\n`)
  else throw new Error(`There is no part "${part}"; there are ${Object.keys(parts).join(', ')}, and all`)
} catch (error) {
  process.stderr.write(`The sandbox cannot start. ${(error as Error).message}\n`)
  process.exit(1)
}
