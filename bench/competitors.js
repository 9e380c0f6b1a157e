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
  return {
    ...child,
    origin: `http://127.0.0.1:${port}`,
    managementOrigin: `http://127.0.0.1:${managementPort}`,
  }
}

/** Starts the programs that the service is compared with. Each forwards the service's path to the upstream. */
export async function startCompetitors(bench) {
  const competitors = []
  for (const script of ['baseline', 'http-proxy', 'express']) {
    competitors.push(await startCompetitor(bench, script))
  }
  if (existsSync(nginx)) competitors.push(await startNginx(bench))
  for (const competitor of competitors) await listening(competitor, competitor.origin)
  return competitors
}

/** Starts one of the programs in bench/competitors. */
export async function startCompetitor(
  { directory, upstream, callers },
  script,
  { name = script, env = {} } = {},
) {
  const pemFile = join(directory, 'rsa.pem')
  writeFileSync(pemFile, callers.rsaPem)
  const args = script === 'express' ? [apiKey, apiSecret, pemFile, issuer, audience] : [authorization]
  const port = await freePort()
  const command = [process.execPath, `bench/competitors/${script}.js`, String(port), upstream, ...args]
  const child = start(name, command, {
    ...measured,
    directory,
    env: { NODE_ENV: 'production', ...env },
  })
  return { ...child, origin: `http://127.0.0.1:${port}` }
}

async function startNginx({ directory, upstream }) {
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
