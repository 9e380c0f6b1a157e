/** A request of the page and its response, as the sandbox panel shows them. */
export interface Exchange {
  readonly method: string
  readonly url: string
  readonly requestHeaders: Readonly<Record<string, string>>
  readonly requestBody?: string
  /** Without it there was no response. */
  readonly response?: {
    readonly status: number
    readonly statusText: string
    readonly headers: Headers
    readonly body: string
  }
}

/** A request in the list of the iDenfy simulator. */
export interface ReceivedRequest {
  readonly number: number
  readonly method: string
  readonly url: string
  readonly body?: { readonly clientId?: unknown; readonly externalRef?: unknown }
}

/** Browsers hide all others from a page of another origin. */
const readableHeaders = [
  'Content-Type',
  'Idempotency-Replayed',
  'RateLimit',
  'RateLimit-Policy',
  'Retry-After',
  'X-Request-Id',
]

/** @returns a `fetch` for requests with text bodies, which reports each exchange when it has ended */
export function recordingFetch(onExchange: (exchange: Exchange) => void): typeof globalThis.fetch {
  return async (url, { method = 'GET', headers = {}, body, ...options } = {}) => {
    const request = {
      method,
      url: String(url),
      requestHeaders: headers as Record<string, string>,
      ...(typeof body === 'string' && { requestBody: body }),
    }
    let response: Exchange['response']
    try {
      const received = await fetch(url, { method, headers, ...(body !== undefined && { body }), ...options })
      const { status, statusText } = received
      response = { status, statusText, headers: received.headers, body: await received.clone().text() }
      return received
    } finally {
      onExchange({ ...request, ...(response && { response }) })
    }
  }
}

/** The request as it was sent, without the access token. */
export function requestText({ method, url, requestHeaders, requestBody }: Exchange): string {
  const headers = Object.entries(requestHeaders).map(([name, value]): [string, string] => [
    name,
    // The text that a simulated problem sends instead of a token is shorter, and no secret.
    value.replace(/^Bearer .{20,}/, 'Bearer <access token>'),
  ])
  return message(`${method} ${url}`, headers, formatJson(requestBody))
}

/** The response as it was received, without the KYB token. */
export function responseText({ response }: Exchange): string {
  if (!response) {
    return 'No response, so there is no request id. The service is not running, the connection broke, or the origin of this page is not in CORS_ORIGINS.'
  }
  const headers = readableHeaders.flatMap((name): [string, string][] => {
    const value = response.headers.get(name)
    return value === null ? [] : [[name, value]]
  })
  return message(
    `${response.status} ${response.statusText}`,
    headers,
    formatJson(withoutKybToken(response.body)),
  )
}

/**
 * @param lastNumber only requests that came after the one with this number
 * @param userId only requests of this user; undefined: of all users
 */
export function receivedFrom(
  requests: readonly ReceivedRequest[],
  lastNumber: number,
  userId: string | undefined,
): ReceivedRequest[] {
  return requests.filter(({ number, body }) => {
    if (number <= lastNumber || body === undefined) return false
    return userId === undefined || `${body.clientId} ${body.externalRef}`.includes(userId)
  })
}

/** What the simulator received, one request after another. */
export function receivedText(requests: readonly ReceivedRequest[]): string {
  if (requests.length === 0) return 'Nothing reached iDenfy.'
  return requests
    .map(({ method, url, body }) => message(`${method} ${url}`, [], formatJson(JSON.stringify(body))))
    .join('\n\n')
}

/**
 * A shell command that sends the same request. It gets a new access token from the identity provider of the sandbox, so
 * that it contains none.
 *
 * @param tokenRequest what to request from the identity provider; without it, the access token of the exchange is used
 */
export function curlCommand(
  { method, url, requestHeaders, requestBody }: Exchange,
  identityUrl: string,
  tokenRequest: object | undefined,
): string {
  const { Authorization, ...headers } = requestHeaders
  const tokenCommand =
    tokenRequest &&
    [
      `curl -sS ${quote(`${identityUrl}/token`)}`,
      `-H 'Content-Type: application/json'`,
      `-d ${quote(JSON.stringify(tokenRequest))}`,
      String.raw`| sed 's/.*"access_token":"\([^"]*\)".*/\1/'`,
    ].join(' \\\n    ')
  return [
    `curl -sS -i -X ${method}`,
    quote(url),
    `-H ${tokenCommand ? `"Authorization: Bearer $(${tokenCommand})"` : quote(`Authorization: ${Authorization}`)}`,
    ...Object.entries(headers).map(([name, value]) => `-H ${quote(`${name}: ${value}`)}`),
    ...(requestBody === undefined ? [] : [`-d ${quote(requestBody)}`]),
  ].join(' \\\n  ')
}

function message(firstLine: string, headers: readonly [string, string][], body: string): string {
  const head = [firstLine, ...headers.map(([name, value]) => `${name}: ${value}`)].join('\n')
  return body === '' ? head : `${head}\n\n${body}`
}

function formatJson(text = ''): string {
  try {
    return JSON.stringify(JSON.parse(text), undefined, 2)
  } catch {
    return text
  }
}

function withoutKybToken(body: string): string {
  return body
    .replace(/("tokenString" *: *")[^"]*/g, '$1<hidden>')
    .replace(/(authToken=)[^"&#]*/g, '$1<hidden>')
}

/** For a POSIX shell. */
function quote(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`
}
