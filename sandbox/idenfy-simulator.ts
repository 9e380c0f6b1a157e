import { randomBytes, randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import cors from '@fastify/cors'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { type Static, Type } from '@sinclair/typebox'
import Fastify, { type FastifyError, type FastifyReply, type FastifyRequest } from 'fastify'
import { KybFormTokenRequest } from '../src/services/idenfy/schemas.js'
import { servePages } from './pages.js'

export interface IdenfySimulatorOptions {
  readonly apiKey: string
  readonly apiSecret: string
  /** A host whose pages may embed the form, in addition to 127.0.0.1 and localhost. */
  readonly pageHost?: string
  /** Wall clock, milliseconds since the epoch. */
  readonly now?: () => number
}

/** How the simulator responds to the next requests to `POST /kyb/tokens/`. An empty object ends the fault. */
const Fault = Type.Object(
  {
    status: Type.Optional(Type.Integer({ minimum: 200, maximum: 599 })),
    identifier: Type.Optional(Type.String()),
    delayMs: Type.Optional(Type.Integer({ minimum: 0 })),
    body: Type.Optional(Type.Unknown({ description: 'A string is sent unchanged, any other value as JSON' })),
    drop: Type.Optional(Type.Union([Type.Literal('before-headers'), Type.Literal('mid-body')])),
    times: Type.Optional(Type.Integer({ minimum: 1, description: 'How many requests. Without it: all.' })),
    caller: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 100,
        description:
          'Only requests whose `clientId` or `externalRef` contains this text. Without it: requests that no fault with a `caller` applies to.',
      }),
    ),
  },
  { additionalProperties: false },
)
type Fault = Static<typeof Fault>

/** How a visit to the form ends. */
const FormResult = Type.Object(
  {
    outcome: Type.Union([Type.Literal('success'), Type.Literal('failed'), Type.Literal('expired')]),
  },
  { additionalProperties: false },
)

interface SimulatedToken {
  readonly request: KybFormTokenRequest
  readonly expiresAtMs: number
  outcome?: Static<typeof FormResult>['outcome']
}

interface ReceivedRequest {
  /** Counts the requests since the simulator started. */
  readonly number: number
  readonly method: string
  readonly url: string
  readonly headers: Readonly<Record<string, unknown>>
  readonly body?: unknown
}

const maxRequestsKept = 1000
/** Of faults with a caller. */
const maxFaultsKept = 100

/** Pages served from this machine may embed the form. */
const formSecurityPolicy = (pageHosts: readonly string[]) =>
  [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    `frame-ancestors ${pageHosts.map((host) => `http://${host}:*`).join(' ')}`,
  ].join('; ')

/** Simulates iDenfy's KYB API and validates as strictly as its documentation says. `/_sandbox/` sets faults. */
export function buildIdenfySimulator({
  apiKey,
  apiSecret,
  pageHost,
  now = Date.now,
}: IdenfySimulatorOptions) {
  const expectedAuthorization = `Basic ${Buffer.from(`${apiKey}:${apiSecret}`).toString('base64')}`
  const tokens = new Map<string, SimulatedToken>()
  const pageHosts = [...new Set(['127.0.0.1', 'localhost', ...(pageHost === undefined ? [] : [pageHost])])]
  let requests: ReceivedRequest[] = []
  let requestCount = 0
  const receivedByRawRequest = new WeakMap<object, ReceivedRequest>()
  /** By `caller`, the newest last. The fault for all other requests has no caller. */
  const faults = new Map<string | undefined, Fault>()

  const app = Fastify({
    ajv: { customOptions: { removeAdditional: false, coerceTypes: false, useDefaults: false } },
  }).withTypeProvider<TypeBoxTypeProvider>()

  app.setNotFoundHandler((_request, reply) => reply.code(404).send(errorBody('NOT_FOUND', 'Not found.')))
  app.setErrorHandler((error: FastifyError, _request, reply) => {
    const [first] = error.validation ?? []
    // Fastify's parsers set a status.
    if (!first) return reply.code(error.statusCode ?? 500).send(errorBody('JSON_ERROR', error.message))
    const identifier = first.keyword === 'required' ? 'MISSING_VALUE' : 'BAD_VALUE'
    return reply.code(400).send(errorBody(identifier, `${first.instancePath} ${first.message}`))
  })

  app.addHook('onRequest', async ({ raw, method, url, headers }) => {
    if (/^\/(_sandbox\/|welcome)/.test(url)) return
    const { authorization: _, ...headersWithoutCredentials } = headers
    requestCount += 1
    const received: ReceivedRequest = {
      number: requestCount,
      method,
      url,
      headers: headersWithoutCredentials,
    }
    receivedByRawRequest.set(raw, received)
    requests.push(received)
    if (requests.length > maxRequestsKept) requests.shift()
  })

  function setFault(fault: Fault): void {
    const { caller, ...effect } = fault
    faults.delete(caller)
    if (Object.keys(effect).length > 0) faults.set(caller, fault)
    const [oldest, ...others] = [...faults.keys()].filter((caller) => caller !== undefined)
    if (others.length >= maxFaultsKept) faults.delete(oldest)
  }

  function findFault({ clientId, externalRef }: KybFormTokenRequest): Fault | undefined {
    const newestFirst = [...faults.values()].reverse()
    const ofCaller = newestFirst.find(
      ({ caller }) => caller !== undefined && (clientId.includes(caller) || externalRef?.includes(caller)),
    )
    return ofCaller ?? faults.get(undefined)
  }

  /** @returns the fault for this request, after its delay */
  async function nextFault(request: KybFormTokenRequest): Promise<Fault> {
    const fault = findFault(request) ?? {}
    const { caller, times, delayMs } = fault
    if (times === 1) faults.delete(caller)
    // The place of the fault in the map must not change.
    else if (times !== undefined) faults.set(caller, { ...fault, times: times - 1 })
    if (delayMs !== undefined) await delay(delayMs)
    return fault
  }

  app.post(
    '/kyb/tokens/',
    {
      schema: { body: KybFormTokenRequest },
      onRequest: async ({ headers }, reply) => {
        if (headers.authorization === expectedAuthorization) return
        return reply.code(401).send(errorBody('UNAUTHORIZED', 'Invalid API key or secret.'))
      },
      preValidation: async ({ raw, body }: FastifyRequest) => {
        Object.assign(receivedByRawRequest.get(raw) as ReceivedRequest, { body })
      },
    },
    async ({ body }, reply) => {
      const { status, identifier, body: faultBody, drop } = await nextFault(body)
      if (drop === 'before-headers') {
        reply.hijack()
        reply.raw.destroy()
        return reply
      }
      if (faultBody !== undefined)
        return reply
          .code(status ?? 201)
          .type('application/json')
          .send(toText(faultBody))
      if (status !== undefined && (status >= 300 || identifier !== undefined)) {
        return reply.code(status).send(errorBody(identifier, 'Simulated fault.'))
      }
      const token = createToken(body)
      if (drop === 'mid-body') return sendFirstHalf(reply, JSON.stringify(token))
      return reply.code(status ?? 201).send(token)
    },
  )

  function createToken(request: KybFormTokenRequest) {
    const tokenString = randomBytes(20).toString('hex')
    const expiresAtMs = now() + (request.lifetime ?? 3600) * 1000
    tokens.set(tokenString, { request, expiresAtMs })
    return {
      tokenType: request.tokenType,
      tokenString,
      clientId: request.clientId,
      externalRef: request.externalRef ?? null,
      companyId: randomUUID(),
      expiration: new Date(expiresAtMs).toISOString(),
      isActive: true,
      isValid: true,
      locale: request.locale ?? null,
      flow: request.flow ?? null,
      theme: request.theme ?? null,
      tags: request.tags ?? [],
      scanRefs: request.scanRefs ?? [],
    }
  }

  const findToken = (authorization = '') => tokens.get(authorization.replace(/^Bearer /, ''))

  const outcomeOf = ({ outcome, expiresAtMs }: SimulatedToken) =>
    outcome ?? (expiresAtMs <= now() ? 'expired' : undefined)

  app.get('/kyb/info/', async ({ headers }, reply) => {
    reply.header('cache-control', 'no-store')
    const token = findToken(headers.authorization)
    if (!token) return reply.code(401).send(errorBody('UNAUTHORIZED', 'Invalid token.'))
    const outcome = outcomeOf(token)
    if (outcome !== undefined)
      return reply.code(401).send(errorBody('UNAUTHORIZED', { completed: outcome !== 'expired' }))
    const { locale = null, theme = null, flow = null } = token.request
    return { locale, theme, flow }
  })

  servePages(
    app,
    { '/welcome': 'form.html', '/welcome/form.js': 'form.js', '/welcome/style.css': 'style.css' },
    // The URL of the form contains the token.
    () => ({ 'content-security-policy': formSecurityPolicy(pageHosts), 'referrer-policy': 'no-referrer' }),
  )

  app.register(async (scope) => {
    // The demo page is on another origin and sets faults.
    await scope.register(cors, { origin: '*', methods: ['GET', 'POST', 'PUT'] })
    const control = scope.withTypeProvider<TypeBoxTypeProvider>()

    control.put('/_sandbox/faults', { schema: { body: Fault } }, async ({ body }) => {
      setFault(body)
      return body
    })

    control.put('/_sandbox/form', { schema: { body: FormResult } }, async ({ headers, body }, reply) => {
      const token = findToken(headers.authorization)
      if (!token) return reply.code(401).send(errorBody('UNAUTHORIZED', 'Invalid token.'))
      const outcome = outcomeOf(token)
      if (outcome !== undefined) return reply.code(409).send(errorBody('FORM_ENDED', { outcome }))
      token.outcome = body.outcome
      return body
    })

    control.get('/_sandbox/requests', async () => requests)

    // Forms that are open stay open: the service may still hand out their tokens.
    control.post('/_sandbox/reset', async (_request, reply) => {
      faults.clear()
      requests = []
      return reply.code(204).send()
    })
  })

  return app
}

function errorBody(identifier: string | undefined, message: unknown) {
  return { identifier, message }
}

function toText(body: unknown): string {
  return typeof body === 'string' ? body : JSON.stringify(body)
}

function sendFirstHalf(reply: FastifyReply, text: string): FastifyReply {
  reply.hijack()
  reply.raw.writeHead(201, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) })
  reply.raw.write(text.slice(0, text.length / 2), () => reply.raw.destroy())
  return reply
}
