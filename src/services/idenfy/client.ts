import { subscribe } from 'node:diagnostics_channel'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import type { Logger } from 'pino'
import type { Dispatcher } from 'undici'
import { Problem } from '../../problems.js'
import { classifyErrorAnswer } from './classify.js'
import { KybFormToken, type KybFormTokenRequest } from './schemas.js'

const tokenCheck = TypeCompiler.Compile(KybFormToken)

/**
 * The request bodies that undici has begun to send. Until then iDenfy cannot have seen the request;
 * from then on a failure leaves open whether a verification exists.
 */
const sentBodies = new WeakSet<object>()
subscribe('undici:client:sendHeaders', (message) => {
  const { body } = (message as { request: { body: object | null } }).request
  if (body) sentBodies.add(body)
})

/** undici's codes for an answer that arrived but cannot be used. */
const badAnswerCodes = new Set([
  'UND_ERR_HEADERS_OVERFLOW',
  'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
  'UND_ERR_RES_EXCEEDED_MAX_SIZE',
])

export interface IdenfyClientOptions {
  /** Bound to iDenfy's origin; bounds connect time and the size of the answer; closed by whoever made it. */
  readonly dispatcher: Dispatcher
  readonly apiKey: string
  readonly apiSecret: string
  /** The total deadline of one call. */
  readonly timeoutMs: number
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number
  readonly logger: Pick<Logger, 'warn'>
}

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
}

/** iDenfy's KYB API, one POST per call and never a second. */
export function createIdenfyClient(options: IdenfyClientOptions) {
  const { dispatcher, apiKey, apiSecret, timeoutMs, now, logger } = options
  const headers = {
    authorization: `Basic ${Buffer.from(`${apiKey}:${apiSecret}`).toString('base64')}`,
    'content-type': 'application/json',
    accept: 'application/json',
    'accept-encoding': 'identity',
  }

  async function post(path: string, payload: unknown): Promise<Answer> {
    const body = Buffer.from(JSON.stringify(payload))
    const signal = AbortSignal.timeout(timeoutMs)
    try {
      const response = await Promise.race([
        dispatcher.request({ method: 'POST', path, headers, body, signal }),
        rejectOnAbort(signal),
      ])
      return { status: response.statusCode, headers: response.headers, text: await response.body.text() }
    } catch (error) {
      throw transportProblem(error as Error & { code?: string }, sentBodies.has(body))
    }
  }

  return {
    /**
     * Creates a KYB token. The answer is the one iDenfy gave to this very request, still valid.
     *
     * @throws Problem `provider-*` or `kyb-session-conflict`
     */
    async createKybToken(request: KybFormTokenRequest): Promise<KybFormToken> {
      const answer = await post('/kyb/tokens/', request)
      if (answer.status < 200 || answer.status > 299) throw refusal(answer)
      const token = readToken(answer)
      if (!(Date.parse(token.expiration) > now())) throw badAnswer(answer, 'expired')
      if ((token.clientId ?? request.clientId) !== request.clientId)
        throw badAnswer(answer, 'identity-mismatch')
      if ((token.externalRef ?? request.externalRef) !== request.externalRef) {
        throw badAnswer(answer, 'identity-mismatch')
      }
      if (answer.status !== 201) {
        logger.warn(
          { event: 'idenfy-contract-drift', upstreamStatus: answer.status },
          'a token came with another status',
        )
      }
      return token
    },
  }
}

export type IdenfyClient = ReturnType<typeof createIdenfyClient>

/**
 * While it connects, undici heeds a signal only once the connection stands. Nothing is sent then: an aborted
 * request ends before its first byte.
 */
function rejectOnAbort(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
}

function transportProblem(cause: Error & { code?: string }, sent: boolean): Problem {
  const timedOut = cause.name === 'TimeoutError'
  const diagnosis = { phase: sent ? 'after-sending' : 'before-sending' }
  if (!sent) {
    return new Problem(timedOut ? 'provider-timeout' : 'provider-unavailable', {
      cause,
      outcome: 'not-created',
      diagnosis,
    })
  }
  const isBadAnswer = badAnswerCodes.has(cause.code ?? '') || cause.name === 'HTTPParserError'
  const code = timedOut
    ? 'provider-timeout'
    : isBadAnswer
      ? 'provider-bad-response'
      : 'provider-outcome-unknown'
  return new Problem(code, { cause, outcome: 'unknown', diagnosis })
}

function refusal(answer: Answer): Problem {
  if (answer.status < 400) return badAnswer(answer, 'redirect')
  const retryAfter = answer.headers['retry-after']
  return classifyErrorAnswer(answer.status, parseJson(answer.text), retryAfter?.toString())
}

function readToken(answer: Answer): KybFormToken {
  const encoding = answer.headers['content-encoding'] ?? 'identity'
  if (encoding !== 'identity') throw badAnswer(answer, 'encoded')
  if (!/^application\/json *(;|$)/i.test(String(answer.headers['content-type'])))
    throw badAnswer(answer, 'not-json')
  const token = parseJson(answer.text)
  if (!tokenCheck.Check(token)) throw badAnswer(answer, 'not-a-token')
  return token
}

function badAnswer(answer: Answer, reason: string): Problem {
  return new Problem('provider-bad-response', {
    outcome: 'unknown',
    diagnosis: { upstreamStatus: answer.status, reason },
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
