import t from 'tap'
import { build, matchProblem, send, until } from '../helper.js'

t.test('a late event loop sheds requests, while the management listener still responds', async (t) => {
  // No event loop is that punctual: the measurement is above zero after its first sample.
  const service = await build(t, { limits: { eventLoopDelayMs: 0.000001 } })
  let response = await service.mint()
  const isShed = async () => {
    response = await service.mint()
    return response.status !== 201
  }
  await until(isShed, 'a request that is shed')
  matchProblem(t, response, 'overloaded')
  t.equal(response.headers['retry-after'], '2')
  t.equal((await send(`${service.managementUrl}/livez`)).status, 200)
  t.equal((await send(`${service.managementUrl}/readyz`)).status, 200)
})
