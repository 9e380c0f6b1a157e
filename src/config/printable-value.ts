import { isIP } from 'node:net'
import { distance } from 'fastest-levenshtein'

const maxLength = 60

const number = /^[+-]?\d[\d.,_]{0,14}(e[+-]?\d{1,3})?$|^[+-]?\d{1,9} ?(ms|s|sec|seconds|m|min|minutes|h)$/i
const otherNumber = /^(0x[\da-f]{1,8}|[+-]?Infinity|NaN)$/i
const words = [
  ...['true', 'false', 'yes', 'no', 'on', 'off', 'enabled', 'disabled', 'none', 'null', 'undefined', 'keys'],
  ...['always', 'never', 'fatal', 'error', 'warn', 'warning', 'info', 'debug', 'trace', 'verbose', 'silent'],
  ...['production', 'sandbox', 'test', 'staging', 'development', '*'],
]
const algorithm = /^([hrpe]s\d{3}k?|eddsa|ed25519|ed448)$/i
const hostName = /^([a-z0-9-]{1,30}\.){1,5}[a-z]{2,10}(:\d{1,5})?$/
const network = /^[\d.]{1,15}(\/\d{1,3})?$/
const placeholder = /\{[A-Za-z_.]{1,20}\}/g
/** A part of a URL that may be a key. */
const opaque = /(?=[\w-]*[\dA-Z])[\w-]{20,}/g

/**
 * Returns a value from the environment in a form that a message may show, or undefined. A secret may be in the wrong
 * variable. So it shows only numbers, choices, URLs and similar values, and never the credentials or the query of a URL.
 */
export function printableValue(text: string): string | undefined {
  if (/^\s|\s$|\p{Cc}/u.test(text)) return undefined
  let isShown = false
  // Members of a list, with any common separator.
  const shown = text.replace(/[^,;]+/g, (member) => {
    const printable = printableMember(member.trim())
    isShown ||= printable !== undefined
    return printable ?? '…'
  })
  if (!isShown) return undefined
  return shown.length > maxLength ? `${shown.slice(0, maxLength)}…` : shown
}

function printableMember(text: string): string | undefined {
  if (number.test(text) || otherNumber.test(text) || algorithm.test(text) || hostName.test(text)) return text
  if (network.test(text) || isIP(text.replace(/^\[(.*)\]$|\/\d{1,3}$/, '$1')) !== 0) return text
  if (words.some((word) => distance(text.toLowerCase(), word) <= word.length / 4)) return text
  return printableUrl(text) ?? text.match(placeholder)?.join('')
}

/** A URL without the parts that may be secret. */
function printableUrl(text: string): string | undefined {
  // An `@` may belong to a password that contains a special character.
  if (!/^[a-z][a-z\d+.-]{0,19}:\/\//i.test(text) || text.includes('@') || !URL.canParse(text))
    return undefined
  return text.replace(/([?#]).*$/, '$1…').replace(opaque, '…')
}
