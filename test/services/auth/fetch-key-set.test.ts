import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { Agent } from 'undici'
import { fetchKeySet, maxKeySetBytes } from '../../../src/services/auth/fetch-key-set.js'
import { startKeyServer } from '../../key-server.js'

async function setUp(t: Test) {
  const provider = await startKeyServer(t, { kid: 'a' })
  const dispatcher = new Agent({ maxResponseSize: maxKeySetBytes, pipelining: 0 })
  t.teardown(() => dispatcher.destroy())
  return {
    provider,
    fetch: (signal = new AbortController().signal) =>
      fetchKeySet({ url: provider.url, dispatcher, userAgent: 'test/1' }, signal),
    respond: (bytes: Buffer | string, encoding?: string) => {
      provider.respond = (_request, response) => {
        if (encoding !== undefined) response.setHeader('content-encoding', encoding)
        response.end(bytes)
      }
    },
  }
}

t.test('a fetch says who asks', async (t) => {
  const { provider, fetch } = await setUp(t)
  t.equal(await fetch(), '{"keys":[{"kid":"a"}]}')
  t.equal(provider.fetches[0]?.['user-agent'], 'test/1')
})

t.test('a set that comes compressed, although not asked for', async (t) => {
  const { fetch, respond } = await setUp(t)
  const body = '{"keys":["Łódź"]}'
  const rows: [string | undefined, Buffer | string][] = [
    ['gzip', gzipSync(body)],
    ['x-gzip', gzipSync(body)],
    ['X-GZIP', gzipSync(body)],
    ['br', brotliCompressSync(body)],
    ['deflate', deflateSync(body)],
    ['deflate', deflateSync(body, { level: 0 })],
    ['deflate', deflateRawSync(body)],
    ['gzip, br', brotliCompressSync(gzipSync(body))],
    ['gzip,br', brotliCompressSync(gzipSync(body))],
    ['identity', body],
    ['identity', `\ufeff${body}`],
    [undefined, body],
  ]
  for (const [encoding, bytes] of rows) {
    respond(bytes, encoding)
    t.equal(await fetch(), body, encoding ?? 'none')
  }
})

t.test('an encoding that cannot be read is named as the reason', async (t) => {
  const { fetch, respond } = await setUp(t)
  for (const [encoding, bytes] of [
    ['zstd', '{}'],
    ['gzip', '{}'],
    ['br, gzip', brotliCompressSync(gzipSync('{}'))],
  ] as const) {
    respond(bytes, encoding)
    await t.rejects(
      fetch(),
      {
        name: 'KeySetFault',
        code: 'jwks-encoding',
        message: 'an encoding that cannot be read, or too much',
        cause: Error,
      },
      encoding,
    )
  }
})

t.test('a set has at most 64 KiB, before and after decoding', async (t) => {
  const { fetch, respond } = await setUp(t)
  t.equal(maxKeySetBytes, 65_536)
  const most = 'x'.repeat(65_536)
  respond(most)
  t.equal(await fetch(), most)
  respond(`${most}x`)
  await t.rejects(fetch(), { code: 'UND_ERR_RES_EXCEEDED_MAX_SIZE' })
  const codings = { gzip: gzipSync, 'x-gzip': gzipSync, br: brotliCompressSync, deflate: deflateSync }
  for (const [encoding, compress] of Object.entries(codings)) {
    respond(compress(most), encoding)
    t.equal(await fetch(), most, encoding)
    respond(compress(`${most}x`), encoding)
    await t.rejects(fetch(), { code: 'jwks-encoding' }, encoding)
  }
  respond(deflateRawSync(`${most}x`), 'deflate')
  await t.rejects(fetch(), { code: 'jwks-encoding' })
})

t.test('any status but 200 is refused, and its body not waited for', async (t) => {
  const { provider, fetch } = await setUp(t)
  for (const status of [204, 302, 404, 500]) {
    provider.respond = (_request, response) => {
      response.writeHead(status, { location: '/other' })
      if (status === 204) response.end()
      else response.write('and more to come')
    }
    await t.rejects(fetch(), { code: 'jwks-status', message: `status ${status}` })
  }
  t.equal(provider.fetches.length, 4, 'no redirect is followed')
})

t.test('a fetch can be stopped', async (t) => {
  const { provider, fetch } = await setUp(t)
  const controller = new AbortController()
  provider.respond = () => controller.abort(new Error('stopped'))
  await t.rejects(fetch(controller.signal), { message: 'stopped' })
})
