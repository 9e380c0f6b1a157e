import t from 'tap'
import {
  addressesOf,
  apiKey,
  apiSecret,
  type HttpResponse,
  openSocket,
  Secrets,
  send,
  spawnNode,
  startPeers,
} from './helper.js'

t.test('the guard of every test finds a secret in any form', async (t) => {
  const secrets = new Secrets()
  const jwt = secrets.add(`${'h'.repeat(50)}.${'p'.repeat(50)}.${'s'.repeat(50)}`)
  secrets.add('token/with+signs')
  const forms = [
    apiKey,
    `x ${apiSecret} y`,
    Buffer.from(`${apiKey}:${apiSecret}`).toString('base64'),
    Buffer.from(apiSecret).toString('base64'),
    Buffer.from(apiSecret).toString('hex'),
    jwt,
    's'.repeat(50),
    'token%2Fwith%2Bsigns',
  ]
  for (const form of forms) t.not(secrets.foundIn(form).length, 0, form)
  t.strictSame(secrets.foundIn('nothing of that kind'), [])
})

t.test('a process gives no secret away, whatever happens to it', async (t) => {
  const peers = await startPeers(t)
  const { secrets } = peers
  const server = spawnNode(
    t,
    ['dist/server.js'],
    {
      ...peers.environment,
      PORT: '0',
      MANAGEMENT_PORT: '0',
      LOG_LEVEL: 'trace',
      IDENFY_TIMEOUT_MS: '300',
      RATE_LIMIT_COMPANY_PER_MINUTE: '20',
    },
    secrets,
  )
  const { url, managementUrl } = await addressesOf(server)
  const path = `${url}/onboarding/kyb-token`
  const token = await peers.token()
  const authorization = `Bearer ${token}`
  const post = (options: { body?: string; headers?: Record<string, string> } = {}) =>
    send(path, { method: 'POST', ...options, headers: { authorization, ...options.headers } })
  const json = { 'content-type': 'application/json' }

  const faults: object[] = [
    {},
    { status: 401, identifier: apiSecret },
    { status: 500, body: `{"identifier":"X","message":"${apiSecret}"}` },
    { status: 400, body: token },
    { status: 201, body: `{"tokenString":"${secrets.add('canary-token-string')}", broken` },
    { status: 201, body: { tokenString: 'canary-token-string', expiration: '2000-01-01T00:00:00Z' } },
    { status: 302, body: token },
    { drop: 'before-headers' },
    { drop: 'mid-body' },
    { delayMs: 1000 },
  ]
  const responses: string[] = []
  const keep = ({ status, text }: HttpResponse) => status === 201 || responses.push(text)
  for (const fault of faults) {
    await peers.setFault({ ...fault, times: 1 })
    keep(await post())
  }
  keep(
    await post({
      body: JSON.stringify({ [token]: token, locale: apiSecret, [apiSecret]: 1 }),
      headers: json,
    }),
  )
  keep(await post({ body: `{"${token}`, headers: json }))
  keep(await post({ body: token, headers: { 'content-type': token } }))
  keep(
    await post({
      headers: { 'x-company-id': token, 'x-request-id': token, 'user-agent': token, cookie: token },
    }),
  )
  keep(await post({ headers: { authorization: `Basic ${token}` } }))
  keep(await post({ headers: { authorization: `${authorization}x` } }))
  keep(await post({ headers: { authorization: `Bearer ${await peers.token({ sub: 'x'.repeat(300) })}` } }))
  keep(await post({ headers: { authorization: `Bearer ${await peers.token({}, { kid: apiSecret })}` } }))
  keep(await send(`${path}?access_token=${token}`, { method: 'POST', headers: { authorization } }))
  keep(await send(`${url}/${token}`, { headers: { authorization } }))
  keep(await send(`${url}/%${token}`, { headers: { authorization } }))
  for (const bytes of [
    `${token}\r\n\r\n`,
    `GET / HTTP/1.1\r\nAuthorization: ${authorization}\r\n${token}\r\n\r\n`,
  ]) {
    const { socket, received } = openSocket(url)
    socket.write(bytes)
    responses.push(await received())
  }
  for (let i = 0; i < 20; i++) keep(await post({ headers: { 'idempotency-key': String(i) } }))
  t.equal(JSON.parse(responses.at(-1) ?? '').code, 'rate-limited')

  const { text: metrics } = await send(`${managementUrl}/metrics`)
  t.match(metrics, 'authentication_failures_total')
  server.child.kill('SIGTERM')
  t.equal(await server.exited(), 0)
  t.ok(server.output.stdout.split('\n').length > faults.length + 10)
  for (const [place, text] of Object.entries({
    ...server.output,
    metrics,
    responses: responses.join('\n'),
  })) {
    t.strictSame(secrets.foundIn(text), [], place)
  }
})
