import { get } from 'node:http'
import { loadManagementAddress } from '../config/load-config.js'

// For the container's HEALTHCHECK. Exit code 0: this instance should get traffic.
// A listener on all addresses is reached over loopback. That of `::` may have only IPv4.
const { MANAGEMENT_HOST: host, MANAGEMENT_PORT: port } = loadManagementAddress()
get({ host: host === '::' ? '127.0.0.1' : host, port, path: '/readyz' }, ({ statusCode }) =>
  process.exit(statusCode === 200 ? 0 : 1),
).on('error', () => process.exit(1))
