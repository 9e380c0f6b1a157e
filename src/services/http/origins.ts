import { createRequire } from 'node:module'

/** What a browser sends as `Origin`. App frameworks have their own schemes. */
const originPattern = /^([a-z][a-z0-9+.-]*):\/\/[a-z0-9-]+(\.[a-z0-9-]+)*(:\d{1,5})?$/
const wildcard = '://*.'

/**
 * Checks an allowed origin: an exact one, or one with `*` as its first label.
 *
 * @throws Error in words for the operator
 */
export function checkOriginPattern(text: string): void {
  const isWildcard = text.includes(wildcard)
  const example = text.replace(wildcard, '://a.')
  if (!isOrigin(example)) {
    throw new Error(
      'must be a comma-separated list of origins such as https://app.example.com or https://*.example.com, with a scheme and without a path or a slash at the end',
    )
  }
  if (isWildcard && registrableDomainOf(example) === null) {
    throw new Error('must not have a wildcard below a public suffix: it would allow pages of other companies')
  }
}

/** Tells whether an `Origin` field is allowed. `https://*.example.com` stands for one label, not for `example.com` itself. */
export function createOriginMatcher(patterns: readonly string[]): (origin: string | undefined) => boolean {
  const exact = new Set(patterns.filter((pattern) => !pattern.includes(wildcard)))
  const wildcards = new Set(patterns.filter((pattern) => pattern.includes(wildcard)))
  return (origin = '') => {
    const given = origin.toLowerCase()
    const pattern = given.replace(/:\/\/[a-z0-9_-]+\./, wildcard)
    return exact.has(given) || (pattern !== given && wildcards.has(pattern))
  }
}

/** Whether it is written as a browser sends it: lower case, no default port, no path. */
function isOrigin(text: string): boolean {
  if (/^https?:/.test(text)) return URL.canParse(text) && new URL(text).origin === text && !text.includes('*')
  return originPattern.test(text) && !text.startsWith('file:')
}

/** The registered domain of `https://a.<domain>` without the first label; null for a public suffix. */
function registrableDomainOf(origin: string): string | null {
  // The list of public suffixes takes 30 ms to load.
  const { getDomain } = createRequire(import.meta.url)('tldts') as typeof import('tldts')
  return getDomain(origin.replace('://a.', '://'), { allowPrivateDomains: true })
}
