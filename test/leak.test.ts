import t from 'tap'
import { apiKey, apiSecret, build, Secrets } from './helper.js'

t.test('the guard of every test finds a secret in any form', async (t) => {
  const secrets = new Secrets()
  const jwt = secrets.add(`${'h'.repeat(50)}.${'p'.repeat(50)}.${'s'.repeat(50)}`)
  secrets.add('token/with+signs')
  const forms = [
    apiKey,
    `x ${apiSecret} y`,
    Buffer.from(`${apiKey}:${apiSecret}`).toString('base64'),
    Buffer.from(apiSecret).toString('base64'),
    Buffer.from(apiSecret).toString('hex'),
    jwt,
    's'.repeat(50),
    'token%2Fwith%2Bsigns',
  ]
  for (const form of forms) t.not(secrets.foundIn(form).length, 0, form)
  t.strictSame(secrets.foundIn('nothing of that kind'), [])
})

t.test('no line of the log gives a secret away, whatever happens', async (t) => {
  const service = await build(t, { env: { IDENFY_TIMEOUT_MS: '300' } })
  const token = await service.token()
  const faults: object[] = [
    {},
    { status: 401, identifier: apiSecret },
    { status: 500, body: `{"identifier":"X","message":"${apiSecret}"}` },
    { status: 201, body: `{"tokenString":"${service.secrets.add('canary-token-string')}", broken` },
    { status: 302, body: token },
    { drop: 'before-headers' },
    { drop: 'mid-body' },
    { delayMs: 1000 },
  ]
  const answers: string[] = []
  for (const fault of faults) {
    await service.setFault({ ...fault, times: 1 })
    const { status, text } = await service.mint({ token })
    if (status !== 201) answers.push(text)
  }
  answers.push((await service.mint({ token: `${token}x` })).text)
  answers.push((await service.mint({ token, body: { [token]: token, locale: apiSecret } })).text)
  answers.push((await service.mint({ token, headers: { 'x-company-id': token } })).text)
  answers.push((await service.mint({ token, headers: { authorization: `Basic ${token}` } })).text)

  const lines = service.log().filter(({ outcome }) => outcome !== undefined)
  t.equal(lines.length, faults.length + 4)
  t.strictSame(service.secrets.foundIn(JSON.stringify(service.log())), [])
  t.strictSame(service.secrets.foundIn(answers.join('\n')), [], 'nor does an error body')
})
