import fc from 'fast-check'
import t, { type Test } from 'tap'
import { created, goodToken, httpResponse, startFaultServer } from '../../fault-server.js'
import { build, createClock, inTime, matchProblem, openSocket, until } from '../../helper.js'

/** The service with replays as by default, and a clock that the test moves. */
async function start(t: Test, env: Record<string, string> = {}) {
  const { clocks, pass } = createClock(Date.parse('2026-11-23T12:00:00Z'))
  const service = await build(t, {
    ...clocks,
    env: { KYB_REPLAY_SECONDS: undefined, ...env },
  })
  return {
    ...service,
    pass,
    posts: async () => (await service.arrived()).length,
  }
}

t.test('identical requests in flight together share one POST', async (t) => {
  const pending: (() => void)[] = []
  const idenfy = await startFaultServer(t, (socket) => pending.push(() => socket.write(created)))
  const service = await start(t, { IDENFY_BASE_URL: idenfy.url, KYB_REPLAY_SECONDS: '0' })
  service.secrets.add(goodToken.tokenString)
  const token = await service.token()
  const seen: number[] = []
  service.app.server.on('request', () => seen.push(1))
  const responses = Promise.all(Array.from({ length: 1000 }, () => service.mint({ token })))
  await until(
    () => seen.length === 1000 && pending.length > 0,
    '1000 requests to arrive and one POST to reach iDenfy',
  )
  pending[0]?.()
  t.strictSame([...new Set((await responses).map(({ status }) => status))], [201])
  t.equal(idenfy.arrivals.length, 1)
  const metrics = await service.metrics()
  t.match(metrics, 'kyb_tokens_total{origin="minted"} 1\n')
  t.match(metrics, 'kyb_tokens_total{origin="shared"} 999\n')

  const later = service.mint({ token })
  await until(() => pending.length === 2, 'the second POST to reach iDenfy')
  pending[1]?.()
  t.equal((await later).status, 201, 'and one that comes later, with replays off, has its own')
})

t.test('a success is replayed to identical requests for a while', async (t) => {
  const service = await start(t)
  const first = await service.mint()
  t.equal(first.json.expiresIn, 3600)
  service.pass(29)
  const again = await service.mint()
  t.strictSame(again.json, { ...first.json, expiresIn: 3571 })
  t.equal(again.status, 201)
  t.equal(again.headers['idempotency-replayed'], undefined, 'that is for keys')
  t.equal(await service.posts(), 1)
  t.match(await service.metrics(), 'kyb_tokens_total{origin="replayed"} 1\n')

  service.pass(2)
  t.not((await service.mint()).json.tokenString, first.json.tokenString)
  t.equal(await service.posts(), 2)
})

t.test('a token that is about to expire is not replayed', async (t) => {
  const policy = JSON.stringify({ session: { lifetime: 60 } })
  const service = await start(t, {
    KYB_REPLAY_SECONDS: '3600',
    KYB_POLICY_FILE: `${t.testdir({ 'policy.json': policy })}/policy.json`,
  })
  const first = await service.mint()
  service.pass(29)
  t.equal((await service.mint()).json.tokenString, first.json.tokenString)
  service.pass(2)
  t.not((await service.mint()).json.tokenString, first.json.tokenString)
  t.equal(await service.posts(), 2)
})

t.test('requests of different companies, users or sessions share no result', async (t) => {
  const service = await start(t)
  const open = { company_id: ['acme', 'globex', 'a', 'acmeu'], sub: ['u-1', 'u-2', '1', 'u-1acme'] }
  const tokens = new Map<string, string>()
  const known = new Map<string, string>()
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...open.company_id),
      fc.constantFrom(...open.sub),
      fc.constantFrom(undefined, 'lt', 'en'),
      async (company_id, sub, locale) => {
        const caller = JSON.stringify([company_id, sub])
        const token = tokens.get(caller) ?? (await service.token({ company_id, sub }))
        tokens.set(caller, token)
        const { json } = await service.mint({ token, body: { ...(locale && { locale }) } })
        if (json.clientId !== company_id || json.externalRef !== sub || json.locale !== (locale ?? null)) {
          throw new Error("another one's token")
        }
        const request = JSON.stringify([company_id, sub, locale])
        if ((known.get(request) ?? json.tokenString) !== json.tokenString)
          throw new Error('not the same token')
        known.set(request, json.tokenString)
      },
    ),
    { numRuns: 300 },
  )
  t.equal(new Set(known.values()).size, known.size, 'every request its own token')
  t.equal(await service.posts(), known.size)
})

t.test('a failure is shared by those in flight together, and not kept if it opened nothing', async (t) => {
  const service = await start(t)
  await service.setFault({ status: 402, delayMs: 200, times: 1 })
  const token = await service.token()
  const responses = await Promise.all(Array.from({ length: 5 }, () => service.mint({ token })))
  for (const response of responses) matchProblem(t, response, 'provider-rejected', { outcome: 'not-created' })
  t.equal(new Set(responses.map(({ json }) => json.requestId)).size, 5, 'each has its own request id')
  t.equal(await service.posts(), 1)
  t.equal((await service.mint()).status, 201)
  t.equal(await service.posts(), 2)
})

t.test('an unknown outcome is replayed to identical requests for five seconds', async (t) => {
  const service = await start(t)
  await service.setFault({ status: 500, delayMs: 200, times: 1 })
  const token = await service.token()
  const responses = await Promise.all(Array.from({ length: 5 }, () => service.mint({ token })))
  service.pass(4)
  for (const response of [...responses, await service.mint()]) {
    matchProblem(t, response, 'provider-outcome-unknown', { outcome: 'unknown' })
    t.equal(response.headers['retry-after'], undefined)
  }
  t.equal(await service.posts(), 1)
  const reasons = service.log('provider-outcome-unknown').map(({ reason }) => reason)
  t.equal(
    reasons.filter((reason) => reason === 'shared-result').length,
    5,
    'the log tells the one that was sent',
  )
  service.pass(2)
  t.equal((await service.mint()).status, 201)
  t.equal(await service.posts(), 2)
})

t.test('a client that disconnects does not stop a POST, and gets the token later', async (t) => {
  let release = () => {}
  const idenfy = await startFaultServer(t, (socket) => {
    release = () => socket.write(created)
  })
  const service = await start(t, { IDENFY_BASE_URL: idenfy.url })
  service.secrets.add(goodToken.tokenString)
  const token = await service.token()
  const { socket, received } = openSocket(service.url)
  socket.write(`POST /onboarding/kyb-token HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\n\r\n`)
  await until(() => idenfy.arrivals.length === 1, 'the POST to reach iDenfy')
  socket.destroy()
  await received()
  await until(
    () => service.log('client-closed').length > 0,
    'the access line of the client that disconnected',
  )

  const later = service.mint({ token })
  release()
  t.equal((await later).status, 201)
  t.equal(idenfy.arrivals.length, 1)
  t.match(service.log('client-closed'), [{ level: 'info', method: 'POST', company: 'acme', msg: 'request' }])
})

t.test('closing waits for a POST whose client has disconnected', async (t) => {
  const idenfy = await startFaultServer(t, (socket) => {
    disconnected.destroy()
    void service.app.close().then(() => closed.push('app'))
    setImmediate(() => {
      closed.push('response')
      socket.write(created)
    })
  })
  const closed: string[] = []
  const service = await start(t, { IDENFY_BASE_URL: idenfy.url })
  const { socket: disconnected, received } = openSocket(service.url)
  disconnected.write(
    `POST /onboarding/kyb-token HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${await service.token()}\r\n\r\n`,
  )
  await received()
  await inTime(service.app.close(), 'the service to close')
  t.strictSame(closed, ['response', 'app'])
  t.match(await service.metrics(), 'idenfy_requests_total{outcome="success"} 1')
})

t.test(
  'a limited number of POSTs run, as many wait for half a second, and the others are shed',
  async (t) => {
    const pending: (() => void)[] = []
    const idenfy = await startFaultServer(t, (socket) => pending.push(() => socket.write(created)))
    const service = await start(t, { IDENFY_BASE_URL: idenfy.url, IDENFY_MAX_IN_FLIGHT: '2' })
    service.secrets.add(goodToken.tokenString)
    const settled: string[] = []
    const mint = async (sub: string) => {
      const response = await service.mint({ token: await service.token({ sub }) })
      settled.push(sub)
      return response
    }

    const running = [mint('u-1'), mint('u-2')]
    await until(() => pending.length === 2, 'two POSTs to reach iDenfy')
    const waiting = [mint('u-3'), mint('u-4')]
    await until(async () => /idenfy_waiting 2/.test(await service.metrics()), 'two requests in the queue')
    const shed = await mint('u-5')
    matchProblem(t, shed, 'overloaded')
    t.equal(shed.headers['retry-after'], '2')
    t.strictSame(settled, ['u-5'], 'at once')
    t.match(await service.metrics(), 'idenfy_in_flight 2\n')

    pending[0]?.()
    await until(() => pending.length === 3, 'the third POST to reach iDenfy')
    pending[2]?.()
    pending[1]?.()
    for (const response of await Promise.all(running)) t.equal(response.status, 201)
    await until(() => pending.length === 4, 'the fourth POST to reach iDenfy')
    pending[3]?.()
    for (const response of await Promise.all(waiting)) t.equal(response.status, 201)

    const more = [mint('u-6'), mint('u-7')]
    await until(() => pending.length === 6, 'the sixth POST to reach iDenfy')
    matchProblem(t, await mint('u-8'), 'overloaded')
    pending[4]?.()
    pending[5]?.()
    for (const response of await Promise.all(more)) t.equal(response.status, 201)
    t.equal(idenfy.arrivals.length, 6, 'what was shed never came')
  },
)

t.test('members that iDenfy does not document are not kept', async (t) => {
  const idenfy = await startFaultServer(t, httpResponse('201 Created', { ...goodToken, canary: 'canary' }))
  const service = await start(t, { IDENFY_BASE_URL: idenfy.url })
  service.secrets.add(goodToken.tokenString)
  t.notMatch((await service.mint()).text, 'canary')
})
