import { createRequire } from 'node:module'
import t from 'tap'
import { type ProblemCode, problems } from '../../src/problems/catalog.js'
import { build, matchProblem, send } from '../helper.js'

const codes = Object.keys(problems) as ProblemCode[]
const { cache } = createRequire(import.meta.url)
const loaded = () => Object.keys(cache).filter((path) => path.includes('/@fastify/swagger'))

t.test('without DOCS there is no documentation, and what serves it is not loaded', async (t) => {
  const service = await build(t)
  for (const path of ['/docs', '/docs/', '/docs/json', '/problems/not-found']) {
    matchProblem(t, await send(service.url + path), 'not-found')
  }
  t.strictSame(loaded(), [])
})

t.test('with DOCS', async (t) => {
  const service = await build(t, { env: { DOCS: 'true' } })
  t.not(loaded().length, 0)

  await t.test('the document and a page to read it', async (t) => {
    t.strictSame(
      (await send(`${service.url}/docs/json`)).json,
      JSON.parse(JSON.stringify(service.app.swagger())),
    )
    const page = await send(`${service.url}/docs`)
    t.match(page, { status: 200, headers: { 'content-type': 'text/html; charset=utf-8' } })
    const [, ...sources] = page.text.split(/(?:src|href)="/).map((rest) => rest.replace(/".*/s, ''))
    t.ok(sources.length > 3)
    for (const source of sources) {
      const { status, headers } = await send(service.url + source)
      t.equal(status, 200, source)
      const policy = String(headers['content-security-policy'])
      t.match(
        policy,
        /^default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-hashes' 'sha256-[^']+';/,
      )
      t.notMatch(policy, /unsafe-(?!hashes)|https?:/)
    }
  })

  for (const code of codes) {
    await t.test(`/problems/${code}`, async (t) => {
      const url = `${service.url}/problems/${code}`
      const { status, title, when, advice, retryable } = problems[code]
      const forPrograms = await send(url)
      t.match(forPrograms, {
        status: 200,
        headers: { 'content-type': /^application\/json/, vary: /Accept/ },
        json: { type: `/problems/${code}`, code, status, title, when, advice, retryable },
      })
      const forPeople = await send(url, { headers: { accept: 'text/html,application/xhtml+xml,*/*;q=0.8' } })
      t.match(forPeople, { status: 200, headers: { 'content-type': /^text\/html/, vary: /Accept/ } })
      t.match(forPeople.headers['content-security-policy'], /^default-src 'none'; style-src 'sha256-[^']+';/)
      t.match(forPeople.text, `<h1>${title}</h1>`)
      t.match(forPeople.text, retryable ? 'It may succeed later' : 'No, it would fail again')
      t.notMatch(forPeople.text, /`|undefined/)
    })
  }

  await t.test('the type of a problem is a page', async (t) => {
    const { json } = await service.mint({ token: 'x' })
    t.match(await send(service.url + json.type), { status: 200, json: { code: 'invalid-token' } })
  })

  await t.test('no others', async (t) => {
    matchProblem(t, await send(`${service.url}/problems/none`), 'not-found')
    const response = await send(`${service.url}/problems/not-found`, { method: 'POST' })
    matchProblem(t, response, 'method-not-allowed')
    matchProblem(t, await send(`${service.url}/docs/json?x`), 'malformed-request')
  })
})
