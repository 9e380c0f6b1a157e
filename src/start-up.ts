import { parseArgs } from 'node:util'
import type { FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import { listen } from './app.js'
import type { Config } from './config/config.js'
import { ConfigError } from './config/faults.js'

const maxPrintedCharacters = 1000

/** @throws ConfigError for any argument but `--check-config` */
export function parseArguments(args: string[]): { readonly checkOnly: boolean } {
  try {
    const { values } = parseArgs({ args, options: { 'check-config': { type: 'boolean' } } })
    return { checkOnly: values['check-config'] === true }
  } catch {
    throw new ConfigError(['The arguments have one that is not known: there is only --check-config'])
  }
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

/** Turns what libraries print into lines of the log. The logger itself does not write through these streams. */
export function logPrints(logger: Logger): void {
  const redirect = (stream: NodeJS.WriteStream, level: 'info' | 'warn') => {
    stream.write = (text: Uint8Array | string, ...rest: unknown[]) => {
      logger[level]({ text: withoutCredentials(String(text)) }, 'printed')
      const done = rest.at(-1)
      if (typeof done === 'function') done()
      return true
    }
  }
  redirect(process.stdout, 'info')
  redirect(process.stderr, 'warn')
  // Node's own listener writes to stderr.
  process.removeAllListeners('warning').on('warning', ({ name, message }) => {
    logger.warn({ warning: name, text: withoutCredentials(message) }, 'warning of Node')
  })
}

function withoutCredentials(text: string): string {
  return text
    .trimEnd()
    .replace(/\/\/[^\s/]*@/g, '//…@')
    .slice(0, maxPrintedCharacters)
}
