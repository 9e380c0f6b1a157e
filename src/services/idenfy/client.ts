import { TypeCompiler } from '@sinclair/typebox/compiler'
import type { Logger } from 'pino'
import type { Dispatcher } from 'undici'
import { Abandoned } from '../../problems/abandoned.js'
import { Problem } from '../../problems/problem.js'
import type { Reloading } from '../reload/reloadable.js'
import { EgressProxyError } from './connector.js'
import { classifyErrorAnswer } from './error-mapping.js'
import { type Answer, DeadlineExceeded, exchange } from './exchange.js'
import { KybFormToken, type KybFormTokenRequest } from './schemas.js'

const tokenCheck = TypeCompiler.Compile(KybFormToken)
const memberNames = Object.keys(KybFormToken.properties) as (keyof KybFormToken)[]

/** undici's codes for an answer that arrived but cannot be used. */
const badAnswerCodes = new Set([
  'UND_ERR_HEADERS_OVERFLOW',
  'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
  'UND_ERR_RES_EXCEEDED_MAX_SIZE',
])

/** Codes of OpenSSL, Node and undici for a peer that is not who it should be, or speaks no TLS that is good enough. */
const untrustedPeer =
  /^(ERR_SSL_|ERR_TLS_CERT_|EPROTO$|UND_ERR_PRX_TLS$)|CERT|UNABLE_TO_|INVALID_CA|INVALID_PURPOSE/

export interface IdenfyClientOptions {
  /** Bounds connect time and the size of the response; closed by its creator. */
  readonly dispatcher: Dispatcher
  /** iDenfy's origin. */
  readonly origin: string
  /** The `Authorization` field, which may change. */
  readonly authorization: Reloading<string>
  readonly userAgent: string
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number
  /** Milliseconds of a clock that never goes back. */
  readonly monotonicNow: () => number
  /** A token came with this status in place of 201. */
  readonly onDrift: (status: number, log: Pick<Logger, 'warn'>) => void
}

/** How long a call may take, and whether it is still wanted. */
export interface CallLimits {
  /** When the last byte of the response must be there. Milliseconds of the monotonic clock, as is `sendBefore`. */
  readonly deadline: number
  /** A request that cannot be sent before this moment is not sent. */
  readonly sendBefore: number
  /** Whether no one waits for the response any more. */
  readonly isAbandoned: () => boolean
  /** The request's, so that its lines belong together. */
  readonly log: Pick<Logger, 'warn'>
}

/** iDenfy's KYB API, one POST per call and never a second. */
export function createIdenfyClient(options: IdenfyClientOptions) {
  const { dispatcher, origin, authorization, userAgent, now, monotonicNow, onDrift } = options
  const staticHeaders = {
    'user-agent': userAgent,
    'content-type': 'application/json',
    accept: 'application/json',
    'accept-encoding': 'identity',
  }

  function post(path: string, payload: unknown, credentials: string, limits: CallLimits): Promise<Answer> {
    const headers = { ...staticHeaders, authorization: credentials }
    const request = { origin, method: 'POST' as const, path, headers, body: JSON.stringify(payload) }
    return exchange(dispatcher, request, { ...limits, monotonicNow, onFailure: transportProblem })
  }

  /** Whether other credentials are at hand than those that were refused. */
  async function areReplaced(credentials: string): Promise<boolean> {
    if (authorization.value() === credentials) await authorization.checkNow()
    return authorization.value() !== credentials
  }

  return {
    /**
     * Creates a KYB token. The answer is the one iDenfy gave to this very request, still valid.
     *
     * @throws Problem `provider-*` or `kyb-session-conflict`; Abandoned
     */
    async createKybToken(request: KybFormTokenRequest, limits: CallLimits): Promise<KybFormToken> {
      const credentials = authorization.value()
      const answer = await post('/kyb/tokens/', request, credentials, limits)
      if (answer.status < 200 || answer.status > 299) {
        const problem = refusal(answer)
        const haveNew = problem.options.diagnosis?.class === 'credentials' && (await areReplaced(credentials))
        throw haveNew ? repeatable(problem) : problem
      }
      const token = readToken(answer)
      if (!(Date.parse(token.expiration) > now())) throw badAnswer(answer, 'expired')
      if ((token.clientId ?? request.clientId) !== request.clientId)
        throw badAnswer(answer, 'identity-mismatch')
      if ((token.externalRef ?? request.externalRef) !== request.externalRef) {
        throw badAnswer(answer, 'identity-mismatch')
      }
      if (answer.status !== 201) onDrift(answer.status, limits.log)
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
    const isBadAnswer = badAnswerCodes.has(code) || cause.name === 'HTTPParserError'
    return new Problem(
      isLate ? 'provider-timeout' : isBadAnswer ? 'provider-bad-response' : 'provider-outcome-unknown',
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
    ...(!(cause instanceof DeadlineExceeded) && { safeToRepeat: { reason: 'not-sent', afterMs: 0 } }),
  })
}

function refusal(answer: Answer): Problem {
  if (answer.status < 400) return badAnswer(answer, 'redirect')
  const retryAfter = answer.headers['retry-after']
  return classifyErrorAnswer(answer.status, parseJson(answer.text), retryAfter?.toString())
}

function repeatable({ code, options }: Problem): Problem {
  return new Problem(code, { ...options, safeToRepeat: { reason: 'new-credentials', afterMs: 0 } })
}

function readToken(answer: Answer): KybFormToken {
  const encoding = answer.headers['content-encoding'] ?? 'identity'
  if (encoding !== 'identity') throw badAnswer(answer, 'encoded')
  if (!/^application\/json *(;|$)/i.test(String(answer.headers['content-type'])))
    throw badAnswer(answer, 'not-json')
  const token = parseJson(answer.text)
  if (!tokenCheck.Check(token)) throw badAnswer(answer, 'not-a-token')
  return knownMembers(token)
}

/** What else iDenfy sends is not kept: it is stored with the token. */
function knownMembers(token: KybFormToken): KybFormToken {
  const known: Record<string, unknown> = {}
  for (const name of memberNames) {
    if (token[name] !== undefined) known[name] = token[name]
  }
  return known as KybFormToken
}

function badAnswer(answer: Answer, reason: string): Problem {
  return new Problem('provider-bad-response', {
    diagnosis: { phase: 'after-sending', upstreamStatus: answer.status, reason },
  })
}

/** Without the error: a parser's message quotes the text, which may hold a token. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
