import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { audience, issuer } from './callers.js'
import { freePort, listening, start } from './processes.js'

const apiKey = 'bench-key'
const apiSecret = 'bench-secret'
const authorization = `Basic ${Buffer.from(`${apiKey}:${apiSecret}`).toString('base64')}`
const nginx = '/usr/sbin/nginx'
const measured = { isMeasured: true }
/** The Node options of the production image. `nodeOptions` can override them. */
const imageOptions = ['--max-semi-space-size=16']

/** Starts the service as its image runs it, with all features on and with limits that it never reaches. */
export async function startService(
  { directory, upstream },
  { name = 'service', env = {}, nodeOptions = [], entry = 'bundle/server.js' } = {},
) {
  const port = await freePort()
  const managementPort = await freePort()
  const policyFile = join(directory, 'policy.json')
  // Callers vary the lifetime. Otherwise the service would replay its first response to each caller.
  writeFileSync(policyFile, JSON.stringify({ callerMaySet: { locale: true, lifetime: true } }))
  const child = start(name, [process.execPath, ...imageOptions, ...nodeOptions, entry], {
    ...measured,
    directory,
    env: {
      PORT: String(port),
      MANAGEMENT_PORT: String(managementPort),
      AUTH_ISSUER: issuer,
      AUTH_AUDIENCE: audience,
      AUTH_JWKS_URL: `${upstream}/jwks.json`,
      IDENFY_API_KEY: apiKey,
      IDENFY_API_SECRET: apiSecret,
      IDENFY_BASE_URL: upstream,
      IDENFY_MAX_IN_FLIGHT: '100',
      KYB_POLICY_FILE: policyFile,
      RATE_LIMIT_USER_PER_MINUTE: '1000000',
      RATE_LIMIT_COMPANY_PER_MINUTE: '1000000',
      RATE_LIMIT_IP_PER_MINUTE: '1000000',
      ...env,
    },
  })
  return { ...child, origin: `http://127.0.0.1:${port}` }
}

/** Starts the programs that the service is compared with. Each forwards the service's path to the upstream. */
export async function startCompetitors({ directory, upstream, callers }) {
  const pemFile = join(directory, 'rsa.pem')
  writeFileSync(pemFile, callers.rsaPem)
  const scripts = {
    baseline: [authorization],
    'http-proxy': [authorization],
    express: [apiKey, apiSecret, pemFile, issuer, audience],
  }
  const competitors = []
  for (const [name, args] of Object.entries(scripts)) {
    const port = await freePort()
    const command = [process.execPath, `bench/competitors/${name}.js`, String(port), upstream, ...args]
    const env = { NODE_ENV: 'production' }
    competitors.push({
      ...start(name, command, { ...measured, directory, env }),
      origin: `http://127.0.0.1:${port}`,
    })
  }
  if (existsSync(nginx)) competitors.push(await startNginx(directory, upstream))
  for (const competitor of competitors) await listening(competitor, competitor.origin)
  return competitors
}

async function startNginx(directory, upstream) {
  const port = await freePort()
  const configuration = join(directory, 'nginx.conf')
  writeFileSync(
    configuration,
    `daemon off;
     master_process off;
     pid ${directory}/nginx.pid;
     events { worker_connections 10000; }
     http {
       access_log off;
       keepalive_requests 1000000000;
       upstream idenfy { server ${new URL(upstream).host}; keepalive 100; keepalive_requests 1000000000; }
       server {
         listen 127.0.0.1:${port};
         location = /onboarding/kyb-token {
           proxy_pass http://idenfy/kyb/tokens/;
           proxy_http_version 1.1;
           proxy_set_header Connection "";
           proxy_set_header Authorization "${authorization}";
         }
       }
     }`,
  )
  const command = [nginx, '-e', 'stderr', '-p', directory, '-c', configuration]
  return { ...start('nginx', command, { ...measured, directory }), origin: `http://127.0.0.1:${port}` }
}
