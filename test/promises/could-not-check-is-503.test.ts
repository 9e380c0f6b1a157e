// Rule 4: "could not check" is 503, "checked and refused" is 401 or 403. No failure on our side signs a user out.
import { createServer } from 'node:net'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { createTokenSigner } from '../../sandbox/token-signer.js'
import type { ProblemCode } from '../../src/problems/catalog.js'
import { build, createClock, listen, matchProblem, until } from '../helper.js'
import { type KeyServer, startKeyServer } from '../key-server.js'

const known = await createTokenSigner('ES256', 'known')
const fresh = await createTokenSigner('ES256', 'fresh')
const goodSet = JSON.stringify({ keys: [known.publicJwk, fresh.publicJwk] })
const hour = 3600

type Fault = (provider: KeyServer) => unknown
const respondWith =
  (status: number, body: string | Buffer = '', headers: Record<string, string> = {}): Fault =>
  (provider) => {
    provider.respond = (_request, response) => response.writeHead(status, headers).end(body)
  }

/** Every way in which a key set cannot be had. */
const faults: Record<string, Fault> = {
  'no one listens': (provider) => provider.stop(),
  'accepts and is silent': (provider) => {
    provider.respond = () => {}
  },
  'sends half and is silent': (provider) => {
    provider.respond = (_request, response) =>
      response.writeHead(200, { 'content-length': goodSet.length }).write(goodSet.slice(0, 50))
  },
  'resets the connection': (provider) => {
    provider.respond = (request) => request.socket.resetAndDestroy()
  },
  'closes in the middle': (provider) => {
    provider.respond = (request, response) => {
      response.writeHead(200, { 'content-length': goodSet.length }).write(goodSet.slice(0, 50))
      setImmediate(() => request.socket.end())
    }
  },
  redirects: respondWith(302, goodSet, { location: '/elsewhere' }),
  'responds 204': respondWith(204),
  'responds 401': respondWith(401, goodSet),
  'responds 403': respondWith(403, goodSet),
  'responds 404': respondWith(404, goodSet),
  'responds 429': respondWith(429, goodSet, { 'retry-after': '60' }),
  'responds 500': respondWith(500, goodSet),
  'responds 503': respondWith(503, '<html>'),
  'sends a page': respondWith(200, '<html>', { 'content-type': 'text/html' }),
  'sends nothing': respondWith(200),
  'sends JSON that is no set': respondWith(200, '{"error":"temporarily_unavailable"}'),
  'sends null': respondWith(200, 'null'),
  'sends an empty set': respondWith(200, '{"keys":[]}'),
  'sends a set without usable keys': respondWith(200, '{"keys":[{"kty":"OKP","crv":"Ed448"},null,5]}'),
  'sends a private key': respondWith(
    200,
    JSON.stringify({ keys: [known.publicJwk, { kty: 'EC', d: 'AQAB' }] }),
  ),
  'sends too much': respondWith(200, goodSet + ' '.repeat(65_536)),
  'sends too much, compressed': respondWith(200, gzipSync(goodSet + ' '.repeat(65_536)), {
    'content-encoding': 'gzip',
  }),
  'sends a gzip that is cut off': respondWith(200, gzipSync(goodSet).subarray(0, 60), {
    'content-encoding': 'gzip',
  }),
  'calls plain text gzip': respondWith(200, goodSet, { 'content-encoding': 'gzip' }),
  'uses an unknown encoding': respondWith(200, goodSet, { 'content-encoding': 'aws-chunked' }),
}

async function start(t: Test, fault?: Fault) {
  const { clocks, pass } = createClock()
  const provider = await startKeyServer(t, known.publicJwk)
  await fault?.(provider)
  const service = await build(t, {
    ...clocks,
    env: {
      AUTH_JWKS_URL: provider.url,
      AUTH_MAX_TOKEN_LIFETIME_SECONDS: '31536000',
      // A fetch may take half of it.
      IDENFY_TIMEOUT_MS: '600',
    },
  })
  const exp = Math.floor(clocks.now() / 1000) + 1000 * hour
  const tokens = {
    known: await service.token({ exp }, {}, known),
    fresh: await service.token({ exp }, {}, fresh),
    'without kid': await service.token({ exp }, { kid: undefined }, fresh),
    forged: await service.token({ exp }, {}, await createTokenSigner('ES256', 'known')),
    expired: await service.token({ iat: 1, exp: 2 }, {}, known),
    garbage: 'x.y.z',
  }
  type Name = keyof typeof tokens
  /** That each of these tokens gets this response, alone and together. */
  const expectEach = async (t: Test, expected: 201 | ProblemCode, ...names: Name[]) => {
    for (const name of [...names, ...names]) {
      const response = await service.mint({ token: tokens[name] })
      if (expected === 201) t.equal(response.status, 201, name)
      else t.equal(response.json.code, expected, name)
    }
  }
  const heal = async () => {
    provider.respond = undefined
    await provider.comeBack()
    provider.keys = [known.publicJwk, fresh.publicJwk]
    pass(60)
  }
  return { service, provider, pass, expectEach, heal }
}

for (const [name, fault] of Object.entries(faults)) {
  t.test(`a provider that ${name}, from the start`, async (t) => {
    const { pass, expectEach, heal } = await start(t, fault)
    for (const idle of [0, hour]) {
      pass(idle)
      await expectEach(t, 'auth-keys-unavailable', 'known', 'fresh', 'without kid', 'forged', 'expired')
      await expectEach(t, 'invalid-token', 'garbage')
    }
    await heal()
    await expectEach(t, 201, 'known', 'fresh')
  })

  t.test(`a provider that ${name}, after it was well`, async (t) => {
    const { provider, pass, expectEach, heal } = await start(t)
    await expectEach(t, 201, 'known')
    await fault(provider)
    for (const idle of [0, 4 * 60, 20 * hour]) {
      pass(idle)
      await expectEach(t, 201, 'known')
      await expectEach(t, 'auth-keys-unavailable', 'fresh', 'without kid')
      await expectEach(t, 'invalid-token', 'forged', 'expired', 'garbage')
    }
    pass(5 * hour)
    await expectEach(t, 'auth-keys-unavailable', 'known', 'fresh', 'forged')
    await heal()
    await expectEach(t, 201, 'known', 'fresh')
  })
}

t.test('a provider that accepts and never says hello of TLS', async (t) => {
  const port = await listen(
    t,
    createServer(() => {}),
  )
  const service = await build(t, {
    env: { AUTH_JWKS_URL: `https://127.0.0.1:${port}/keys`, IDENFY_TIMEOUT_MS: '300' },
  })
  const startedAt = performance.now()
  matchProblem(t, await service.mint(), 'auth-keys-unavailable')
  t.ok(performance.now() - startedAt < 550, 'within the deadline')
})

t.test('while fetches fail, no request waits for one after another', async (t) => {
  const { provider, pass, expectEach } = await start(t)
  await expectEach(t, 201, 'known')
  provider.respond = () => {}
  pass(hour)
  const before = provider.fetches.length
  for (let index = 0; index < 10; index++) await expectEach(t, 201, 'known')
  t.equal(provider.fetches.length, before + 1)
})

t.test('a key that is published is accepted at once, also by the next request', async (t) => {
  const { provider, expectEach } = await start(t)
  await expectEach(t, 201, 'known')
  await expectEach(t, 'invalid-token', 'fresh')
  provider.keys = [known.publicJwk, fresh.publicJwk]
  await expectEach(t, 201, 'fresh')
})

t.test('a key that replaces the only one is accepted at once, though its tokens have no kid', async (t) => {
  const { provider, expectEach } = await start(t)
  await expectEach(t, 201, 'known')
  await expectEach(t, 'invalid-token', 'without kid')
  provider.keys = [{ ...fresh.publicJwk, kid: undefined }]
  await expectEach(t, 201, 'without kid')
})

for (const { deadline, intervalSeconds } of [
  { deadline: undefined, intervalSeconds: 1 },
  // A request does not wait a second for the next fetch if it has less than that.
  { deadline: '600', intervalSeconds: 0.225 },
]) {
  t.test(`made-up key ids keep no new key out, and cause a fetch every ${intervalSeconds} s`, async (t) => {
    const provider = await startKeyServer(t, known.publicJwk)
    const service = await build(t, { env: { AUTH_JWKS_URL: provider.url, IDENFY_TIMEOUT_MS: deadline } })
    const otherSigner = await createTokenSigner('ES256', 'x')
    const token = await service.token({}, {}, fresh)
    let isOver = false
    let refused = 0
    const senders = Array.from({ length: 20 }, async (_, lane) => {
      for (let index = 0; !isOver; index++) {
        const madeUp = await service.token({}, { kid: `made-up-${lane}-${index}` }, otherSigner)
        matchProblem(t, await service.mint({ token: madeUp }), 'invalid-token')
        refused += 1
      }
    })
    const startedAt = performance.now()
    const seconds = () => (performance.now() - startedAt) / 1000
    await until(() => refused > 60, '60 refused requests')
    provider.keys = [known.publicJwk, fresh.publicJwk]
    const publishedAt = seconds()
    t.equal((await service.mint({ token })).status, 201)
    t.ok(seconds() - publishedAt < 1.5, 'within the second that a fetch may be away, and some')
    isOver = true
    await Promise.all(senders)
    t.ok(
      provider.fetches.length <= 1 + 5 + Math.ceil(seconds() / intervalSeconds),
      `${provider.fetches.length} in ${seconds()} s`,
    )
  })
}

t.test('one made-up key id, again and again, neither waits nor fetches', async (t) => {
  const { provider, expectEach } = await start(t)
  await expectEach(t, 201, 'known')
  for (let index = 0; index < 50; index++) await expectEach(t, 'invalid-token', 'fresh')
  t.ok(provider.fetches.length <= 6, `${provider.fetches.length} fetches`)
})

t.test('an unknown key is 503, if the fetch that would find it ends too late for the request', async (t) => {
  const { provider, service, expectEach } = await start(t)
  await expectEach(t, 201, 'known')
  const otherSigner = await createTokenSigner('ES256', 'x')
  const madeUp = (kid: string) => service.token({}, { kid }, otherSigner)
  for (const kid of ['a', 'b', 'c', 'd', 'e']) await service.mint({ token: await madeUp(kid) })
  provider.respond = () => {}
  matchProblem(t, await service.mint({ token: await madeUp('f') }), 'auth-keys-unavailable')
})
