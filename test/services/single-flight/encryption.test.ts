import t from 'tap'
import { createStateCipher } from '../../../src/services/single-flight/encryption.js'

const keyOf = (sign: string) => Buffer.alloc(32, sign).toString('base64')
const cipher = createStateCipher([keyOf('a')])

t.test('a text can be read again under its storage key, and under no other one', async (t) => {
  for (const text of ['', 'T0ken', '{"text":"Łódź 😀"}']) {
    const sealed = cipher.encrypt(text, 'place')
    t.equal(cipher.decrypt(sealed, 'place'), text)
    t.equal(cipher.decrypt(sealed, 'other place'), undefined)
    t.equal(cipher.decrypt(sealed, ''), undefined)
  }
})

t.test('a ciphertext shows the id of its key, and nothing of the text', async (t) => {
  const first = cipher.encrypt('T0ken', 'place')
  // The first 8 characters of: printf a%.0s {1..32} | openssl dgst -sha256 -r
  t.match(first, /^3ba3f5f4\.[A-Za-z0-9+/]+=*$/)
  const bytes = Buffer.from(first.split('.')[1] ?? '', 'base64')
  t.equal(bytes.length, 12 + 'T0ken'.length + 16, 'initialization vector, text and tag')
  t.notMatch(bytes.toString('latin1'), 'T0ken')
  const second = cipher.encrypt('T0ken', 'place')
  t.not(second.slice(0, 24), first.slice(0, 24), 'no initialization vector is used twice')
})

t.test('the first key encrypts, and all decrypt', async (t) => {
  const before = createStateCipher([keyOf('a')])
  const during = createStateCipher([keyOf('b'), keyOf('a')])
  const after = createStateCipher([keyOf('b')])
  t.equal(during.decrypt(before.encrypt('old', 'place'), 'place'), 'old')
  t.equal(after.decrypt(during.encrypt('new', 'place'), 'place'), 'new')
  t.equal(after.decrypt(before.encrypt('old', 'place'), 'place'), undefined)
})

t.test('a text that was changed or never encrypted cannot be read', async (t) => {
  const sealed = cipher.encrypt('T0ken', 'place')
  const [id = '', data = ''] = sealed.split('.')
  const bytes = Buffer.from(data, 'base64')
  for (let index = 0; index < bytes.length; index++) {
    const changed = Buffer.from(bytes)
    changed[index] = (changed[index] ?? 0) ^ 1
    t.equal(cipher.decrypt(`${id}.${changed.toString('base64')}`, 'place'), undefined, `byte ${index}`)
  }
  for (const length of [0, 1, 12, 27]) {
    const cut = bytes.subarray(0, length).toString('base64')
    t.equal(cipher.decrypt(`${id}.${cut}`, 'place'), undefined, `${length} bytes`)
  }
  for (const text of ['', '.', 'x', 'x.y', id, `${id}.`, `.${data}`, `00000000.${data}`, data]) {
    t.equal(cipher.decrypt(text, 'place'), undefined, text)
  }
})
