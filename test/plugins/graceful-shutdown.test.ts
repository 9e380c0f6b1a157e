import { once } from 'node:events'
import t from 'tap'
import { build, type HttpResponse, inTime, matchProblem, openSocket, send } from '../helper.js'

t.test('a server that closes sends new requests elsewhere', async (t) => {
  const late: { mint?: HttpResponse; ready?: HttpResponse; live?: HttpResponse } = {}
  const service = await build(t, {
    prepare: (app) => {
      // Runs while the server closes but still accepts.
      app.addHook('preClose', async () => {
        late.mint = await service.mint()
        late.ready = await send(`${service.managementUrl}/readyz`)
        late.live = await send(`${service.managementUrl}/livez`)
      })
    },
  })
  t.equal((await send(`${service.managementUrl}/readyz`)).status, 200)
  await inTime(service.app.close(), 'the service to close')

  matchProblem(t, late.mint as HttpResponse, 'draining')
  t.equal(late.mint?.headers['retry-after'], '1')
  t.equal(late.mint?.headers.connection, 'close')
  matchProblem(t, late.ready as HttpResponse, 'draining')
  t.equal(late.live?.status, 200)
  t.strictSame(await service.arrived(), [])
})

t.test('a request in flight is finished', async (t) => {
  const service = await build(t)
  const { socket, received } = openSocket(service.url)
  const begun = once(service.app.server, 'request')
  socket.write(
    [
      'POST /onboarding/kyb-token HTTP/1.1',
      'Host: a',
      `Authorization: Bearer ${await service.token()}`,
      'Content-Type: application/json',
      'Content-Length: 2\r\n\r\n',
    ].join('\r\n'),
  )
  await inTime(begun, 'the request to arrive')
  const closed = service.app.close()
  socket.write('{}')
  const response = await received()
  t.match(response, /^HTTP\/1\.1 201 /)
  t.match(response, /\r\nconnection: close\r\n/)
  await inTime(closed, 'the service to close')
})
