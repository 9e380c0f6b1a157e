import { isIP, isIPv6 } from 'node:net'
import { networks } from './environment-schema.js'

/*
 * Checks of single values. Each throws an Error whose message says, for the operator, what is wrong. A message never
 * quotes the value.
 */

/** A placeholder that a shell, a template or an orchestrator should have replaced. */
const notReplaced = /\$\{\w|\$\(\w+\)|^\$\w+$|^\{\{.*\}\}$|^<.*>$|^%\w+%$/

/** Refuses mistakes that are easy to make in any variable and hard to see in a message. */
export function checkText(text: string): void {
  // Empty does not mean the default: a substitution that failed must not disable a check.
  if (text === '') throw new Error('must not be empty; leave the variable out instead')
  if (text !== text.trim()) throw new Error('must not have white space at its start or end')
  if (/\p{Cc}/u.test(text)) throw new Error('must not have a line break or another control character')
  if (/^(["'`]).*\1$/.test(text)) throw new Error('must not have quotes around it')
  if (/^your-api-(key|secret)$/.test(text)) throw new Error('is still the placeholder of .env.example')
  if (notReplaced.test(text)) throw new Error('contains a placeholder that was not replaced')
}

export function checkIssuer(issuer: string, audience: string | undefined, jwksUrl: string | undefined): void {
  if (!URL.canParse(issuer)) {
    // An issuer need not be a URL, if its keys have a URL of their own.
    if (jwksUrl !== undefined) return
    const hint = audience?.includes('://') ? '; AUTH_AUDIENCE is one: are the two swapped?' : ''
    throw new Error(`must be an https: URL${hint}`)
  }
  const { pathname, search, username, password } = new URL(issuer)
  if (username || password) throw new Error('must not contain credentials')
  if (/\/\.well-known\//.test(pathname))
    throw new Error('must be the issuer alone, without /.well-known/ and what follows')
  if (/[{}<>]|%7[bd]|%3[ce]/i.test(pathname)) throw new Error('has a placeholder that was not replaced')
  if (pathname.endsWith('//')) throw new Error('must not end with two slashes')
  if (search) throw new Error('must not have a query')
}

export function checkUrl(text: string, allowInsecure: boolean): URL {
  if (!URL.canParse(text)) throw new Error('must be an https: URL')
  const url = new URL(text)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw new Error('must be an https: URL')
  if (url.protocol === 'http:' && !allowInsecure && !isLoopback(url.hostname)) {
    throw new Error('must be an https: URL; ALLOW_INSECURE_URLS=true lets http: through')
  }
  if (url.username || url.password) throw new Error('must not contain credentials')
  if (url.hash) throw new Error('must not have a fragment')
  return url
}

/** Finds a scheme, a port or brackets, which would fail only when the service listens. */
export function checkHost(text: string): void {
  if (!isIPv6(text) && !/^[\w.-]+$/.test(text)) {
    throw new Error('must be an address or a host name, without brackets, scheme and port')
  }
}

function isLoopback(hostname: string): boolean {
  return /^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname)
}

/** A URL that may hold credentials. */
export function checkServer(text: string): void {
  if (!URL.canParse(text))
    throw new Error('is not a URL; special characters in a password must be percent-encoded')
  const { username, password, pathname, search, hash } = new URL(text)
  if ((pathname + search + hash).includes('@')) {
    throw new Error('has an @ after the host; special characters in a password must be percent-encoded')
  }
  try {
    decodeURIComponent(username + password)
  } catch {
    throw new Error('has a user name or password that is not percent-encoded')
  }
}

export function checkPasswordIsEncrypted(text: string): void {
  const { protocol, password, hostname } = new URL(text)
  if (protocol === 'redis:' && password && !isLoopback(hostname)) {
    throw new Error(
      'must be a rediss: URL: the password would travel unencrypted; ALLOW_INSECURE_URLS=true lets redis: through',
    )
  }
}

export function checkRedisUrl(text: string | undefined): void {
  if (text === undefined || !URL.canParse(text)) return
  const { hostname, pathname, search, hash } = new URL(text)
  if (hostname === '') throw new Error('has no host')
  if (!/^\/?\d{0,9}$/.test(pathname + search + hash)) {
    throw new Error('must have nothing after the host and the port but the number of a database')
  }
}

export function checkOrigin(text: string, allowInsecure: boolean): void {
  const { origin, href } = checkUrl(text, allowInsecure)
  if (href !== `${origin}/`) throw new Error('must be an origin, without a path or a query')
}

export function checkNetwork(text: string): void {
  const [address = '', prefix] = text.split('/')
  const version = isIP(address)
  if (prefix === '0') throw new Error('must not be every address: clients could claim any address')
  const isNetwork = version !== 0 && (prefix === undefined || Number(prefix) <= (version === 4 ? 32 : 128))
  if (!isNetwork) throw new Error(`must be ${networks}`)
}
