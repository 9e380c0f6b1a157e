import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type AddressInfo, connect } from 'node:net'
import type { Test } from 'tap'
import { request } from 'undici'
import { buildIdenfySimulator } from '../sandbox/idenfy-simulator.js'
import { buildIdentityProvider } from '../sandbox/identity-provider.js'
import { createTokenSigner, type TokenSigner } from '../sandbox/token-signer.js'
import { buildApp, buildManagementApp } from '../src/app.js'
import { type Clock, systemClock } from '../src/clock.js'
import { loadConfig } from '../src/config/load-config.js'
import { createLogger } from '../src/observability/logger.js'
import { detailTexts, type ProblemCode, type ProblemDetail, problems } from '../src/problems/catalog.js'
import type { FieldFault } from '../src/problems/problem.js'
import type { Limits } from '../src/server-options.js'
import { refuseStaleBuild } from './stale-build.js'
import { inTime } from './waiting.js'

export { freePort, listen } from './ports.js'
export { inTime, until } from './waiting.js'

export const issuer = 'https://idp.example'
export const audience = 'onboarding'
export const apiKey = 'canary-api-key-5f1d'
export const apiSecret = 'canary-api-secret-93ab'

/** One key for all tests of a file: making an RSA key is slow. */
export const signer: TokenSigner = await createTokenSigner('RS256')

export interface Overrides {
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly now?: () => number
  readonly monotonicNow?: () => number
  readonly setTimeout?: Clock['setTimeout']
  readonly signers?: readonly [TokenSigner, ...TokenSigner[]]
  readonly limits?: Partial<Limits>
  /** Those of another instance, to be a second replica beside it. */
  readonly peers?: Awaited<ReturnType<typeof startPeers>>
  /** Runs before the service listens. */
  readonly prepare?: (app: Awaited<ReturnType<typeof buildApp>>) => void
}

export interface HttpResponse {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
  // biome-ignore lint/suspicious/noExplicitAny: tests read whatever arrived
  readonly json: any
}

/** The body of every problem that a test of this file got. */
const errorBodies: string[] = []

/** What must never be in a log: it grows with every token that a test makes. */
export class Secrets {
  readonly #values = new Set<string>([
    apiSecret,
    Buffer.from(`${apiKey}:${apiSecret}`).toString('base64'),
    apiKey,
  ])

  add<T extends string>(value: T): T {
    this.#values.add(value)
    // A JWT's signature is as telling as the whole.
    for (const part of value.split('.')) if (part.length > 40) this.#values.add(part)
    return value
  }

  /** The secrets that `output` gives away, plainly or encoded. */
  foundIn(output: string): string[] {
    return [...this.#values].filter((value) =>
      [
        value,
        Buffer.from(value).toString('base64').replace(/=+$/, ''),
        Buffer.from(value).toString('hex'),
        encodeURIComponent(value),
      ].some((form) => output.includes(form)),
    )
  }

  /** Fails the test, when it ends, if `output` gives a secret away. */
  guard(t: Test, output: () => string | Promise<string>): void {
    t.teardown(async () => {
      const text = `${await output()}\n${errorBodies.join('\n')}`
      const found = this.foundIn(text)
      if (found.length > 0) throw new Error(`${found.length} secret(s) in the output:\n${text}`)
    })
  }
}

/** The simulator and the identity provider of the sandbox, each on a free port. */
export async function startPeers(
  t: Test,
  { now, signers = [signer] }: Pick<Overrides, 'now' | 'signers'> = {},
) {
  const secrets = new Secrets()
  const simulator = buildIdenfySimulator({ apiKey, apiSecret, ...(now && { now }) })
  simulator.addHook('onSend', async (_request, _reply, payload) => {
    const [, token] = /"tokenString":"([^"]+)"/.exec(String(payload)) ?? []
    if (token) secrets.add(token)
  })
  const identityProvider = buildIdentityProvider({ issuer, audience, signers, ...(now && { now }) })
  const idenfyUrl = await simulator.listen({ port: 0 })
  const identityUrl = await identityProvider.listen({ port: 0 })
  t.teardown(() => Promise.all([simulator.close(), identityProvider.close()]))
  return {
    secrets,
    idenfyUrl,
    identityUrl,
    environment: {
      AUTH_ISSUER: issuer,
      AUTH_AUDIENCE: audience,
      AUTH_JWKS_URL: `${identityUrl}/.well-known/jwks.json`,
      IDENFY_API_KEY: apiKey,
      IDENFY_API_SECRET: apiSecret,
      IDENFY_BASE_URL: idenfyUrl,
      // Out of the way, but for the tests that are about them.
      RATE_LIMIT_USER_PER_MINUTE: '1000000',
      RATE_LIMIT_COMPANY_PER_MINUTE: '1000000',
      RATE_LIMIT_IP_PER_MINUTE: '1000000',
      KYB_REPLAY_SECONDS: '0',
    },
    setFault: async (fault: object) => {
      const { status, text } = await send(`${idenfyUrl}/_sandbox/faults`, {
        method: 'PUT',
        ...jsonBody(fault),
      })
      if (status !== 200) throw new Error(`The simulator refuses the fault: ${text}`)
    },
    /** All that reached the simulator, without credentials. */
    received: async (): Promise<unknown> => (await send(`${idenfyUrl}/_sandbox/requests`)).json,
    /** The bodies of the POSTs that reached the simulator. */
    arrived: async (): Promise<Record<string, unknown>[]> => {
      const { json } = await send(`${idenfyUrl}/_sandbox/requests`)
      return json.map((entry: { body: Record<string, unknown> }) => entry.body)
    },
    /** A valid access token of user u-1 of company acme, but for what is overridden. */
    token: async (
      claims: object = {},
      header: Readonly<Record<string, unknown>> = {},
      by: TokenSigner = signer,
    ) => {
      const iat = Math.floor((now?.() ?? Date.now()) / 1000)
      const standard = { iss: issuer, aud: audience, sub: 'u-1', company_id: 'acme', iat, exp: iat + 600 }
      return secrets.add(await by.sign({ ...standard, ...claims }, header))
    },
  }
}

/**
 * The service as in production, listening on a free port and logging into memory, beside its peers. The test
 * fails at its end if anything secret is in the log, the metrics or an error body.
 */
export async function build(t: Test, overrides: Overrides = {}) {
  const { now, monotonicNow, setTimeout, env } = { ...systemClock, env: {}, ...overrides }
  const peers = overrides.peers ?? (await startPeers(t, overrides))
  const lines: string[] = []
  const logger = createLogger('trace', { write: (line) => lines.push(line) })
  const config = loadConfig({ ...peers.environment, ...env })
  const app = await buildApp(config, {
    logger,
    clock: { ...systemClock, now, monotonicNow, setTimeout },
    // A busy machine must not make a test shed requests.
    limits: { eventLoopDelayMs: 60_000, ...overrides.limits },
  })
  const management = await buildManagementApp(app, { logger })
  overrides.prepare?.(app)
  const url = await app.listen({ port: 0 })
  const managementUrl = await management.listen({ port: 0 })
  t.teardown(() => Promise.all([app.close(), management.close()]))
  peers.secrets.guard(t, async () => lines.join('') + (await app.metrics.registry.metrics()))

  return {
    ...peers,
    app,
    management,
    url,
    managementUrl,
    metrics: () => app.metrics.registry.metrics(),
    /** The log so far, one object a line; with `outcome`, only the lines of requests that ended so. */
    log: (outcome?: string): Record<string, unknown>[] =>
      lines
        .map((line) => JSON.parse(line))
        .filter((line) => outcome === undefined || line.outcome === outcome),
    /** `POST /onboarding/kyb-token`, by default without a body and with a valid token. */
    mint: async (
      options: { body?: unknown; token?: string; headers?: Record<string, string | string[]> } = {},
    ): Promise<HttpResponse> => {
      const token = options.token ?? (await peers.token())
      return send(`${url}/onboarding/kyb-token`, {
        method: 'POST',
        ...(options.body !== undefined && { body: JSON.stringify(options.body) }),
        headers: {
          authorization: `Bearer ${token}`,
          ...(options.body !== undefined && { 'content-type': 'application/json' }),
          ...options.headers,
        },
      })
    },
  }
}

/** The clock of a service, which a test moves. Timers are those of the system. */
export function createClock(startedAtMs = Date.now()) {
  // Not 0: lru-cache takes that for no time at all.
  let elapsedMs = 1
  return {
    clocks: { ...systemClock, now: () => startedAtMs + elapsedMs, monotonicNow: () => elapsedMs },
    pass: (seconds: number) => {
      elapsedMs += seconds * 1000
    },
  }
}

/** The environment of a service whose credentials are in the files `key` and `secret`. */
export const credentialFiles = (directory: string) => ({
  IDENFY_API_KEY: undefined,
  IDENFY_API_SECRET: undefined,
  IDENFY_API_KEY_FILE: `${directory}/key`,
  IDENFY_API_SECRET_FILE: `${directory}/secret`,
})

/** For responses and processes: on a busy machine they take longer. Tap ends a file after 120 s. */
const longWaitMs = 60_000

/** The responses in what a connection has received, without interim ones (1xx). */
export function parseResponses(raw: string): HttpResponse[] {
  const responses: HttpResponse[] = []
  for (let rest = raw; rest !== ''; ) {
    const headEnd = rest.indexOf('\r\n\r\n')
    const [statusLine = '', ...fields] = rest.slice(0, headEnd).split('\r\n')
    const headers = Object.fromEntries(
      fields.map((field) => [
        field.slice(0, field.indexOf(':')).toLowerCase(),
        field.slice(field.indexOf(':') + 2),
      ]),
    )
    const length = Number(headers['content-length'] ?? 0)
    const text = rest.slice(headEnd + 4, headEnd + 4 + length)
    rest = rest.slice(headEnd + 4 + length)
    const status = Number(statusLine.split(' ')[1])
    if (status >= 400) errorBodies.push(text)
    if (status >= 200) responses.push({ status, headers, text, json: text && JSON.parse(text) })
  }
  return responses
}

/**
 * A Node process, with its output guarded like the log of {@link build}.
 *
 * @throws an error if it would run built code that is older than its sources
 */
export function spawnNode(
  t: Test,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  secrets = new Secrets(),
) {
  const built = args.find((arg) => /^(dist|dist-sandbox|bundle)\//.test(arg))
  if (built !== undefined) refuseStaleBuild(built)
  const child = spawn(process.execPath, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const output = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (text) => (output.stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text) => (output.stderr += text))
  const ended = once(child, 'close').then(([code]): number | null => code)
  const command = args.join(' ').slice(0, 200)
  /** The end of what it has printed. */
  const lastOutput = () => `the last output: ${(output.stdout + output.stderr).slice(-2000) || 'none'}`
  /** The exit code, once all output is there. */
  const exited = () => inTime(ended, () => `the process to end: ${command}; ${lastOutput()}`, longWaitMs)
  t.teardown(() => {
    child.kill('SIGKILL')
    return exited()
  })
  secrets.guard(t, () => output.stdout + output.stderr)

  return {
    child,
    output,
    exited,
    /** Resolves with the match as soon as stdout has one. */
    async waitFor(pattern: RegExp): Promise<RegExpExecArray> {
      const find = async (): Promise<RegExpExecArray> => {
        for (;;) {
          const match = pattern.exec(output.stdout)
          if (match) return match
          const end = ended.then((code) => {
            throw new Error(`exited with ${code} without output that matches ${pattern}; ${lastOutput()}`)
          })
          await Promise.race([once(child.stdout, 'data'), end])
        }
      }
      return inTime(find(), () => `output that matches ${pattern}; ${lastOutput()}`, longWaitMs)
    },
  }
}

/** Where a process of `dist/server.js` listens, as its log says. */
export async function addressesOf(server: ReturnType<typeof spawnNode>) {
  const [line] = await server.waitFor(/^.*"msg":"started".*$/m)
  const { addresses, managementAddresses } = JSON.parse(line)
  const urlOf = ([{ address, port }]: [AddressInfo]) => `http://${address}:${port}`
  return { url: urlOf(addresses), managementUrl: urlOf(managementAddresses) }
}

export async function send(url: string, options?: Parameters<typeof request>[1]): Promise<HttpResponse> {
  const controller = new AbortController()
  const exchange = async () => {
    const { statusCode, headers, body } = await request(url, { ...options, signal: controller.signal })
    return { statusCode, headers, text: await body.text() }
  }
  try {
    const what = `a response to ${options?.method ?? 'GET'} ${url}`
    const { statusCode, headers, text } = await inTime(exchange(), what, longWaitMs)
    const isJson = text !== '' && /json/.test(String(headers['content-type']))
    if (statusCode >= 400) errorBodies.push(text)
    return { status: statusCode, headers, text, json: isJson ? JSON.parse(text) : undefined }
  } finally {
    controller.abort()
  }
}

/** A bare TCP connection to a port. */
export function openSocket(url: string) {
  const socket = connect(Number(new URL(url).port), new URL(url).hostname)
  const chunks: Buffer[] = []
  let failure: Error | undefined
  socket
    .on('data', (chunk) => chunks.push(chunk))
    .on('error', (error) => {
      failure = error
    })
  const end = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  /** All that was received, once the connection has ended in any way. */
  const closed = async (): Promise<string> => {
    await inTime(end, `the connection to ${url} to close`)
    return Buffer.concat(chunks).toString()
  }
  return {
    socket,
    closed,
    /** All that was received, once the connection has ended without an error. */
    async received(): Promise<string> {
      const text = await closed()
      if (failure) throw failure
      return text
    },
  }
}

const { paths, components } = JSON.parse(readFileSync('openapi.json', 'utf8'))
const documented = paths['/onboarding/kyb-token'].post.responses
const documentedFields = components.headers

const knownDetails = new Set<string>(Object.values(detailTexts))
const severalCauses = new Set<ProblemCode>([
  'malformed-request',
  'unsupported-media-type',
  'header-too-large',
  'company-not-allowed',
  'rate-limited',
])

/** Checks that a response is the problem of this code, complete and in its form, and nothing else. */
export function matchProblem(
  t: Test,
  response: HttpResponse,
  code: ProblemCode,
  extra: { errors?: FieldFault[]; outcome?: string; detail?: ProblemDetail; companyIds?: string[] } = {},
): void {
  const { status, title, retryable } = problems[code]
  t.equal(response.status, status, `${code} is a ${status}`)
  t.match(response.headers['content-type'], /^application\/problem\+json/)
  t.equal(response.headers['cache-control'], 'no-store')
  const { content, headers } = documented[status] ?? {}
  t.ok(content?.['application/problem+json']?.examples?.[code], `openapi.json has ${code}`)
  for (const name of Object.keys(documentedFields)) {
    if (response.headers[name.toLowerCase()] !== undefined)
      t.ok(headers?.[name], `openapi.json has ${name} at ${status}`)
  }
  const { requestId, detail, ...rest } = response.json
  t.match(requestId, /^[0-9a-f-]{36}$/)
  const { detail: expectedDetail, ...members } = extra
  t.strictSame(rest, { type: `/problems/${code}`, title, status, code, retryable, ...members })
  if (severalCauses.has(code)) t.ok(knownDetails.has(detail), `${code} says what is wrong: ${detail}`)
  else t.equal(detail, undefined)
  if (expectedDetail) t.equal(detail, detailTexts[expectedDetail])
}

function jsonBody(value: unknown) {
  return { body: JSON.stringify(value), headers: { 'content-type': 'application/json' } }
}
