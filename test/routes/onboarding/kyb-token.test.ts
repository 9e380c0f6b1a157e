import t, { type Test } from 'tap'
import { build, matchProblem, send } from '../../helper.js'

const uuid = '7b1d8a1e-6c1b-4d53-9d3a-0c5a3f2e9a10'
const otherUuid = '0f9f6f0e-1111-4222-8333-444455556666'

function policyFile(t: Test, policy: object): string {
  return `${t.testdir({ 'policy.json': JSON.stringify(policy) })}/policy.json`
}

t.test('a signed-in user gets a token with the URL to open', async (t) => {
  const now = Date.parse('2026-11-23T12:00:00.500Z')
  const service = await build(t, { now: () => now })
  const response = await service.mint()

  t.equal(response.status, 201)
  t.equal(response.headers['cache-control'], 'no-store')
  t.match(response.headers['content-type'], /^application\/json/)
  const { tokenString, companyId } = response.json
  t.match(tokenString, /^[0-9a-f]{40}$/)
  t.match(companyId, /^[0-9a-f-]{36}$/)
  t.strictSame(response.json, {
    tokenType: 'FORM',
    tokenString,
    expiration: '2026-11-23T13:00:00.500Z',
    expiresIn: 3600,
    isValid: true,
    companyId,
    clientId: 'acme',
    externalRef: 'u-1',
    redirectUrl: `https://kyb.ui.idenfy.com/welcome?authToken=${tokenString}`,
    locale: null,
  })
  t.strictSame(await service.arrived(), [
    { tokenType: 'FORM', clientId: 'acme', externalRef: 'u-1', lifetime: 3600 },
  ])
  const info = await send(`${service.idenfyUrl}/kyb/info/`, {
    headers: { authorization: `Bearer ${tokenString}` },
  })
  t.equal(info.status, 200, 'the token works at iDenfy')
})

t.test('the UI URL of an account keeps its own query', async (t) => {
  const service = await build(t, { env: { IDENFY_UI_URL: 'https://verify.acme.example/start?brand=acme' } })
  const { json } = await service.mint()
  t.equal(json.redirectUrl, `https://verify.acme.example/start?brand=acme&authToken=${json.tokenString}`)
})

t.test('a caller may choose what policy opens', async (t) => {
  const chosen = {
    lifetime: 7200,
    locale: 'lt',
    flow: uuid,
    theme: otherUuid,
    questionnaireRequired: false,
    tags: ['portal', 'vip'],
    scanRefs: ['scan-1'],
  }
  const open = Object.fromEntries(
    [...Object.keys(chosen), 'questionnaire'].map((property) => [property, true]),
  )
  const service = await build(t, { env: { KYB_POLICY_FILE: policyFile(t, { callerMaySet: open }) } })

  await t.test('and gets it', async (t) => {
    const { status, json } = await service.mint({ body: chosen })
    t.equal(status, 201)
    t.strictSame((await service.arrived()).at(-1), {
      tokenType: 'FORM',
      clientId: 'acme',
      externalRef: 'u-1',
      ...chosen,
    })
    const { locale, flow, theme, tags, scanRefs } = chosen
    t.match(json, { locale, flow, theme, tags, scanRefs })
    t.notOk('lifetime' in json)
  })

  await t.test('but no questionnaire next to a flow: iDenfy would ignore it', async (t) => {
    const before = (await service.arrived()).length
    const both = { flow: uuid, questionnaire: 'q-1' }
    matchProblem(t, await service.mint({ body: both }), 'validation-failed', {
      errors: [{ pointer: '/questionnaire', code: 'excluded-by-flow' }],
    })
    t.equal((await service.arrived()).length, before)
    const { status, json } = await service.mint({ body: { questionnaire: 'q-1' } })
    t.equal(status, 201)
    t.notOk('questionnaire' in json, 'which the response does not have')
    t.match((await service.arrived()).at(-1), { questionnaire: 'q-1' })
  })

  await t.test('nulls are values of their own', async (t) => {
    const nulls = { locale: null, flow: null, theme: null, questionnaire: null, scanRefs: null }
    t.equal((await service.mint({ body: nulls })).status, 201)
    const { locale: _, ...sent } = nulls
    t.match((await service.arrived()).at(-1), sent)
    t.notOk(
      'locale' in ((await service.arrived()).at(-1) ?? {}),
      'but for the locale, which iDenfy would refuse',
    )
  })

  const faults: [string, object, { pointer: string; code: string }[]][] = [
    ['lifetime under a minute', { lifetime: 0 }, [{ pointer: '/lifetime', code: 'too-small' }]],
    ['lifetime over 30 days', { lifetime: 2_592_001 }, [{ pointer: '/lifetime', code: 'too-large' }]],
    ['lifetime as text', { lifetime: '3600' }, [{ pointer: '/lifetime', code: 'wrong-type' }]],
    ['lifetime with a fraction', { lifetime: 60.5 }, [{ pointer: '/lifetime', code: 'wrong-type' }]],
    ['unknown locale', { locale: 'xx' }, [{ pointer: '/locale', code: 'not-a-choice' }]],
    ['locale in another case', { locale: 'EN' }, [{ pointer: '/locale', code: 'not-a-choice' }]],
    ['locale that is no text', { locale: 1 }, [{ pointer: '/locale', code: 'wrong-type' }]],
    ['flow that is no UUID', { flow: 'x' }, [{ pointer: '/flow', code: 'wrong-format' }]],
    ['flow as URN', { flow: `urn:uuid:${uuid}` }, [{ pointer: '/flow', code: 'wrong-format' }]],
    ['theme as a list', { theme: [uuid] }, [{ pointer: '/theme', code: 'wrong-type' }]],
    ['empty questionnaire', { questionnaire: '' }, [{ pointer: '/questionnaire', code: 'too-short' }]],
    [
      'questionnaireRequired as text',
      { questionnaireRequired: 'true' },
      [{ pointer: '/questionnaireRequired', code: 'wrong-type' }],
    ],
    [
      'nothing but an emoji is fine, its half is not',
      { tags: ['\u{1F600}', '\ud83d'] },
      [{ pointer: '/tags/1', code: 'wrong-format' }],
    ],
    ['tags null', { tags: null }, [{ pointer: '/tags', code: 'wrong-type' }]],
    ['six tags', { tags: ['1', '2', '3', '4', '5', '6'] }, [{ pointer: '/tags', code: 'too-many' }]],
    ['tag with a comma', { tags: ['a', 'b,c'] }, [{ pointer: '/tags/1', code: 'wrong-format' }]],
    ['long tag', { tags: ['x'.repeat(33)] }, [{ pointer: '/tags/0', code: 'too-long' }]],
    ['empty scanRef', { scanRefs: [''] }, [{ pointer: '/scanRefs/0', code: 'too-short' }]],
    ['long scanRef', { scanRefs: ['x'.repeat(41)] }, [{ pointer: '/scanRefs/0', code: 'too-long' }]],
    ['unknown property', { colour: 'red' }, [{ pointer: '/colour', code: 'unknown-property' }]],
    ['hostile property name', { '<script>': 1 }, [{ pointer: '', code: 'unknown-property' }]],
    [
      'every fault at once',
      { lifetime: 1, locale: 'xx', companyId: 'evil' },
      [
        { pointer: '/companyId', code: 'unknown-property' },
        { pointer: '/lifetime', code: 'too-small' },
        { pointer: '/locale', code: 'not-a-choice' },
      ],
    ],
  ]
  for (const [name, body, errors] of faults) {
    await t.test(`400: ${name}`, async (t) => {
      const before = (await service.arrived()).length
      matchProblem(t, await service.mint({ body }), 'validation-failed', { errors })
      t.equal((await service.arrived()).length, before, 'nothing reaches iDenfy')
    })
  }
})

t.test('by default a caller may choose the locale alone', async (t) => {
  const service = await build(t)
  matchProblem(
    t,
    await service.mint({ body: { locale: 'lt', flow: uuid, tags: ['a'] } }),
    'field-not-permitted',
    {
      errors: [
        { pointer: '/flow', code: 'not-permitted' },
        { pointer: '/tags', code: 'not-permitted' },
      ],
    },
  )
  t.strictSame(await service.arrived(), [])
  const { status, json } = await service.mint({ body: { locale: 'lt' } })
  t.equal(status, 201)
  t.equal(json.locale, 'lt')
})

t.test("a company's policy is its own, and what the caller may not set it may not read", async (t) => {
  const KYB_POLICY_FILE = policyFile(t, {
    session: { lifetime: 1800, tags: ['portal', 'high-risk'] },
    companies: { acme: { session: { flow: uuid }, callerMaySet: { flow: [uuid], tags: ['portal'] } } },
  })
  const service = await build(t, { env: { KYB_POLICY_FILE } })

  const acme = await service.mint()
  t.strictSame([acme.json.flow, acme.json.tags], [uuid, ['portal']])
  const globex = await service.mint({ token: await service.token({ company_id: 'globex' }) })
  t.notOk('flow' in globex.json)
  t.notMatch(globex.text, /high-risk/)

  t.strictSame(await service.arrived(), [
    {
      tokenType: 'FORM',
      clientId: 'acme',
      externalRef: 'u-1',
      lifetime: 1800,
      tags: ['portal', 'high-risk'],
      flow: uuid,
    },
    {
      tokenType: 'FORM',
      clientId: 'globex',
      externalRef: 'u-1',
      lifetime: 1800,
      tags: ['portal', 'high-risk'],
    },
  ])
  matchProblem(t, await service.mint({ body: { flow: otherUuid } }), 'field-not-permitted', {
    errors: [{ pointer: '/flow', code: 'value-not-permitted' }],
  })
})

t.test('a body is a JSON object or nothing', async (t) => {
  const service = await build(t)
  const post = async (body: string | undefined, headers: Record<string, string>) =>
    send(`${service.url}/onboarding/kyb-token`, {
      method: 'POST',
      ...(body !== undefined && { body }),
      headers: { authorization: `Bearer ${await service.token()}`, ...headers },
    })
  const json = { 'content-type': 'application/json' }

  t.equal((await post(undefined, {})).status, 201)
  t.equal((await post('{}', json)).status, 201)
  t.equal((await post('{}', { 'content-type': 'application/json; charset=utf-8' })).status, 201)
  const minted = (await service.arrived()).length

  for (const text of ['[]', 'null', '"a"', '1', 'true']) {
    await t.test(`${text} is none`, async (t) => {
      matchProblem(t, await post(text, json), 'validation-failed', {
        errors: [{ pointer: '', code: 'wrong-type' }],
      })
    })
  }
  for (const text of ['', '{', '{"locale":}', '{"__proto__":{}}', '{"constructor":{"prototype":{}}}']) {
    await t.test(`${text || 'nothing, called JSON,'} is malformed`, async (t) => {
      matchProblem(t, await post(text, json), 'malformed-request')
    })
  }
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/xml', 'json']) {
    await t.test(`${type} is not supported`, async (t) => {
      matchProblem(t, await post('{}', { 'content-type': type }), 'unsupported-media-type')
    })
  }
  await t.test('4096 bytes are taken, 4097 are not', async (t) => {
    const bodyOf = (length: number) => `{}${' '.repeat(length - 2)}`
    t.equal((await post(bodyOf(4096), json)).status, 201)
    matchProblem(t, await post(bodyOf(4097), json), 'payload-too-large')
  })
  t.equal((await service.arrived()).length, minted + 1, 'nothing that failed reached iDenfy')
})

t.test('no spelling of header or body mints for another company', async (t) => {
  const service = await build(t, {
    env: { KYB_POLICY_FILE: policyFile(t, { callerMaySet: { locale: true, tags: true } }) },
  })
  const names = [
    'companyId',
    'company_id',
    'company',
    'clientId',
    'client_id',
    'externalRef',
    'tokenType',
    'CLIENTID',
  ]
  for (const name of names) {
    await t.test(`body ${name}`, async (t) => {
      matchProblem(t, await service.mint({ body: { [name]: 'globex' } }), 'validation-failed', {
        errors: [{ pointer: `/${name}`, code: 'unknown-property' }],
      })
    })
  }
  for (const value of ['globex', 'ACME', 'acme,globex', 'acme globex', '', '*', 'acme/']) {
    await t.test(`X-Company-Id ${JSON.stringify(value)}`, async (t) => {
      matchProblem(t, await service.mint({ headers: { 'x-company-id': value } }), 'company-not-allowed')
    })
  }
  await t.test('X-Company-Id twice', async (t) => {
    const headers = { 'x-company-id': ['acme', 'globex'] }
    matchProblem(t, await service.mint({ headers }), 'malformed-request')
  })
  t.strictSame(await service.arrived(), [])

  for (const name of ['client-id', 'company_id', 'x-client-id']) {
    const { json } = await service.mint({ headers: { [name]: 'globex' } })
    t.equal(json.clientId, 'acme', `${name} changes nothing`)
  }
})

t.test('companies at the same time do not mix', async (t) => {
  const service = await build(t)
  const companies = Array.from({ length: 10 }, (_, index) => `company-${index}`)
  const tokens = await Promise.all(
    companies.map((company_id) => service.token({ company_id, sub: `of-${company_id}` })),
  )
  await service.setFault({ delayMs: 5 })
  const minted = await Promise.all(
    Array.from({ length: 200 }, async (_, index) => {
      const { json } = await service.mint({ token: String(tokens[index % 10]) })
      return [json.clientId, json.externalRef]
    }),
  )
  t.strictSame(
    minted,
    Array.from({ length: 200 }, (_, index) => [`company-${index % 10}`, `of-company-${index % 10}`]),
  )
  const arrived = await service.arrived()
  t.ok(arrived.length <= 200, 'identical requests may share a POST')
  t.strictSame(new Set(arrived.map(({ clientId }) => clientId)), new Set(companies))
})

t.test('a user of several companies picks one', async (t) => {
  const service = await build(t)
  const token = await service.token({ company_id: ['acme', 'globex'] })
  t.equal((await service.mint({ token, headers: { 'x-company-id': 'globex' } })).json.clientId, 'globex')
  t.equal((await service.mint({ token, headers: { 'X-COMPANY-ID': 'acme' } })).json.clientId, 'acme')
  matchProblem(t, await service.mint({ token }), 'company-required', { companyIds: ['acme', 'globex'] })
  matchProblem(
    t,
    await service.mint({ token, headers: { 'x-company-id': 'initech' } }),
    'company-not-allowed',
  )
})

t.test('an identity that iDenfy cannot take is refused, never cut', async (t) => {
  const service = await build(t)
  matchProblem(
    t,
    await service.mint({ token: await service.token({ sub: 'u'.repeat(41) }) }),
    'identity-not-mappable',
  )
  matchProblem(t, await service.mint({ token: await service.token({ sub: 'u:1' }) }), 'identity-not-mappable')
  t.strictSame(await service.arrived(), [])
  t.equal((await service.mint({ token: await service.token({ sub: 'u'.repeat(40) }) })).status, 201)
})

t.test('templates with hashes keep the ids from iDenfy', async (t) => {
  const service = await build(t, {
    env: {
      KYB_CLIENT_ID: 'prod:{companyHash}',
      KYB_EXTERNAL_REF: '{userHash}',
      KYB_IDENTITY_KEY: 'k'.repeat(32),
    },
  })
  const { json } = await service.mint()
  t.match(json.clientId, /^prod:[A-Za-z0-9_-]{22}$/)
  t.match(json.externalRef, /^[A-Za-z0-9_-]{22}$/)
  t.equal((await service.mint()).json.clientId, json.clientId, 'the same at every time')
})

t.test('a refusal or a failure of iDenfy becomes a problem of this service', async (t) => {
  const service = await build(t, { env: { IDENFY_TIMEOUT_MS: '300' } })
  const cases: [
    string,
    object,
    Parameters<typeof matchProblem>[2],
    'not-created' | 'unknown' | undefined,
    string?,
  ][] = [
    ['credentials', { status: 401, identifier: 'UNAUTHORIZED' }, 'provider-rejected', 'not-created'],
    ['contract', { status: 403 }, 'provider-rejected', 'not-created'],
    ['funds', { status: 402 }, 'provider-rejected', 'not-created'],
    ['our request', { status: 400, identifier: 'BAD_VALUE' }, 'provider-rejected', 'not-created'],
    ['active session', { status: 409 }, 'kyb-session-conflict', undefined],
    ['rate limit', { status: 429 }, 'provider-rate-limited', 'not-created', '30'],
    ['server error', { status: 500, identifier: 'INTERNAL_ERROR' }, 'provider-outcome-unknown', 'unknown'],
    ['redirect', { status: 302 }, 'provider-bad-response', 'unknown'],
    ['no token', { body: { tokenType: 'FORM' } }, 'provider-bad-response', 'unknown'],
    ['not JSON', { body: '<html>' }, 'provider-bad-response', 'unknown'],
    ['reset', { drop: 'before-headers' }, 'provider-outcome-unknown', 'unknown'],
    ['cut off', { drop: 'mid-body' }, 'provider-outcome-unknown', 'unknown'],
    ['too late', { delayMs: 1000 }, 'provider-timeout', 'unknown'],
  ]
  for (const [name, fault, code, outcome, retryAfter] of cases) {
    await t.test(name, async (t) => {
      await service.setFault({ ...fault, times: 1 })
      const before = (await service.arrived()).length
      const response = await service.mint({ token: await service.token({ sub: name.replaceAll(' ', '-') }) })
      matchProblem(t, response, code, outcome && { outcome })
      t.equal(response.headers['retry-after'], retryAfter)
      t.equal(response.headers['www-authenticate'], undefined)
      t.equal((await service.arrived()).length, before + 1, 'one POST, no more')
    })
  }
})

t.test('iDenfy out of reach', async (t) => {
  // Port 1 is reserved: no process listens there.
  const service = await build(t, { env: { IDENFY_BASE_URL: 'http://127.0.0.1:1' } })
  const response = await service.mint()
  matchProblem(t, response, 'provider-unavailable', { outcome: 'not-created' })
  t.match(service.log('provider-unavailable'), [
    { level: 'warn', phase: 'before-sending', err: { cause: { code: 'ECONNREFUSED' } } },
  ])
})
