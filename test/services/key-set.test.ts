import { generateKeyPairSync } from 'node:crypto'
import t from 'tap'
import { lintKeySet } from '../../src/services/key-set.js'

function jwk(type: 'rsa' | 'ec' | 'ed25519', options: object, more: object = {}): Record<string, unknown> {
  const { publicKey } = generateKeyPairSync(type as 'rsa', options as { modulusLength: number })
  return { ...publicKey.export({ format: 'jwk' }), ...more }
}

const rsa = jwk('rsa', { modulusLength: 2048 }, { kid: 'rsa', alg: 'RS256', use: 'sig' })
const ec = jwk('ec', { namedCurve: 'P-256' }, { kid: 'ec' })
const ed = jwk('ed25519', {}, { kid: 'ed', alg: 'EdDSA' })
const lint = (...keys: unknown[]) => lintKeySet(JSON.stringify({ keys }))

t.test('sound keys pass', async (t) => {
  t.strictSame((await lint(rsa, ec, ed)).keys, [rsa, ec, ed])
})

t.test('JWT-058 a set with a private or symmetric key is refused as a whole', async (t) => {
  for (const name of ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']) {
    await t.rejects(lint(rsa, { ...ec, [name]: 'AQAB' }), { code: 'jwks-private-key' }, name)
  }
  await t.rejects(lint(rsa, { kty: 'oct', kid: 'x' }), { code: 'jwks-private-key' })
})

t.test('JWT-056, JWT-059 keys that no signature may be trusted to are dropped', async (t) => {
  const bad: [string, object][] = [
    ['RSA of 1024 bits', jwk('rsa', { modulusLength: 1024 }, { kid: 'x' })],
    ['RSA with e = 3', jwk('rsa', { modulusLength: 2048, publicExponent: 3 }, { kid: 'x' })],
    ['RSA with e = 1', { ...rsa, kid: 'x', e: 'AQ' }],
    ['RSA with an even e', { ...rsa, kid: 'x', e: 'AQAC' }],
    ['EC point off its curve', { ...ec, kid: 'x', y: ec.x }],
    ['alg of another curve', { ...jwk('ec', { namedCurve: 'P-384' }), kid: 'x', alg: 'ES256' }],
    ['alg of another type', { ...ec, kid: 'x', alg: 'RS256' }],
    ['symmetric alg', { ...rsa, kid: 'x', alg: 'HS256' }],
    ['unknown alg', { ...rsa, kid: 'x', alg: 'XX' }],
    ['unknown type', { kty: 'XX', kid: 'x' }],
    ['no type', { kid: 'x' }],
    ['for encryption', { ...rsa, kid: 'x', use: 'enc' }],
    ['without id', { ...rsa, kid: undefined }],
    ['with an id that is no text', { ...rsa, kid: 5 }],
  ]
  for (const [name, key] of bad) t.strictSame((await lint(key, ed)).keys, [ed], name)
  await t.rejects(lint(bad[0]?.[1]), { code: 'jwks-no-usable-key' })
})

t.test('a doubled id says nothing', async (t) => {
  t.strictSame((await lint(rsa, { ...ec, kid: 'rsa' }, ed)).keys, [ed])
})

t.test('what is no set', async (t) => {
  await t.rejects(lintKeySet('<html>'), { code: 'jwks-not-json' })
  for (const text of ['[]', 'null', '{}', '{"keys":{}}', '{"keys":[]}', '{"keys":["x"]}']) {
    await t.rejects(lintKeySet(text), { code: 'jwks-form' }, text)
  }
  await t.rejects(lint(...Array.from({ length: 51 }, (_, index) => ({ ...ed, kid: `k${index}` }))), {
    code: 'jwks-form',
  })
})
