import { type EnvironmentVariable, secretNames, variableNames } from './environment-schema.js'

/** Every setting in force, by the name of its variable, for the log. Of a secret it says only where it comes from. */
export function describeSettings(
  values: Readonly<Partial<Record<EnvironmentVariable, unknown>>>,
  environment: Readonly<NodeJS.ProcessEnv>,
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    variableNames.map((name) => [name, describe(name, values[name], environment[name] === undefined)]),
  )
}

function describe(name: EnvironmentVariable, value: unknown, isFromFile: boolean): unknown {
  if (value === undefined) return null
  const isUrl = name.endsWith('_URL')
  if (!secretNames.has(name)) return isUrl ? withoutQuery(String(value)) : value
  const source = isFromFile ? 'set from file' : 'set'
  return isUrl ? `${source}, ${serverOf(String(value))}` : source
}

function serverOf(url: string): string {
  const { protocol, host } = new URL(url)
  return `${protocol}//${host}`
}

function withoutQuery(url: string): string {
  return url.replace(/\?.*$/, '?…')
}
