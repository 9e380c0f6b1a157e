import { TypeCompiler } from '@sinclair/typebox/compiler'
import type { Logger } from 'pino'
import type { Dispatcher } from 'undici'
import type { Clock } from '../../clock.js'
import { Abandoned } from '../../problems/abandoned.js'
import { Problem } from '../../problems/problem.js'
import { EgressProxyError } from './connector.js'
import { mapErrorResponse } from './error-mapping.js'
import { DeadlineExceeded, exchange, type HttpResponse } from './exchange.js'
import { KybFormToken, type KybFormTokenRequest } from './schemas.js'

const tokenCheck = TypeCompiler.Compile(KybFormToken)
const memberNames = Object.keys(KybFormToken.properties) as (keyof KybFormToken)[]

/** undici's codes for a response that arrived but cannot be used. */
const badResponseCodes = new Set([
  'UND_ERR_HEADERS_OVERFLOW',
  'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
  'UND_ERR_RES_EXCEEDED_MAX_SIZE',
])

/** In the field `Keep-Alive`. */
const keepAliveTimeout = /timeout *= *(\d+)/i

/** Codes of OpenSSL, Node and undici for a peer whose certificate or TLS version is not accepted. */
const untrustedPeer =
  /^(ERR_SSL_|ERR_TLS_CERT_|EPROTO$|UND_ERR_PRX_TLS$)|CERT|UNABLE_TO_|INVALID_CA|INVALID_PURPOSE/

export interface IdenfyClientOptions {
  /** Limits connect time and response size. Its creator closes it. */
  readonly dispatcher: Pick<Dispatcher, 'dispatch'>
  /** iDenfy's origin. */
  readonly origin: string
  /** The `Authorization` field. It changes when credentials are rotated. */
  readonly authorization: {
    value(): string
    /** Reads the credentials again without waiting for the next check. */
    checkNow(): Promise<void>
  }
  readonly userAgent: string
  readonly clock: Clock
  /** Called when iDenfy announces for how long it keeps idle connections (`Keep-Alive: timeout=…`). */
  readonly onIdleLimit: (limitMs: number) => void
  /** Called when a token came with another status than 201. */
  readonly onDrift: (status: number, log: Pick<Logger, 'warn'>) => void
}

/** How long a call may take, and whether a client still waits for it. */
export interface CallLimits {
  /** When the response must be complete. Milliseconds of the monotonic clock, like `sendBeforeMs`. */
  readonly deadlineMs: number
  /** If the request cannot be sent before this moment, it is not sent. */
  readonly sendBeforeMs: number
  /** Whether the machine was suspended since the request came. Another replica may have sent it since: nothing is sent. */
  readonly wasSuspended: () => boolean
  /** Whether no client waits for the response any more. */
  readonly isAbandoned: () => boolean
  /** The logger of the request, which adds its id to each line. */
  readonly log: Pick<Logger, 'warn'>
}

/** iDenfy's KYB API. One call sends one POST and never a second one. */
export function createIdenfyClient(options: IdenfyClientOptions) {
  const { dispatcher, origin, authorization, userAgent, clock, onIdleLimit, onDrift } = options
  const staticHeaders = {
    'user-agent': userAgent,
    'content-type': 'application/json',
    accept: 'application/json',
    'accept-encoding': 'identity',
  }

  async function post(
    path: string,
    payload: unknown,
    credentials: string,
    limits: CallLimits,
  ): Promise<HttpResponse> {
    const headers = { ...staticHeaders, authorization: credentials }
    const request = { origin, method: 'POST' as const, path, headers, body: JSON.stringify(payload) }
    const response = await exchange(dispatcher, request, { ...limits, clock, onFailure: transportProblem })
    const [, idleSeconds] = keepAliveTimeout.exec(String(response.headers['keep-alive'])) ?? []
    if (idleSeconds !== undefined) onIdleLimit(Number(idleSeconds) * 1000)
    return response
  }

  /** Whether there are other credentials than the refused ones. */
  async function areReplaced(credentials: string): Promise<boolean> {
    if (authorization.value() === credentials) await authorization.checkNow()
    return authorization.value() !== credentials
  }

  return {
    /**
     * Creates a KYB token. It is the response to this very request, and still valid.
     *
     * @throws Problem `provider-*` or `kyb-session-conflict`; Abandoned
     */
    async createKybToken(request: KybFormTokenRequest, limits: CallLimits): Promise<KybFormToken> {
      const credentials = authorization.value()
      const response = await post('/kyb/tokens/', request, credentials, limits)
      if (response.status < 200 || response.status > 299) {
        const problem = refusal(response)
        const haveNew = problem.options.diagnosis?.class === 'credentials' && (await areReplaced(credentials))
        throw haveNew ? withRetry(problem) : problem
      }
      const token = readToken(response)
      if (!(Date.parse(token.expiration) > clock.now())) throw badResponse(response, 'expired')
      if ((token.clientId ?? request.clientId) !== request.clientId)
        throw badResponse(response, 'identity-mismatch')
      if ((token.externalRef ?? request.externalRef) !== request.externalRef) {
        throw badResponse(response, 'identity-mismatch')
      }
      if (response.status !== 201) onDrift(response.status, limits.log)
      return token
    },
  }
}

export type IdenfyClient = ReturnType<typeof createIdenfyClient>

/** HTTP Basic (RFC 7617). */
export function basicAuthorization({ apiKey, apiSecret }: { apiKey: string; apiSecret: string }): string {
  return `Basic ${Buffer.from(`${apiKey}:${apiSecret}`).toString('base64')}`
}

function transportProblem(cause: Error & { code?: string }, isSent: boolean): Error {
  const code = cause.code ?? ''
  if (isSent) {
    const isLate = cause instanceof DeadlineExceeded
    const isBadResponse = badResponseCodes.has(code) || cause.name === 'HTTPParserError'
    return new Problem(
      isLate ? 'provider-timeout' : isBadResponse ? 'provider-bad-response' : 'provider-outcome-unknown',
      { cause, diagnosis: { phase: 'after-sending' } },
    )
  }
  if (cause instanceof Abandoned) return cause
  if (untrustedPeer.test(code)) {
    return new Problem('provider-rejected', { cause, diagnosis: { phase: 'before-sending', class: 'tls' } })
  }
  const isProxy = cause instanceof EgressProxyError
  return new Problem('provider-unavailable', {
    cause,
    diagnosis: { phase: 'before-sending', class: isProxy ? 'egress-proxy' : 'connection' },
    ...(!(cause instanceof DeadlineExceeded) && { safeToRetry: { reason: 'not-sent', afterMs: 0 } }),
  })
}

function refusal(response: HttpResponse): Problem {
  if (response.status < 400) return badResponse(response, 'redirect')
  const retryAfter = response.headers['retry-after']
  return mapErrorResponse(response.status, parseJson(response.text), retryAfter?.toString())
}

function withRetry({ code, options }: Problem): Problem {
  return new Problem(code, { ...options, safeToRetry: { reason: 'new-credentials', afterMs: 0 } })
}

function readToken(response: HttpResponse): KybFormToken {
  const encoding = response.headers['content-encoding'] ?? 'identity'
  if (encoding !== 'identity') throw badResponse(response, 'encoded')
  if (!/^application\/json *(;|$)/i.test(String(response.headers['content-type'])))
    throw badResponse(response, 'not-json')
  const token = parseJson(response.text)
  if (!tokenCheck.Check(token)) throw badResponse(response, 'not-a-token')
  return knownMembers(token)
}

/** Drops unknown members, because the rest is stored. */
function knownMembers(token: KybFormToken): KybFormToken {
  const known: Record<string, unknown> = {}
  for (const name of memberNames) {
    if (token[name] !== undefined) known[name] = token[name]
  }
  return known as KybFormToken
}

function badResponse(response: HttpResponse, reason: string): Problem {
  return new Problem('provider-bad-response', {
    diagnosis: { phase: 'after-sending', upstreamStatus: response.status, reason },
  })
}

/** Drops the error: a parser's message quotes the text, which may hold a token. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
