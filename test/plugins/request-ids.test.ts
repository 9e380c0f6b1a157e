import { randomUUID } from 'node:crypto'
import t from 'tap'
import { build, type HttpResponse, openSocket, parseResponses, send } from '../helper.js'

const trusting = { env: { TRUST_PROXY: '127.0.0.0/8,::1' } }

t.test('every response has the id under which the log has it', async (t) => {
  const service = await build(t, { env: { CORS_ORIGINS: 'https://app.acme.example' } })
  const preflight = {
    method: 'OPTIONS' as const,
    headers: { origin: 'https://app.acme.example', 'access-control-request-method': 'POST' },
  }
  const { socket, received } = openSocket(service.url)
  socket.write('hello\r\n\r\n')
  const responses = [
    await service.mint(),
    await service.mint({ token: 'x' }),
    await send(`${service.url}/none`),
    await send(`${service.url}/%`),
    await send(`${service.url}/onboarding/kyb-token`, preflight),
    ...parseResponses(await received()),
  ]
  const logged = service.log().filter(({ msg }) => msg === 'request')
  t.equal(responses.length, logged.length)
  for (const { status, headers, json } of responses) {
    const id = headers['x-request-id']
    t.match(id, /^[0-9a-f-]{36}$/)
    t.equal(logged.find(({ requestId }) => requestId === id)?.status, status)
    t.equal(json?.requestId, status >= 400 ? id : undefined, `${status}`)
  }
  for (const path of ['/livez', '/readyz', '/metrics', '/none', '/%']) {
    t.match((await send(service.managementUrl + path)).headers['x-request-id'], /^[0-9a-f-]{36}$/, path)
  }
})

t.test('a plain id of a trusted proxy is kept', async (t) => {
  const service = await build(t, trusting)
  for (const id of [randomUUID(), 'a', 'req_1.2-3', 'x'.repeat(64)]) {
    const response = await service.mint({ headers: { 'x-request-id': id }, token: 'x' })
    t.equal(response.headers['x-request-id'], id)
    t.equal(response.json.requestId, id)
    t.equal(service.log('invalid-token').at(-1)?.requestId, id)
  }
  for (const id of ['', 'x'.repeat(65), 'a b', '"}{', 'é', 'a,b', '<script>']) {
    const response = await service.mint({ headers: { 'x-request-id': id } })
    t.match(response.headers['x-request-id'], /^[0-9a-f-]{36}$/, JSON.stringify(id))
  }
})

t.test('the request id of any other client is not kept', async (t) => {
  const service = await build(t)
  const response: HttpResponse = await service.mint({ headers: { 'x-request-id': 'chosen' } })
  t.match(response.headers['x-request-id'], /^[0-9a-f-]{36}$/)
})

t.test('the request id of a client does not change the identity that is verified', async (t) => {
  const env = { ...trusting.env, KYB_CLIENT_ID: '{companyId}', KYB_EXTERNAL_REF: '{requestId}' }
  const service = await build(t, { env })
  const { json } = await service.mint({ headers: { 'x-request-id': 'chosen' } })
  t.match(json.externalRef, /^[0-9a-f-]{36}$/)
})
