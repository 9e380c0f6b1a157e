import { readFileSync } from 'node:fs'

/** Of this package. The file stays at the root of `src`: compiled or bundled, it is one folder below package.json. */
export const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string
}
