import { generateKeyPairSync } from 'node:crypto'
import t from 'tap'
import { lintKeySet } from '../../../src/services/auth/key-set.js'

function jwk(type: 'rsa' | 'ec' | 'ed25519', options: object, more: object = {}): Record<string, unknown> {
  const { publicKey } = generateKeyPairSync(type as 'rsa', options as { modulusLength: number })
  return { ...publicKey.export({ format: 'jwk' }), ...more }
}

const rsa = jwk('rsa', { modulusLength: 2048 }, { kid: 'rsa', alg: 'RS256' })
const ec = jwk('ec', { namedCurve: 'P-256' }, { kid: 'ec' })
const ed = jwk('ed25519', {}, { kid: 'ed', alg: 'EdDSA' })
const algorithms = ['RS256', 'PS256', 'ES256', 'EdDSA']
const lint = (...keys: unknown[]) => lintKeySet(JSON.stringify({ keys }), algorithms)

t.test('sound keys pass, without what is not needed', async (t) => {
  const more = {
    use: 'sig',
    key_ops: ['sign', 'verify'],
    ext: 'x',
    x5c: ['MIIB'],
    x5t: 'x',
    d: null,
    oth: null,
    k: null,
  }
  t.strictSame(await lint({ ...rsa, ...more }, { ...ec, use: null, alg: null, key_ops: null }, ed), {
    keys: [rsa, ec, ed],
    ignored: [],
  })
})

t.test('a set with a private or symmetric key is refused as a whole', async (t) => {
  for (const name of ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv']) {
    await t.rejects(lint(rsa, { ...ec, [name]: 'AQAB' }), { code: 'jwks-private-key' }, name)
  }
  await t.rejects(lint(rsa, { ...ec, use: 'enc', d: '' }), { code: 'jwks-private-key' })
  await t.rejects(lint(rsa, { kty: 'oct', kid: 'x' }), { code: 'jwks-private-key' })
})

t.test('a member that cannot be used is skipped, with the reason', async (t) => {
  const p384 = { ...jwk('ec', { namedCurve: 'P-384' }), kid: 'x' }
  const rows: [string, string, unknown][] = [
    ['null', 'not-an-object', null],
    ['a number', 'not-an-object', 5],
    ['a text', 'not-an-object', 'x'],
    ['a list', 'not-an-object', []],
    ['an id that is no text', 'kid', { ...rsa, kid: 5 }],
    ['for encryption', 'use', { ...rsa, kid: 'x', use: 'enc' }],
    ['for something else', 'use', { ...rsa, kid: 'x', use: 5 }],
    ['operations without verify', 'key-ops', { ...rsa, kid: 'x', key_ops: ['encrypt', 'wrapKey'] }],
    ['operations that are no list', 'key-ops', { ...rsa, kid: 'x', key_ops: 'verify' }],
    ['RSA of 1024 bits', 'weak', jwk('rsa', { modulusLength: 1024 }, { kid: 'x' })],
    ['RSA with e = 3', 'weak', jwk('rsa', { modulusLength: 2048, publicExponent: 3 }, { kid: 'x' })],
    ['RSA with e = 1', 'weak', { ...rsa, kid: 'x', e: 'AQ' }],
    ['RSA with an even e', 'weak', { ...rsa, kid: 'x', e: 'AQAC' }],
    ['RSA that is too long to be checked', 'weak', { ...rsa, kid: 'x', n: `w${'A'.repeat(2799)}` }],
    ['RSA without e', 'algorithm', { ...rsa, kid: 'x', e: undefined }],
    ['EC point off its curve', 'algorithm', { ...ec, kid: 'x', y: ec.x }],
    ['a curve of an algorithm that is not accepted', 'algorithm', p384],
    ['alg of another curve', 'algorithm', { ...p384, alg: 'ES256' }],
    ['alg of another type', 'algorithm', { ...ec, kid: 'x', alg: 'RS256' }],
    ['alg that is not accepted', 'algorithm', { ...rsa, kid: 'x', alg: 'RS512' }],
    ['alg of encryption', 'algorithm', { ...rsa, kid: 'x', alg: 'RSA-OAEP' }],
    ['symmetric alg', 'algorithm', { ...rsa, kid: 'x', alg: 'HS256' }],
    ['unknown alg', 'algorithm', { ...rsa, kid: 'x', alg: 'XX' }],
    ['Ed448', 'algorithm', { kty: 'OKP', crv: 'Ed448', kid: 'x', x: 'A'.repeat(76) }],
    ['X25519', 'algorithm', { kty: 'OKP', crv: 'X25519', kid: 'x', x: 'A'.repeat(43) }],
    ['unknown type', 'algorithm', { kty: 'AKP', alg: 'ML-DSA-44', kid: 'x', pub: 'AAAA' }],
    ['no type', 'algorithm', { kid: 'x' }],
  ]
  for (const [name, reason, member] of rows) {
    const { keys, ignored } = await lint(member, ed)
    t.strictSame(keys, [ed], name)
    t.match(ignored, [{ reason }], name)
    await t.rejects(lint(member), { code: 'jwks-no-usable-key', ignored: [{ reason }] }, name)
  }
})

t.test('no more of a key than the beginning of its id is told', async (t) => {
  const { ignored } = await lint(ed, { ...rsa, kid: 'k'.repeat(1000), use: 'enc' })
  t.strictSame(ignored, [{ kid: 'k'.repeat(64), reason: 'use' }])
})

t.test('two keys with one id', async (t) => {
  const otherRsa = jwk('rsa', { modulusLength: 2048 }, { kid: 'rsa', alg: 'RS256' })
  const named = (member: object) => ({ ...member, kid: 'rsa' })
  const forEncryption = [{ use: 'enc' }, { alg: 'RSA-OAEP' }, { key_ops: ['wrapKey'] }]
  for (const change of forEncryption) {
    t.strictSame((await lint({ ...otherRsa, ...change }, rsa)).keys, [rsa], JSON.stringify(change))
  }
  t.strictSame((await lint(rsa, named(ec))).keys, [rsa, named(ec)], 'the algorithm tells them apart')
  t.strictSame((await lint(rsa, rsa)).keys, [rsa], 'the same key twice')
  t.strictSame(
    (await lint({ ...rsa, alg: undefined }, ed, otherRsa)).keys,
    [ed],
    'one shared algorithm is enough',
  )
  const { keys, ignored } = await lint(rsa, ed, otherRsa)
  t.strictSame(keys, [ed], 'a token could mean either, so it means neither')
  t.strictSame(ignored, [
    { kid: 'rsa', reason: 'duplicate-kid' },
    { kid: 'rsa', reason: 'duplicate-kid' },
  ])
})

t.test('keys without an id, and many keys', async (t) => {
  const anonymous = { ...ec, kid: undefined }
  t.match((await lint(anonymous, rsa)).keys, [{ x: ec.x }, rsa])
  const many = Array.from({ length: 200 }, (_, index) => ({ ...ed, kid: `k${index}` }))
  t.equal((await lint(...many)).keys.length, 200)
})

t.test('a key of RSA has between 2048 and 16,384 bits, and an exponent that is in use', async (t) => {
  const ofBits = (bits: number) => {
    const n = Buffer.alloc(Math.ceil(bits / 8), 0xff)
    n[0] = 0xff >> ((8 - (bits % 8)) % 8)
    return { ...rsa, kid: 'x', n: n.toString('base64url') }
  }
  for (const key of [ofBits(2048), ofBits(16_384), { ...rsa, e: 'AQAD' }]) {
    t.strictSame((await lint(key)).ignored, [])
  }
  for (const key of [ofBits(2047), ofBits(16_385), { ...rsa, kid: 'x', e: '__8' }]) {
    t.strictSame((await lint(key, ed)).ignored, [{ kid: 'x', reason: 'weak' }])
  }
})

t.test('a document that is not a key set is refused, and the fault says what it is instead', async (t) => {
  const rows: [text: string, code: string, message: string][] = [
    ['', 'jwks-not-json', 'nothing'],
    [' \n', 'jwks-not-json', 'nothing'],
    ['<html>', 'jwks-not-json', 'HTML or XML'],
    [' \n<?xml', 'jwks-not-json', 'HTML or XML'],
    ['{ <html>', 'jwks-not-json', 'text that is not JSON'],
    [
      '{"issuer":"x","jwks_uri":"https://idp.example/keys"}',
      'jwks-form',
      'a discovery document: set AUTH_JWKS_URL to its jwks_uri',
    ],
    ...['[]', 'null', '5', '{}', '{"keys":{}}', '{"keys":null}'].map((text): [string, string, string] => [
      text,
      'jwks-form',
      'JSON without a list of keys',
    ]),
    ['{"keys":[]}', 'jwks-form', 'an empty list of keys'],
    ['{"keys":[{"kty":"oct"}]}', 'jwks-private-key', 'a private or symmetric key'],
    ['{"keys":[{}]}', 'jwks-no-usable-key', 'no key that fits'],
  ]
  for (const [text, code, message] of rows) {
    await t.rejects(lintKeySet(text, algorithms), { name: 'KeySetFault', code, message }, text)
  }
})
