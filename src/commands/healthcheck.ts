import { get } from 'node:http'
import { loadManagementAddress } from '../config/load-config.js'

// For the container's HEALTHCHECK: exit code 0 as long as this instance should get traffic.
// A listener on every address is reached over loopback; that of `::` may have had to do with IPv4.
const { MANAGEMENT_HOST: host, MANAGEMENT_PORT: port } = loadManagementAddress()
get({ host: host === '::' ? '127.0.0.1' : host, port, path: '/readyz' }, ({ statusCode }) =>
  process.exit(statusCode === 200 ? 0 : 1),
).on('error', () => process.exit(1))
