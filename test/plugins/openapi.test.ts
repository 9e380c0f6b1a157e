import { readFileSync, writeFileSync } from 'node:fs'
import { Validator } from '@seriousme/openapi-schema-validator'
import { Value } from '@sinclair/typebox/value'
import openapiTypescript, { astToString } from 'openapi-typescript'
import t from 'tap'
import { problems } from '../../src/problems/catalog.js'
import { ProblemDetails } from '../../src/problems/problem.js'
import { KybToken } from '../../src/routes/onboarding/kyb-token.js'
import { KybSession } from '../../src/services/idenfy/schemas.js'
import { build } from '../helper.js'

interface Failure {
  content: { 'application/problem+json': { examples: Record<string, { value: ProblemDetails }> } }
}

const isWriting = process.env.TAP_SNAPSHOT === '1'
const typesFile = 'sandbox/demo/service-api.ts'

const { app } = await build(t, { env: { DOCS: 'true' } })
const document = JSON.parse(JSON.stringify(app.swagger()))

t.test('openapi.json is the contract of the code', async (t) => {
  if (isWriting) writeFileSync('openapi.json', `${JSON.stringify(document, null, 2)}\n`)
  t.strictSame(JSON.parse(readFileSync('openapi.json', 'utf8')), document, 'if not: npm run openapi')
})

t.test('it is valid OpenAPI 3.1', async (t) => {
  t.strictSame(await new Validator().validate(structuredClone(document)), { valid: true })
})

t.test('the types of the clients are those of openapi.json', async (t) => {
  const types = `// Written by \`npm run openapi\` from openapi.json.\n\n${astToString(await openapiTypescript(document))}`
  if (isWriting) writeFileSync(typesFile, types)
  t.equal(readFileSync(typesFile, 'utf8'), types, 'if not: npm run openapi')
})

t.test('its examples are what its schemas describe', async (t) => {
  const { requestBody, responses } = document.paths['/onboarding/kyb-token'].post
  t.ok(Value.Check(KybSession, requestBody.content['application/json'].example))
  const { 201: success, ...failures } = responses
  t.ok(Value.Check(KybToken, success.content['application/json'].example))
  for (const { content } of Object.values<Failure>(failures)) {
    for (const [code, { value }] of Object.entries(content['application/problem+json'].examples)) {
      t.ok(Value.Check(ProblemDetails, value), code)
    }
  }
})

t.test('it names one endpoint, and each problem with an example', async (t) => {
  t.strictSame(Object.keys(document.paths), ['/onboarding/kyb-token'])
  const { post } = document.paths['/onboarding/kyb-token']
  t.equal(post.requestBody.required, false)
  t.strictSame(
    post.parameters.map(({ name }: { name: string }) => name),
    ['X-Company-Id', 'Idempotency-Key'],
  )
  const { 201: _, ...failures } = post.responses as Record<string, Failure>
  const examples = Object.entries(failures).flatMap(([status, { content }]) =>
    Object.entries(content['application/problem+json'].examples).map(([code, { value }]) => [
      code,
      value.code,
      value.status,
      Number(status),
    ]),
  )
  t.strictSame(
    examples.sort(),
    Object.entries(problems)
      .map(([code, { status }]) => [code, code, status, status])
      .sort(),
  )
})
