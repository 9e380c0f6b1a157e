import { KeyObject } from 'node:crypto'
import { type CryptoKey, exportJWK, generateKeyPair, importJWK, SignJWT } from 'jose'
import t from 'tap'
import { readAccessToken } from '../../src/services/access-token.js'
import { isSignatureOf } from '../../src/services/signature.js'

const algorithms = 'RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA Ed25519'.split(' ')

for (const alg of algorithms) {
  t.test(`${alg}, as signed by another implementation`, async (t) => {
    const { publicKey, privateKey } = await generateKeyPair(alg)
    const text = await new SignJWT({ sub: 'u-1' }).setProtectedHeader({ alg, kid: 'x' }).sign(privateKey)
    const token = readAccessToken(text, { algorithms, types: ['jwt'] })
    const key = KeyObject.from((await importJWK(await exportJWK(publicKey), alg)) as CryptoKey)
    const other = KeyObject.from((await generateKeyPair(alg)).publicKey)
    const signed = Buffer.from(`${token.signed}x`)
    t.equal(isSignatureOf(token, key), true)
    t.equal(isSignatureOf(token, other), false)
    t.equal(isSignatureOf({ ...token, signed }, key), false)
    t.equal(isSignatureOf({ ...token, signature: token.signature.subarray(1) }, key), false)
    t.equal(isSignatureOf({ ...token, signature: Buffer.alloc(token.signature.length) }, key), false)
  })
}

t.test('a scheme of the same key is another scheme', async (t) => {
  const { publicKey, privateKey } = await generateKeyPair('RS256')
  const text = await new SignJWT({}).setProtectedHeader({ alg: 'RS256', kid: 'x' }).sign(privateKey)
  const token = readAccessToken(text, { algorithms, types: ['jwt'] })
  const key = KeyObject.from(publicKey)
  t.equal(isSignatureOf(token, key), true)
  for (const alg of ['RS384', 'RS512', 'PS256', 'PS384', 'PS512']) {
    t.equal(isSignatureOf({ ...token, header: { ...token.header, alg } }, key), false, alg)
  }
})
