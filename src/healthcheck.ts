import { get } from 'node:http'
import { loadConfig } from './config.js'

// For the container's HEALTHCHECK: exit code 0 as long as this instance should get traffic.
// A listener on every address (0.0.0.0, ::) is reached under that very address, over loopback.
const { MANAGEMENT_HOST: host, MANAGEMENT_PORT: port } = loadConfig()
get({ host, port, path: '/readyz' }, ({ statusCode }) => process.exit(statusCode === 200 ? 0 : 1)).on(
  'error',
  () => process.exit(1),
)
