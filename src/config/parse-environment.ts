import type { Static, TObject, TSchema } from '@sinclair/typebox'
import { Check } from '@sinclair/typebox/value'

/**
 * Parses environment variables by a schema of strings, integers, booleans, and lists with a `separator`. Spaces around
 * separators are ignored.
 *
 * A validator that converts would accept `1e3`, `0x10` and `Infinity` as integers. See docs/decisions/0009.
 *
 * @returns the values with defaults, and the faults by name, in words for the operator and without the values
 */
export function parseEnvironment<Schema extends TObject>(
  { properties, required = [] }: Schema,
  texts: Readonly<Record<string, string | undefined>>,
): { readonly values: Static<Schema>; readonly faults: ReadonlyMap<string, string> } {
  const values: Record<string, unknown> = {}
  const faults = new Map<string, string>()
  for (const [name, schema] of Object.entries(properties)) {
    const text = texts[name]
    const value = text === undefined ? schema.default : toValue(schema, text)
    if (value === undefined) {
      if (required.includes(name)) faults.set(name, 'is required')
    } else if (!Check(schema, value)) faults.set(name, `must be ${expectationOf(name, schema)}`)
    else values[name] = schema.separator ? String(value).split(schema.separator) : value
  }
  return { values: values as Static<Schema>, faults }
}

/** A text that cannot be converted stays a text, which the schema then refuses. */
function toValue({ type, separator }: TSchema, text: string): string | number | boolean {
  if (separator) return text.replaceAll(new RegExp(` *${separator} *`, 'g'), separator)
  if (type === 'integer' && /^-?\d+$/.test(text)) return Number(text)
  if (type === 'boolean' && (text === 'true' || text === 'false')) return text === 'true'
  return text
}

function expectationOf(name: string, { expected, type, minimum, maximum }: TSchema): string {
  if (expected) return expected
  if (type === 'boolean') return 'true or false'
  const [, unit] = /_(MS|SECONDS)$/.exec(name) ?? []
  const of = unit === undefined ? '' : unit === 'MS' ? ' milliseconds' : ' seconds'
  return `an integer from ${minimum} to ${maximum}${of}`
}
