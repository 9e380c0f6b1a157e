import type { FastifyInstance } from 'fastify'
import type { Config } from './config/config.js'
import { ConfigError } from './config/faults.js'

/**
 * Listens on an address. `::` also accepts IPv4. On a machine without IPv6 it means `0.0.0.0`, which is Node's default.
 * `localhost` means one address: Fastify would start a second server for the other one, without the hooks of the first.
 */
export async function listen(app: FastifyInstance, host: string, port: number): Promise<void> {
  await app.listen({ host: { '::': '', localhost: '127.0.0.1' }[host] ?? host, port })
}

/**
 * Listens where the configuration says.
 *
 * @throws ConfigError that names the variable at fault
 */
export async function listenOn(
  app: FastifyInstance,
  config: Config,
  prefix: '' | 'MANAGEMENT_',
): Promise<void> {
  const port = config[`${prefix}PORT`]
  try {
    await listen(app, config[`${prefix}HOST`], port)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EADDRINUSE') throw new ConfigError([`${prefix}PORT ${port} is in use (${code})`])
    if (code === 'EACCES') {
      throw new ConfigError([
        `${prefix}PORT ${port} is not open to this user (${code}); use a port from 1024 on`,
      ])
    }
    throw new ConfigError([`${prefix}HOST is not an address of this machine (${code})`])
  }
}
