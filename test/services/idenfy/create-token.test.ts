import t from 'tap'
import { basicAuthorization, createIdenfyClient } from '../../../src/services/idenfy/client.js'
import { EgressProxyError } from '../../../src/services/idenfy/connector.js'
import { type DispatchedRequest, ScriptedDispatcher } from '../../scripted-dispatcher.js'
import { createVirtualClock } from '../../virtual-clock.js'

const goodToken = { tokenString: 'T0ken', expiration: '2026-11-23T13:00:00Z' }
const log = { warn: () => {} }

/** A client whose credentials can be replaced, while they are read or before. */
function setUp(
  script: (request: DispatchedRequest) => void,
  onCheck: () => string | undefined = () => undefined,
) {
  const { clock, pass } = createVirtualClock()
  const dispatcher = new ScriptedDispatcher(script)
  const credentials = { value: 'Basic b2xk', checks: 0 }
  const drifts: unknown[] = []
  const idleLimitsMs: number[] = []
  const client = createIdenfyClient({
    dispatcher,
    origin: 'https://idenfy.example',
    authorization: {
      value: () => credentials.value,
      checkNow: async () => {
        credentials.checks += 1
        credentials.value = onCheck() ?? credentials.value
      },
    },
    userAgent: 'test/1',
    clock,
    onIdleLimit: (limitMs) => idleLimitsMs.push(limitMs),
    onDrift: (...drift) => drifts.push(drift),
  })
  const limits = {
    deadlineMs: clock.monotonicNow() + 8_000,
    sendBeforeMs: clock.monotonicNow() + 6_000,
    wasSuspended: () => false,
    isAbandoned: () => false,
    log,
  }
  return {
    create: (request: object = {}, more: Partial<typeof limits> = {}) =>
      client.createKybToken(
        { tokenType: 'FORM', clientId: 'acme', externalRef: 'u-1', ...request },
        { ...limits, ...more },
      ),
    dispatcher,
    credentials,
    drifts,
    idleLimitsMs,
    pass,
  }
}

/** A client of an iDenfy that always responds with this. */
const against = (status: number, body: unknown, headers?: Record<string, string>) =>
  setUp((request) => request.respond(status, body, headers))

t.test('how long iDenfy keeps idle connections is passed on', async (t) => {
  for (const [keepAlive, expected] of [
    ['timeout=5', [5_000]],
    ['max=100, Timeout = 75', [75_000]],
    ['timeout=0', [0]],
    ['max=100', []],
    [undefined, []],
  ] as const) {
    const headers = { 'content-type': 'application/json', ...(keepAlive && { 'keep-alive': keepAlive }) }
    const { create, idleLimitsMs } = against(201, goodToken, headers)
    await create()
    t.strictSame(idleLimitsMs, expected, String(keepAlive))
  }
})

t.test('a token is requested with one POST', async (t) => {
  const { create, dispatcher, drifts } = against(201, { ...goodToken, tokenType: 'FORM', surprise: 1 })
  t.strictSame(
    await create({ lifetime: 60 }),
    { ...goodToken, tokenType: 'FORM' },
    'without members that are not known',
  )
  t.equal(dispatcher.requests.length, 1)
  const [{ method, origin, path, headers, body }] = dispatcher.requests as [DispatchedRequest]
  t.strictSame(
    { method, origin, path, headers, body },
    {
      method: 'POST',
      origin: 'https://idenfy.example',
      path: '/kyb/tokens/',
      headers: {
        'user-agent': 'test/1',
        'content-type': 'application/json',
        accept: 'application/json',
        'accept-encoding': 'identity',
        authorization: 'Basic b2xk',
      },
      body: { tokenType: 'FORM', clientId: 'acme', externalRef: 'u-1', lifetime: 60 },
    },
  )
  t.strictSame(drifts, [])
})

t.test('every member that is known is kept, also null', async (t) => {
  const token = {
    ...goodToken,
    tokenType: 'FORM',
    isValid: true,
    clientId: 'acme',
    externalRef: 'u-1',
    companyId: 'c-1',
    locale: null,
    flow: null,
    theme: null,
    tags: ['a'],
    scanRefs: null,
  }
  t.strictSame(await against(201, token).create(), token)
})

t.test('key and secret make the credentials', async (t) => {
  t.equal(basicAuthorization({ apiKey: 'a', apiSecret: 'ž:b' }), 'Basic YTrFvjpi')
})

t.test('a token with another status than 201 is a drift', async (t) => {
  for (const status of [200, 202, 299]) {
    const { create, drifts } = against(status, goodToken)
    t.strictSame(await create(), goodToken)
    t.strictSame(drifts, [[status, log]])
  }
})

t.test('a response that is no token is not passed on', async (t) => {
  const json = 'application/json'
  const rows: [reason: string, status: number, body: unknown, headers?: Record<string, string>][] = [
    ['redirect', 300, goodToken],
    ['redirect', 307, ''],
    ['redirect', 399, goodToken],
    ['not-a-token', 201, 'nothing', { 'content-type': json }],
    ['not-a-token', 201, { ...goodToken, tokenString: undefined }],
    ['not-json', 201, goodToken, {}],
    ['not-json', 201, goodToken, { 'content-type': 'text/html' }],
    ['not-json', 201, goodToken, { 'content-type': 'application/jsonx' }],
    ['not-json', 201, goodToken, { 'content-type': 'text/x-application/json' }],
    ['not-json', 201, goodToken, { 'content-type': 'application/json x' }],
    ['encoded', 201, goodToken, { 'content-type': json, 'content-encoding': 'gzip' }],
    ['expired', 201, { ...goodToken, expiration: '2026-11-23T12:00:00Z' }],
    ['expired', 201, { ...goodToken, expiration: '2026-13-45T12:00:00Z' }],
    ['identity-mismatch', 201, { ...goodToken, clientId: 'globex' }],
    ['identity-mismatch', 201, { ...goodToken, externalRef: 'u-2' }],
  ]
  for (const [reason, upstreamStatus, body, headers] of rows) {
    await t.rejects(
      against(upstreamStatus, body, headers).create(),
      {
        code: 'provider-bad-response',
        options: { diagnosis: { phase: 'after-sending', upstreamStatus, reason } },
      },
      `${reason} ${upstreamStatus} ${JSON.stringify(headers)}`,
    )
  }
})

t.test('a token may be described in several ways', async (t) => {
  for (const type of [
    'application/json',
    'Application/JSON',
    'application/json; charset=utf-8',
    'application/json ;a=b',
  ]) {
    t.match(await against(201, goodToken, { 'content-type': type }).create(), goodToken, type)
  }
  const headers = { 'content-type': 'application/json', 'content-encoding': 'identity' }
  t.match(await against(201, goodToken, headers).create(), goodToken)
  const nothing = { ...goodToken, externalRef: null }
  t.match(await against(201, nothing).create(), nothing, 'null says nothing about the user')
  t.match(await against(201, { ...goodToken, expiration: '2026-11-23T12:00:00.001Z' }).create(), {
    tokenString: 'T0ken',
  })
})

t.test('an error response is mapped by its status, its body and its Retry-After', async (t) => {
  await t.rejects(against(400, { identifier: 'PARTNER_CONTRACT_ERROR' }).create(), {
    code: 'provider-rejected',
    options: { diagnosis: { upstreamStatus: 400, identifier: 'PARTNER_CONTRACT_ERROR', class: 'contract' } },
  })
  await t.rejects(against(429, 'busy', { 'retry-after': '7' }).create(), {
    code: 'provider-rate-limited',
    options: { retryAfterSeconds: 7, safeToRetry: { reason: 'rate-limited', afterMs: 7_000 } },
  })
  await t.rejects(against(500, '{').create(), { code: 'provider-outcome-unknown' })
  await t.rejects(against(400, '').create(), { code: 'provider-rejected' })
})

t.test('refused credentials may be retried if there are others', async (t) => {
  const refuse = (request: DispatchedRequest) => request.respond(401, { identifier: 'UNAUTHORIZED' })
  const refusal = {
    code: 'provider-rejected',
    options: { diagnosis: { upstreamStatus: 401, class: 'credentials' } },
  }
  const optionsOf = (error: unknown) => (error as { options: { safeToRetry?: unknown } }).options
  const same = setUp(refuse)
  t.equal(optionsOf(await t.rejects(same.create(), refusal)).safeToRetry, undefined)
  t.equal(same.credentials.checks, 1)

  const replaced = setUp(refuse, () => 'Basic bmV3')
  const safeToRetry = { reason: 'new-credentials', afterMs: 0 }
  t.strictSame(optionsOf(await t.rejects(replaced.create(), refusal)).safeToRetry, safeToRetry)
  t.equal(replaced.credentials.checks, 1)

  const before = setUp((request) => {
    before.credentials.value = 'Basic bmV3'
    refuse(request)
  })
  t.strictSame(optionsOf(await t.rejects(before.create(), refusal)).safeToRetry, safeToRetry)
  t.equal(before.credentials.checks, 0, 'they need not be read again')

  const other = setUp(
    (request) => request.respond(402),
    () => 'Basic bmV3',
  )
  t.equal(optionsOf(await t.rejects(other.create(), { code: 'provider-rejected' })).safeToRetry, undefined)
  t.equal(other.credentials.checks, 0, 'only for credentials')
})

const broken = (code?: string, name = 'Error') => Object.assign(new Error('lost'), { name, code })

t.test('a request that was not sent is out of reach, and safe to retry', async (t) => {
  const notSent = (cause: Error) => setUp((request) => request.fail(cause)).create()
  const safeToRetry = { reason: 'not-sent', afterMs: 0 }
  for (const code of [
    'ECONNREFUSED',
    'ENOTFOUND',
    'UND_ERR_CONNECT_TIMEOUT',
    'EPROTOTYPE',
    'XEPROTO',
    'UND_ERR_PRX_TLSX',
    undefined,
  ]) {
    const cause = broken(code)
    await t.rejects(notSent(cause), {
      code: 'provider-unavailable',
      cause,
      options: { diagnosis: { phase: 'before-sending', class: 'connection' }, safeToRetry },
    })
  }
  const proxy = new EgressProxyError(broken('PROXY_403'))
  await t.rejects(notSent(proxy), {
    code: 'provider-unavailable',
    cause: proxy,
    options: { diagnosis: { phase: 'before-sending', class: 'egress-proxy' }, safeToRetry },
  })
})

t.test('a peer that cannot be trusted is a refusal', async (t) => {
  for (const code of [
    'ERR_SSL_WRONG_VERSION_NUMBER',
    'ERR_TLS_CERT_ALTNAME_INVALID',
    'EPROTO',
    'UND_ERR_PRX_TLS',
    'CERT_HAS_EXPIRED',
    'SELF_SIGNED_CERT_IN_CHAIN',
    'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    'INVALID_CA',
    'INVALID_PURPOSE',
  ]) {
    const cause = broken(code)
    const error = await t.rejects(setUp((request) => request.fail(cause)).create(), {
      code: 'provider-rejected',
      cause,
    })
    t.strictSame((error as unknown as { options: object }).options, {
      cause,
      diagnosis: { phase: 'before-sending', class: 'tls' },
    })
  }
})

t.test('after sending the outcome is not known, or the response is bad', async (t) => {
  const afterSending = (cause: Error) =>
    setUp((request) => {
      request.begin()
      request.fail(cause)
    }).create()
  const rows: [cause: Error, code: string][] = [
    [broken('ECONNRESET'), 'provider-outcome-unknown'],
    [broken('CERT_HAS_EXPIRED'), 'provider-outcome-unknown'],
    [broken(), 'provider-outcome-unknown'],
    [broken('UND_ERR_HEADERS_OVERFLOW'), 'provider-bad-response'],
    [broken('UND_ERR_RES_CONTENT_LENGTH_MISMATCH'), 'provider-bad-response'],
    [broken('UND_ERR_RES_EXCEEDED_MAX_SIZE'), 'provider-bad-response'],
    [broken('HPE_INVALID_CONSTANT', 'HTTPParserError'), 'provider-bad-response'],
  ]
  for (const [cause, code] of rows) {
    const error = await t.rejects(afterSending(cause), { code, cause })
    t.strictSame((error as unknown as { options: object }).options, {
      cause,
      diagnosis: { phase: 'after-sending' },
    })
  }
})

t.test('a deadline says whether the request was sent, and is no reason to retry', async (t) => {
  for (const [isSent, code, phase] of [
    [false, 'provider-unavailable', 'before-sending'],
    [true, 'provider-timeout', 'after-sending'],
  ] as const) {
    const { create, pass } = setUp((request) => isSent && request.begin())
    const result = create().catch((error) => error)
    await pass(8_000)
    const error = await result
    t.match(error, { code, options: { diagnosis: { phase } } })
    t.equal(error.options.safeToRetry, undefined)
  }
})

t.test('a request whose clients have gone is abandoned', async (t) => {
  const { create } = against(201, goodToken)
  await t.rejects(create({}, { isAbandoned: () => true }), { name: 'Abandoned' })
})
