const maxDepth = 32
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * Parses a JSON object of moderate depth whose members all have different names (RFC 8259 leaves open what a
 * doubled name means, so two readers may see two objects).
 *
 * @param bytes UTF-8
 * @throws Error for anything else
 */
export function parseStrictObject(bytes: Uint8Array): Record<string, unknown> {
  const text = utf8.decode(bytes)
  const value: unknown = JSON.parse(text)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('not an object')
  checkNames(text)
  return value as Record<string, unknown>
}

/** @param text valid JSON, so that a string before a colon is the name of a member */
function checkNames(text: string): void {
  const open: Set<string>[] = []
  let lastString = ''
  for (let index = 0; index < text.length; index += 1) {
    switch (text[index]) {
      case '{':
      case '[':
        if (open.push(new Set()) > maxDepth) throw new Error('too deep')
        break
      case '}':
      case ']':
        open.pop()
        break
      case '"': {
        const end = endOfString(text, index)
        lastString = text.slice(index, end)
        index = end - 1
        break
      }
      case ':': {
        const names = open.at(-1) as Set<string>
        const name = JSON.parse(lastString) as string
        if (names.has(name)) throw new Error('a doubled member')
        names.add(name)
      }
    }
  }
}

/** Where the string ends that begins at `begin`: behind the first quote that no backslash precedes. */
function endOfString(text: string, begin: number): number {
  let index = begin + 1
  while (text[index] !== '"') index += text[index] === '\\' ? 2 : 1
  return index + 1
}
