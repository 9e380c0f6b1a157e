import { readFileSync } from 'node:fs'
import { Value } from '@sinclair/typebox/value'
import fc from 'fast-check'
import t from 'tap'
import { ProblemDetails } from '../../src/problems/problem.js'
import { KybToken } from '../../src/routes/onboarding/kyb-token.js'
import {
  addressesOf,
  type HttpResponse,
  openSocket,
  Secrets,
  send,
  spawnNode,
  startPeers,
} from '../helper.js'

/** Short by default; `npm run fuzz` makes it long. */
const runs = Number(process.env.FUZZ_RUNS ?? 300)

const uuid = '7b1d8a1e-6c1b-4d53-9d3a-0c5a3f2e9a10'
const properties = [
  'lifetime',
  'locale',
  'flow',
  'theme',
  'questionnaire',
  'questionnaireRequired',
  'tags',
  'scanRefs',
]

/** Values near what is valid, and any JSON. */
const value = fc.oneof(
  fc.constantFrom<unknown>(
    60,
    59,
    3600,
    2_592_000,
    'lt',
    'en',
    uuid,
    uuid.toUpperCase(),
    null,
    true,
    'q',
    ['a'],
    ['a', 'b'],
    [],
  ),
  fc.array(fc.string({ maxLength: 45, unit: 'binary' }), { maxLength: 6 }),
  fc.string({ maxLength: 45, unit: 'binary' }),
  fc.integer(),
  fc.jsonValue({ maxDepth: 3 }),
)
const record = fc.dictionary(
  fc.oneof({ weight: 20, arbitrary: fc.constantFrom(...properties) }, { weight: 1, arbitrary: fc.string() }),
  value,
  { maxKeys: 4 },
)
const body = fc
  .oneof({ weight: 9, arbitrary: record }, { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 5 }) })
  // More than that is a 413 whatever it holds.
  .filter((candidate) => Buffer.byteLength(JSON.stringify(candidate)) <= 4096)

t.test('any input gets a documented response', async (t) => {
  const peers = await startPeers(t)
  const secrets = new Secrets()
  const policy = JSON.stringify({
    callerMaySet: Object.fromEntries(properties.map((name) => [name, name !== 'theme'])),
  })
  const server = spawnNode(
    t,
    // With so small a heap a leak shows, or ends the process.
    ['--max-old-space-size=96', 'dist/server.js'],
    {
      ...peers.environment,
      PORT: '0',
      MANAGEMENT_PORT: '0',
      KYB_POLICY_FILE: `${t.testdir({ 'policy.json': policy })}/policy.json`,
    },
    // Without the tokens that iDenfy makes: a long run makes too many to search its log for.
    secrets,
  )
  const { url, managementUrl } = await addressesOf(server)
  const token = secrets.add(await peers.token({ exp: Math.floor(Date.now() / 1000) + 7200 }))
  const post = (text: string, authorization = `Bearer ${token}`): Promise<HttpResponse> =>
    send(`${url}/onboarding/kyb-token`, {
      method: 'POST',
      body: text,
      headers: { 'content-type': 'application/json', authorization },
    })
  const assertGood = async () => {
    const { status } = await post('{}')
    if (status !== 201) throw new Error(`A good request got ${status}`)
  }
  const readSeries = async () =>
    (await send(`${managementUrl}/metrics`)).text.split('\n').filter((line) => /^[a-z]/.test(line))
  const seriesBefore = await readSeries()
  const residentMegabytes: number[] = []
  const sample = () => {
    const [, kilobytes] =
      /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.child.pid}/status`, 'utf8')) ?? []
    residentMegabytes.push(Math.round(Number(kilobytes) / 1024))
  }
  const check = async <T>(
    name: string,
    share: number,
    property: fc.IAsyncProperty<T>,
    examples: T[] = [],
  ) => {
    const parts = 5
    for (let part = 0; part < parts; part++) {
      const numRuns = Math.ceil((runs * share) / parts)
      await t.resolves(fc.assert(property, { numRuns, examples }), `${name}, ${numRuns} cases`)
      if (process.platform === 'linux') sample()
    }
  }

  const statuses = new Map<number, number>()
  await check(
    'any body gets 201, 400 or 403, in the form of its status',
    0.6,
    fc.asyncProperty(body, async (candidate) => {
      const { status, json } = await post(JSON.stringify(candidate))
      statuses.set(status, (statuses.get(status) ?? 0) + 1)
      if (![201, 400, 403].includes(status)) throw new Error(`${status} ${json?.code}`)
      Value.Assert(status === 201 ? KybToken : ProblemDetails, json)
    }),
    [[{}], [{ theme: uuid }], [{ locale: 'xx' }]],
  )
  t.strictSame([...statuses.keys()].sort(), [201, 400, 403], `all came up: ${[...statuses].join(' ')}`)

  await check(
    'any change of a token makes it invalid',
    0.2,
    fc.asyncProperty(
      fc.nat(token.length - 1),
      fc.constantFrom(...'AZaz09-_.=+/ ,"'),
      async (at, character) => {
        const changed = token.slice(0, at) + character + token.slice(at + 1)
        const { status } = await post('{}', `Bearer ${changed}`)
        if (status !== (changed === token ? 201 : 401)) throw new Error(String(status))
      },
    ),
  )

  const request = `POST /onboarding/kyb-token HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\nContent-Length: 2\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{}`
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc
      .array(fc.tuple(fc.nat(request.length - 1), fc.uint8Array({ maxLength: 3 })), {
        minLength: 1,
        maxLength: 4,
      })
      .map((changes) => {
        const mutated = Buffer.from(request)
        for (const [at, patch] of changes) mutated.set(patch.subarray(0, mutated.length - at), at)
        return new Uint8Array(mutated)
      }),
  )
  await check(
    'any bytes leave the process alive',
    0.2,
    fc.asyncProperty(bytes, async (chunk) => {
      const { socket, closed } = openSocket(url)
      socket.end(chunk)
      const [, status] = /^HTTP\/1\.1 (\d+)/.exec(await closed()) ?? []
      if (Number(status ?? 400) >= 500) throw new Error(`got ${status}`)
      if (chunk.length % 16 === 0) await assertGood()
    }),
  )
  await assertGood()

  const series = await readSeries()
  t.equal(series.length, seriesBefore.length, 'no series is added')
  t.strictSame(
    series.filter((line) => /acme|u-1|onboarding\/|sandbox-/.test(line)),
    [],
    'and no label from a request',
  )

  t.comment(`resident memory, MB: ${residentMegabytes.join(' ')}`)
  // Growth while the engine warms up is none; the last tenth is compared with the first half.
  if (runs >= 10_000) t.ok(Number(residentMegabytes.at(-1)) < Math.max(...residentMegabytes.slice(0, 8)) + 32)
})
