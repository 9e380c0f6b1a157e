import type { IncomingMessage } from 'node:http'
import t from 'tap'
import { createClientAddress } from '../../../src/services/http/client-address.js'

const request = (remoteAddress: string | undefined, forwarded?: string) =>
  ({ socket: { remoteAddress }, headers: { 'x-forwarded-for': forwarded } }) as unknown as IncomingMessage

t.test('only listed proxies are trusted', async (t) => {
  const address = createClientAddress(['10.0.0.0/8', '192.0.2.1', 'fd00::/8', '2001:db8::1'])
  for (const proxy of ['10.1.2.3', '192.0.2.1', 'fd00::1', '2001:db8::1', '::ffff:10.1.2.3']) {
    t.ok(address.isFromProxy(request(proxy)), proxy)
    t.equal(address.of(request(proxy, '203.0.113.1')), '203.0.113.1', proxy)
    t.equal(address.of(request(proxy)), proxy, 'that says nothing')
  }
  for (const other of ['11.1.2.3', '192.0.2.2', '2001:db8::2', '::ffff:11.1.2.3', undefined]) {
    t.notOk(address.isFromProxy(request(other)), String(other))
    t.equal(address.of(request(other, '203.0.113.1')), other ?? 'unknown')
  }
})

t.test('the nearest address that is not a proxy', async (t) => {
  const { of } = createClientAddress(['10.0.0.0/8'])
  const rows: [forwarded: string, expected: string][] = [
    ['203.0.113.1, 203.0.113.2', '203.0.113.2'],
    ['203.0.113.1,10.0.0.2 , 10.0.0.3', '203.0.113.1'],
    ['203.0.113.1, [fd00::1]:80, 10.0.0.3:8080', 'fd00::1'],
    ['10.0.0.4, 10.0.0.3', '10.0.0.4'],
    ['203.0.113.1, unknown, 10.0.0.3', '10.0.0.3'],
    ['[2001:db8::1]', '2001:db8::1'],
    ['[2001:db8::1]:443', '2001:db8::1'],
    ['fe80::1%eth0', '10.0.0.1'],
  ]
  for (const [forwarded, expected] of rows) t.equal(of(request('10.0.0.1', forwarded)), expected, forwarded)
})
