import t from 'tap'
import { Pool, request } from 'undici'
import { buildIdenfySimulator } from '../../sandbox/idenfy-simulator.js'
import { apiKey, apiSecret, send, startPeers } from '../helper.js'
import { refuseStaleBuild } from '../stale-build.js'

// The form is served as it was built.
refuseStaleBuild('dist-sandbox/demo/form.js')

const uuid = '7b1d8a1e-6c1b-4d53-9d3a-0c5a3f2e9a10'
const minimal = { tokenType: 'FORM', clientId: 'acme' }
const basic = (credentials: string) => `Basic ${Buffer.from(credentials).toString('base64')}`
const validRequest = {
  body: JSON.stringify(minimal),
  headers: { 'content-type': 'application/json', authorization: basic(`${apiKey}:${apiSecret}`) },
}

async function start(t: Parameters<typeof startPeers>[0], now?: () => number) {
  const peers = await startPeers(t, now && { now })
  const post = (body: unknown, headers: Record<string, string> = {}) =>
    send(`${peers.idenfyUrl}/kyb/tokens/`, {
      method: 'POST',
      body: typeof body === 'string' ? body : JSON.stringify(body),
      headers: {
        'content-type': 'application/json',
        authorization: basic(`${apiKey}:${apiSecret}`),
        ...headers,
      },
    })
  const bearer = (token?: string): Record<string, string> =>
    token ? { authorization: `Bearer ${token}` } : {}
  const info = (token?: string) => send(`${peers.idenfyUrl}/kyb/info/`, { headers: bearer(token) })
  const end = (outcome: string, token: string) =>
    send(`${peers.idenfyUrl}/_sandbox/form`, {
      method: 'PUT',
      body: JSON.stringify({ outcome }),
      headers: { 'content-type': 'application/json', ...bearer(token) },
    })
  return { ...peers, post, info, end }
}

t.test('a bug of the simulator is status 500', async (t) => {
  const { post } = await start(t, () => {
    throw new Error('no clock')
  })
  t.match(await post(minimal), { status: 500, json: { message: 'no clock' } })
})

t.test('a token has every required field', async (t) => {
  const { post } = await start(t, () => Date.parse('2026-11-23T12:00:00Z'))
  const { status, json } = await post(minimal)
  t.equal(status, 201)
  t.match(json, { tokenString: /^[0-9a-f]{40}$/, companyId: /^[0-9a-f-]{36}$/ })
  const { tokenString, companyId } = json
  const common = { tokenString, companyId, isActive: true, isValid: true }
  t.strictSame(json, {
    ...minimal,
    ...common,
    expiration: '2026-11-23T13:00:00.000Z',
    externalRef: null,
    locale: null,
    flow: null,
    theme: null,
    tags: [],
    scanRefs: [],
  })
  const full = { externalRef: 'u-1', locale: 'lt', flow: uuid, theme: uuid, tags: ['a'], scanRefs: ['s'] }
  t.match((await post({ ...minimal, ...full, lifetime: 60 })).json, {
    ...full,
    expiration: '2026-11-23T12:01:00.000Z',
  })
})

t.test('the simulator refuses what iDenfy would refuse', async (t) => {
  const { post, idenfyUrl } = await start(t)
  const rows: [string, object][] = [
    ['MISSING_VALUE', { clientId: undefined }],
    ['MISSING_VALUE', { tokenType: undefined }],
    ['BAD_VALUE', { tokenType: 'X' }],
    ['BAD_VALUE', { clientId: '' }],
    ['BAD_VALUE', { clientId: 'x'.repeat(101) }],
    ['BAD_VALUE', { clientId: 5 }],
    ['BAD_VALUE', { clientId: null }],
    ['BAD_VALUE', { externalRef: 5 }],
    ['BAD_VALUE', { externalRef: 'x'.repeat(41) }],
    ['BAD_VALUE', { lifetime: 1.5 }],
    ['BAD_VALUE', { lifetime: null }],
    ['BAD_VALUE', { locale: 'EN' }],
    ['BAD_VALUE', { questionnaire: 5 }],
    ['BAD_VALUE', { questionnaireRequired: null }],
    ['BAD_VALUE', { flow: `urn:uuid:${uuid}` }],
    ['BAD_VALUE', { tags: [''] }],
    ['BAD_VALUE', { tags: 'a' }],
    ['BAD_VALUE', { scanRefs: ['a,b'] }],
    ['BAD_VALUE', { scanRefs: 's' }],
    ['BAD_VALUE', { lifetime: -1 }],
    ['BAD_VALUE', { lifetime: 2_592_001 }],
    ['BAD_VALUE', { lifetime: '60' }],
    ['BAD_VALUE', { locale: 'xx' }],
    ['BAD_VALUE', { flow: 'x' }],
    ['BAD_VALUE', { theme: 'x' }],
    ['BAD_VALUE', { questionnaire: '' }],
    ['BAD_VALUE', { questionnaireRequired: 'yes' }],
    ['BAD_VALUE', { tags: ['1', '2', '3', '4', '5', '6'] }],
    ['BAD_VALUE', { tags: ['a,b'] }],
    ['BAD_VALUE', { tags: ['x'.repeat(33)] }],
    ['BAD_VALUE', { tags: null }],
    ['BAD_VALUE', { scanRefs: [''] }],
    ['BAD_VALUE', { scanRefs: ['x'.repeat(41)] }],
    ['BAD_VALUE', { unknown: 1 }],
  ]
  for (const [identifier, change] of rows) {
    const { status, json } = await post({ ...minimal, ...change })
    t.strictSame(
      [status, json.identifier, typeof json.message],
      [400, identifier, 'string'],
      JSON.stringify(change),
    )
  }
  t.match(await post('{'), { status: 400, json: { identifier: 'JSON_ERROR', message: String } })
  t.match(await post('[]'), { status: 400, json: { identifier: 'BAD_VALUE' } })
  const limits = [
    { clientId: 'x'.repeat(100), externalRef: 'x'.repeat(40), lifetime: 2_592_000 },
    { tags: ['1', '2', '3', '4', 'x'.repeat(32)], scanRefs: ['x'.repeat(40)], questionnaire: 'q' },
    { lifetime: 0, externalRef: null, locale: null, flow: null, theme: null, scanRefs: null },
    { tokenType: 'GOV1', questionnaire: null, questionnaireRequired: false },
  ]
  for (const change of limits) {
    t.equal((await post({ ...minimal, ...change })).status, 201, JSON.stringify(change))
  }

  for (const authorization of [basic('key:wrong'), basic(`${apiSecret}:${apiKey}`), 'Bearer x', '']) {
    const { status, json } = await post(minimal, { authorization })
    t.strictSame([status, json.identifier], [401, 'UNAUTHORIZED'])
  }
  const { status, json } = await send(`${idenfyUrl}/kyb/tokens`, { method: 'POST' })
  t.strictSame([status, json.identifier], [404, 'NOT_FOUND'], 'the slash matters')
})

t.test('tokens are remembered until they end', async (t) => {
  let now = Date.parse('2026-11-23T12:00:00Z')
  const { post, info } = await start(t, () => now)
  const plain = (await post(minimal)).json.tokenString
  const chosen = (await post({ ...minimal, locale: 'lt', flow: uuid, theme: uuid, lifetime: 60 })).json
    .tokenString
  t.strictSame((await info(plain)).json, { locale: null, theme: null, flow: null })
  t.strictSame((await info(chosen)).json, { locale: 'lt', theme: uuid, flow: uuid })
  t.equal((await info('unknown')).status, 401)
  t.equal((await info()).status, 401)
  now += 60_000
  const ended = await info(chosen)
  t.strictSame([ended.status, ended.json.message], [401, { completed: false }])
  t.equal((await info(plain)).status, 200)
})

t.test('a form can succeed, fail and expire', async (t) => {
  const { post, end, info } = await start(t)
  for (const [outcome, completed] of [
    ['success', true],
    ['failed', true],
    ['expired', false],
  ] as const) {
    const token = (await post(minimal)).json.tokenString
    t.equal((await end(outcome, token)).status, 200, outcome)
    const { status, json } = await info(token)
    t.strictSame([status, json.message], [401, { completed }])
  }
  t.equal((await end('success', 'unknown')).status, 401)
  t.equal((await end('lost', 'unknown')).status, 400)
})

t.test('a form ends once, and keeps its first outcome', async (t) => {
  let now = Date.parse('2026-11-23T12:00:00Z')
  const { post, end, info } = await start(t, () => now)
  for (const first of ['success', 'failed', 'expired']) {
    const token = (await post(minimal)).json.tokenString
    await end(first, token)
    for (const second of ['success', 'failed', 'expired']) {
      t.match(await end(second, token), {
        status: 409,
        json: { identifier: 'FORM_ENDED', message: { outcome: first } },
      })
    }
    t.strictSame((await info(token)).json.message, { completed: first !== 'expired' })
  }
  const expiring = (await post({ ...minimal, lifetime: 60 })).json.tokenString
  now += 60_000
  t.match(await end('success', expiring), { status: 409, json: { message: { outcome: 'expired' } } })
  t.strictSame((await info(expiring)).json.message, { completed: false })
})

t.test('pages of this machine and of one more host may embed the form', async (t) => {
  for (const [pageHost, ancestors] of [
    [undefined, 'http://127.0.0.1:* http://localhost:*'],
    ['127.0.0.1', 'http://127.0.0.1:* http://localhost:*'],
    ['192.0.2.7', 'http://127.0.0.1:* http://localhost:* http://192.0.2.7:*'],
  ] as const) {
    const simulator = buildIdenfySimulator({ apiKey, apiSecret, ...(pageHost && { pageHost }) })
    t.teardown(() => simulator.close())
    const { headers } = await send(`${await simulator.listen({ port: 0 })}/welcome`)
    t.ok(String(headers['content-security-policy']).endsWith(`; frame-ancestors ${ancestors}`), ancestors)
  }
})

t.test('the URL of the form stays private', async (t) => {
  const { idenfyUrl } = await start(t)

  const page = await send(`${idenfyUrl}/welcome?authToken=canary`)
  t.match(page, {
    status: 200,
    headers: {
      'referrer-policy': 'no-referrer',
    },
  })
  t.notMatch(
    (await send(`${idenfyUrl}/_sandbox/requests`)).text,
    'canary',
    'the list of requests has no visits, because their URLs contain the token',
  )
})

t.test('faults on demand', async (t) => {
  const { post, setFault, idenfyUrl } = await start(t)
  const withFault = async (fault: object) => {
    await setFault({ ...fault, times: 1 })
    try {
      return await post(minimal)
    } finally {
      t.equal((await post(minimal)).status, 201, `once: ${JSON.stringify(fault)}`)
    }
  }
  t.match(await withFault({ status: 500 }), { status: 500, json: { message: String } })
  t.match(await withFault({ status: 400, identifier: 'BAD_VALUE' }), {
    status: 400,
    json: { identifier: 'BAD_VALUE' },
  })
  t.match(await withFault({ status: 200 }), { status: 200, json: { tokenString: String } })
  t.match(await withFault({ status: 200, identifier: 'X' }), { status: 200, json: { identifier: 'X' } })
  t.match(await withFault({ delayMs: 1 }), { status: 201 })
  const withDelay = performance.now()
  t.match(await withFault({ delayMs: 50, status: 502 }), { status: 502 })
  t.ok(performance.now() - withDelay >= 49, 'the answer waits')
  t.match(await withFault({ body: { a: 1 } }), { status: 201, json: { a: 1 } })
  t.match(await withFault({ status: 200, body: null }), { status: 200, json: null })
  await setFault({ status: 502, body: '<html>', times: 1 })
  const page = await request(`${idenfyUrl}/kyb/tokens/`, { method: 'POST', ...validRequest })
  t.strictSame([page.statusCode, await page.body.text()], [502, '<html>'], 'as it is')
  t.match(await withFault({ status: 418, body: '{"a":2}' }), { status: 418, json: { a: 2 } })
  await t.rejects(withFault({ drop: 'before-headers' }), { code: 'UND_ERR_SOCKET' })
  await t.rejects(withFault({ drop: 'mid-body' }), { code: 'UND_ERR_SOCKET' })

  await setFault({ status: 503, times: 2 })
  t.strictSame(
    [(await post(minimal)).status, (await post(minimal)).status, (await post(minimal)).status],
    [503, 503, 201],
  )
  await setFault({ status: 503 })
  t.strictSame([(await post(minimal)).status, (await post(minimal)).status], [503, 503])
  await setFault({})
  t.equal((await post(minimal)).status, 201)

  const wrong: object[] = [
    { drop: 'now' },
    { status: 199 },
    { status: 600 },
    { status: '500' },
    { identifier: 5 },
    { delayMs: -1 },
    { times: 0 },
    { caller: '' },
    { caller: 5 },
    { caller: 'x'.repeat(101) },
    { unknown: 1 },
    [],
  ]
  for (const fault of wrong) {
    const { status, json } = await send(`${idenfyUrl}/_sandbox/faults`, {
      method: 'PUT',
      body: JSON.stringify(fault),
      headers: { 'content-type': 'application/json' },
    })
    t.strictSame([status, json.identifier], [400, 'BAD_VALUE'], JSON.stringify(fault))
  }
  t.equal((await post(minimal)).status, 201, 'a wrong fault is none')
})

t.test('a fault with a caller applies to the requests of this caller only', async (t) => {
  const { post, setFault } = await start(t)
  const statusesOf = async (...requests: object[]) => {
    const statuses: number[] = []
    for (const body of requests) statuses.push((await post({ ...minimal, ...body })).status)
    return statuses
  }
  const [ada, ben, chris] = [
    { externalRef: 'u-ada' },
    { clientId: 'acme:u-ben', externalRef: 'x' },
    { externalRef: 'u-chris' },
  ]

  await setFault({ caller: 'u-ada', status: 500, times: 1 })
  await setFault({ caller: 'u-ben', status: 502, times: 2 })
  t.strictSame(await statusesOf(chris, {}, ben, ada, ada, ben, ben), [201, 201, 502, 500, 201, 502, 201])

  await setFault({ status: 503 })
  await setFault({ caller: 'u-ada', status: 500 })
  t.strictSame(await statusesOf(ada, ben, {}), [500, 503, 503], 'a fault without a caller is for all others')
  await setFault({})
  t.strictSame(await statusesOf(ada, ben), [500, 201], 'an empty fault without a caller ends that one only')
  await setFault({ caller: 'u-ada', status: 504 })
  t.strictSame(await statusesOf(ada), [504], 'a caller has one fault')
  await setFault({ caller: 'ada', status: 507 })
  t.strictSame(await statusesOf(ada), [507], 'of several faults for a request, the newest applies')
  await setFault({ caller: 'ada' })
  await setFault({ caller: 'u-ada' })
  t.strictSame(await statusesOf(ada), [201])
})

t.test('the simulator keeps the newest hundred faults with a caller, and the one without', async (t) => {
  const { post, setFault } = await start(t)
  await setFault({ status: 503 })
  for (let number = 0; number <= 100; number += 1) {
    await setFault({ caller: `user-${number}.`, status: 500 })
  }
  for (const [number, status] of [
    [0, 503],
    [1, 500],
    [100, 500],
  ] as const) {
    t.equal((await post({ ...minimal, externalRef: `user-${number}.` })).status, status, `${number}`)
  }
})

t.test('a reset ends all faults and forgets the requests, but no form', async (t) => {
  const { post, setFault, info, idenfyUrl } = await start(t)
  const token = (await post(minimal)).json.tokenString
  await setFault({ status: 500 })
  await setFault({ caller: 'acme', status: 500 })
  t.equal((await send(`${idenfyUrl}/_sandbox/reset`, { method: 'POST' })).status, 204)
  t.strictSame((await send(`${idenfyUrl}/_sandbox/requests`)).json, [])
  t.equal((await info(token)).status, 200)
  t.equal((await post(minimal)).status, 201)
  t.match((await send(`${idenfyUrl}/_sandbox/requests`)).json, [{ number: 2 }, { number: 3 }])
})

t.test('the simulator lists the requests it received, without credentials', async (t) => {
  const { post, setFault, idenfyUrl } = await start(t)
  await post(minimal)
  await post('{')
  await post(minimal, { authorization: 'Basic canary' })
  await send(`${idenfyUrl}/kyb/info/`, { headers: { authorization: 'Bearer canary' } })
  await setFault({})
  await send(`${idenfyUrl}/_sandbox/requests`)
  const { json, text } = await send(`${idenfyUrl}/_sandbox/requests`)
  t.strictSame(
    json.map(({ number, method, url, body }: Record<string, unknown>) => [number, method, url, body]),
    [
      [1, 'POST', '/kyb/tokens/', minimal],
      [2, 'POST', '/kyb/tokens/', undefined],
      [3, 'POST', '/kyb/tokens/', undefined],
      [4, 'GET', '/kyb/info/', undefined],
    ],
  )
  t.match(json[0].headers, { 'content-type': 'application/json' })
  t.notMatch(text, /authorization|canary|Basic/i)

  const pool = new Pool(idenfyUrl, { connections: 4 })
  t.teardown(() => pool.close())
  await Promise.all(
    Array.from({ length: 1000 }, async () => (await pool.request({ method: 'GET', path: '/x' })).body.dump()),
  )
  const kept = (await send(`${idenfyUrl}/_sandbox/requests`)).json
  t.strictSame([kept.length, kept[0].url], [1000, '/x'], 'the oldest go first')
})
