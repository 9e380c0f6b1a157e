import t from 'tap'
import { build, matchProblem, send, startPeers } from '../helper.js'
import { startKeyServer } from '../key-server.js'

t.test('without signing keys the instance lives but is not ready', async (t) => {
  const service = await build(t, { env: { AUTH_JWKS_URL: 'http://127.0.0.1:1/jwks' } })
  t.strictSame((await send(`${service.managementUrl}/livez`)).json, { status: 'live' })
  const response = await send(`${service.managementUrl}/readyz`)
  matchProblem(t, response, 'auth-keys-unavailable')
  t.equal(response.headers['retry-after'], '5')

  matchProblem(t, await service.mint(), 'auth-keys-unavailable')
  t.match(
    service.log().filter(({ msg }) => msg === 'the signing keys could not be fetched'),
    [{ level: 'warn', err: { code: 'ECONNREFUSED' } }],
    'one line for one try',
  )
})

t.test('the log says what a key URL sent in place of keys, and which setting is meant', async (t) => {
  const discovery = JSON.stringify({ issuer: 'https://idp.example', jwks_uri: 'https://idp.example/keys' })
  const rows: [body: string | number, received: RegExp][] = [
    [404, /^status 404$/],
    [discovery, /^a discovery document: set AUTH_JWKS_URL to its jwks_uri$/],
    ['<!doctype html>', /^HTML or XML$/],
    ['', /^nothing$/],
    ['keys', /^text that is not JSON$/],
    ['{"jwks":[]}', /^JSON without a list of keys$/],
    ['{"keys":[]}', /^an empty list of keys$/],
    ['{"keys":[{"kty":"oct"}]}', /^a private or symmetric key$/],
    ['{"keys":[{"kty":"RSA"}]}', /^no key that fits$/],
  ]
  for (const [body, received] of rows) {
    const provider = await startKeyServer(t)
    provider.respond = (_request, response) =>
      typeof body === 'number' ? response.writeHead(body).end() : response.end(body)
    const service = await build(t, { env: { AUTH_JWKS_URL: `${provider.url}?secret=canary` } })
    await service.mint()
    const [line] = service.log().filter(({ msg }) => msg === 'the signing keys could not be fetched')
    t.match(line, { received, url: provider.url, expected: /AUTH_JWKS_URL/ })
    t.notMatch(JSON.stringify(line), 'canary')
  }
})

t.test('iDenfy being down does not make it unready', async (t) => {
  const service = await build(t, { env: { IDENFY_BASE_URL: 'http://127.0.0.1:1' } })
  await service.mint()
  t.strictSame((await send(`${service.managementUrl}/readyz`)).json, { status: 'ready' })
})

t.test('all other paths are 404', async (t) => {
  const service = await build(t)
  matchProblem(
    t,
    await send(`${service.managementUrl}/onboarding/kyb-token`, { method: 'POST' }),
    'not-found',
  )
  matchProblem(t, await send(`${service.managementUrl}/livez`, { method: 'POST' }), 'method-not-allowed')
})

t.test('metrics count what keeps the signing keys away', async (t) => {
  const { idenfyUrl } = await startPeers(t)
  const rows: [string, string][] = [
    ['http://127.0.0.1:1/jwks', 'unreachable'],
    [`${idenfyUrl}/none`, 'jwks-status'],
  ]
  for (const [AUTH_JWKS_URL, reason] of rows) {
    const service = await build(t, { env: { AUTH_JWKS_URL } })
    await service.mint()
    const { headers, text } = await send(`${service.managementUrl}/metrics`)
    t.match(headers['content-type'], /^text\/plain/)
    t.match(text, `signing_key_fetch_failures_total{reason="${reason}"} 1`)
  }
})

t.test('monitors may probe with HEAD', async (t) => {
  const service = await build(t)
  await service.mint()
  for (const path of ['/livez', '/readyz']) {
    const { status, text } = await send(service.managementUrl + path, { method: 'HEAD' })
    t.strictSame([status, text], [200, ''], path)
  }
  const unready = await build(t, { env: { AUTH_JWKS_URL: 'http://127.0.0.1:1/jwks' } })
  const { status, text } = await send(`${unready.managementUrl}/readyz`, { method: 'HEAD' })
  t.strictSame([status, text], [503, ''])
})
