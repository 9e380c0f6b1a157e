import { isIPv6 } from 'node:net'
import { request } from 'undici'
import { loadConfig } from './config.js'

// For the container's HEALTHCHECK: exit code 0 as long as this instance should get traffic.
const { MANAGEMENT_HOST: host, MANAGEMENT_PORT: port } = loadConfig()
const reachable =
  host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '[::1]' : isIPv6(host) ? `[${host}]` : host
const { statusCode } = await request(`http://${reachable}:${port}/readyz`)
process.exitCode = statusCode === 200 ? 0 : 1
