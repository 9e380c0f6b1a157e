import { parseArgs } from 'node:util'
import { ConfigError } from './faults.js'

/** @throws ConfigError for any argument but `--check-config` */
export function parseArguments(args: string[]): { readonly checkOnly: boolean } {
  try {
    const { values } = parseArgs({ args, options: { 'check-config': { type: 'boolean' } } })
    return { checkOnly: values['check-config'] === true }
  } catch {
    throw new ConfigError(['There is an unknown argument. The only one is --check-config'])
  }
}
