import { readFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t, { type Test } from 'tap'
import { createTokenSigner } from '../../src/sandbox/token-signer.js'
import { type Answer, build, openSocket, parseAnswers, send, signer, until } from '../helper.js'

const path = '/onboarding/kyb-token'
const rounds = 440

/** The alerts of docs/operations.md, by name. */
const [, table = ''] = readFileSync('docs/operations.md', 'utf8').split(/<!-- \/?alerts.*-->/)
const alerts = new Map(
  [...table.matchAll(/^\| ([^|]+) \| `((?:[^`|]|\\\|)+)` \|/gm)].map(([, name = '', expression = '']) => [
    name,
    expression.replaceAll('\\|', '|'),
  ]),
)
/** What these say is not the fault of the operator, of iDenfy or of the identity provider: it is about strangers. */
const aboutStrangers = new Set(['somebody forges tokens'])

interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

const parseMetrics = (text: string): Sample[] =>
  [...text.matchAll(/^([a-z0-9_]+)(?:\{(.*)\})? (\S+)$/gm)].map(([, name = '', labels = '', value]) => ({
    name,
    labels: Object.fromEntries([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, text]) => [key, text])),
    value: Number(value),
  }))

/**
 * Whether an alert's expression holds, for a service that was still before and has been as it is now since: rates and
 * increases are what was counted, per minute at most.
 */
function fires(expression: string, before: readonly Sample[], after: readonly Sample[]): boolean {
  const [, left = '', operator, right] = /^(.*) (>|==) ([\d.]+)$/.exec(expression) ?? []
  if (operator === undefined) throw new Error(`cannot read ${expression}`)
  const quantile = /^histogram_quantile\(([\d.]+), .*?([a-z_]+)_bucket/.exec(left)
  const value = quantile ? quantileOf(Number(quantile[1]), quantile[2] ?? '') : ratio(left)
  return operator === '>' ? value > Number(right) : value === Number(right)

  function ratio(text: string): number {
    const [numerator = 0, denominator] = text.split(' / ').map(sumOf)
    return denominator === undefined ? numerator : numerator / (denominator || Number.NaN)
  }

  function sumOf(text: string): number {
    const match = /([a-z]+(?:_[a-z0-9]+)+)(?:\{(\w+)(=~|!~|=)"([^"]*)"\})?(\[(\d+)([md])\])?/g
    const selectors = [...text.matchAll(match)].filter(([selector]) => !/^[a-z]+_over_time$/.test(selector))
    const [, name, label = '', how, pattern = '', window, amount] = selectors[0] ?? []
    if (name === undefined) throw new Error(`cannot read ${text}`)
    const total = (samples: readonly Sample[]) =>
      samples
        .filter((sample) => sample.name === name)
        .filter(({ labels }) => {
          if (how === undefined) return true
          const isEqual = new RegExp(`^(?:${pattern})$`).test(labels[label] ?? '')
          return how === '!~' ? !isEqual : isEqual
        })
        .reduce((sum, { value }) => sum + value, 0)
    const isCounter = window !== undefined && !text.includes('_over_time')
    if (!isCounter) return total(after)
    const increase = total(after) - total(before)
    return text.includes('rate(') ? increase / (Number(amount) * 60) : increase
  }

  function quantileOf(share: number, name: string): number {
    const buckets = after.filter((sample) => sample.name === `${name}_bucket`)
    const count = buckets.at(-1)?.value ?? 0
    const bucket = buckets.find(({ value }) => value >= share * count)
    return Number(bucket?.labels.le?.replace('+Inf', 'Infinity') ?? 0)
  }
}

t.test('the alerts can be read, and fire', async (t) => {
  t.ok(alerts.size >= 15, `${alerts.size} alerts`)
  for (const name of aboutStrangers) t.ok(alerts.has(name), name)
  const sample = (name: string, labels: Record<string, string>, value: number) => ({ name, labels, value })
  const rows: [alert: string, samples: Sample[], isFiring: boolean][] = [
    ['a fault of ours', [sample('http_requests_total', { outcome: 'internal-error' }, 1)], true],
    ['a fault of ours', [sample('http_requests_total', { outcome: 'invalid-token' }, 9)], false],
    [
      'onboarding fails',
      [
        sample('http_requests_total', { outcome: 'success' }, 10),
        sample('http_requests_total', { outcome: 'provider-timeout' }, 1),
      ],
      true,
    ],
    [
      'onboarding fails',
      [
        sample('http_requests_total', { outcome: 'success' }, 100),
        sample('http_requests_total', { outcome: 'provider-timeout' }, 1),
      ],
      false,
    ],
    [
      'onboarding fails',
      [
        sample('http_requests_total', { outcome: 'success' }, 10),
        sample('http_requests_total', { outcome: 'preflight' }, 500),
        sample('http_requests_total', { outcome: 'preflight-refused' }, 500),
        sample('http_requests_total', { outcome: 'provider-timeout' }, 1),
      ],
      true,
    ],
    ['iDenfy is down', [sample('idenfy_circuit_open', {}, 1)], true],
    ['iDenfy is down', [sample('idenfy_circuit_open', {}, 0)], false],
    ['almost out of files', [sample('process_open_fds', {}, 9), sample('process_max_fds', {}, 10)], true],
  ]
  for (const [alert, samples, isFiring] of rows) {
    t.equal(fires(alerts.get(alert) ?? '', [], samples), isFiring, `${alert} ${JSON.stringify(samples)}`)
  }
})

t.test('ten thousand requests of strangers raise no alarm and fill no memory', async (t: Test) => {
  const service = await build(t, {
    env: { CORS_ORIGINS: 'https://app.acme.example', RATE_LIMIT_IP_PER_MINUTE: '300' },
  })
  const good = await service.token()
  t.equal((await service.mint({ token: good })).status, 201)
  const before = parseMetrics(await service.metrics())
  const linesBefore = service.log().filter(({ msg }) => msg === 'request').length

  const stranger = await createTokenSigner('RS256', String(signer.publicJwk.kid))
  const unknown = await createTokenSigner('RS256', 'a-key-of-no-one')
  const tokens = [
    'x',
    'a.b.c',
    `${good}x`,
    await service.token({}, {}, stranger),
    await service.token({}, {}, unknown),
    await service.token({ iss: 'https://evil.example' }),
    await service.token({ aud: 'other' }),
    await service.token({ exp: 1 }),
    await service.token({}, { typ: 'logout+jwt' }),
    `${Buffer.from('{"alg":"none"}').toString('base64url')}.${good.split('.')[1]}.`,
  ]
  const head = (line: string, ...fields: string[]) =>
    [`${line} HTTP/1.1`, 'Host: a', ...fields, '', ''].join('\r\n')
  const withBody = (line: string, ...fields: string[]) => `${head(line, ...fields)}{}`
  const json = 'Content-Type: application/json'
  /** Whole requests, which a kept connection can take one after the other. */
  const whole = [
    head(`POST ${path}`),
    ...tokens.map((token) => head(`POST ${path}`, `Authorization: Bearer ${token}`)),
    withBody(`POST ${path}`, 'Authorization: Basic YTpi', json, 'Content-Length: 2'),
    ...['GET', 'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND'].map((method) => head(`${method} ${path}`)),
    head('GET /.env'),
    head('GET /%'),
    withBody('POST /wp-login.php?a=b', json, 'Content-Length: 2'),
    head(`OPTIONS ${path}`, 'Origin: https://evil.example', 'Access-Control-Request-Method: POST'),
  ]
  /** What ends a connection. */
  const last = [
    'hello\r\n\r\n',
    head('GET /', 'X: a\0b'),
    head('GET /', `X: ${'x'.repeat(17_000)}`),
    head('GET /', ...Array.from({ length: 70 }, (_, index) => `X-${index}: 1`), 'Connection: close'),
    head(`POST ${path}`, json, 'Content-Length: 99999999', 'Connection: close'),
    withBody(`POST ${path}`, json, 'Expect: nothing', 'Content-Length: 2', 'Connection: close'),
  ]
  const heapBefore = heapUsed()
  let sent = 0
  const answers: Answer[] = []
  for (let round = 0; round < rounds; round++) {
    const { socket, received } = openSocket(service.url)
    socket.on('error', () => {})
    const ends = last[round % last.length] ?? ''
    socket.write(whole.join('') + ends)
    sent += whole.length + 1
    const text = await received
    if (round === 0) answers.push(...parseAnswers(text))
    // Some never wait for a response.
    const hasty = openSocket(service.url)
    hasty.socket.on('error', () => {})
    hasty.socket.write(head(`POST ${path}`, json, 'Content-Length: 100'))
    if (round % 2) hasty.socket.resetAndDestroy()
    else hasty.socket.end()
    await hasty.received.catch(() => {})
  }
  t.ok(sent >= 10_000, `${sent} requests`)
  t.equal(answers.length, whole.length, 'a response to each whole request')
  t.strictSame([...new Set(answers.map(({ status }) => status))].sort(), [400, 401, 403, 404, 405])

  const outcomes = service
    .log()
    .filter(({ msg }) => msg === 'request')
    .slice(linesBefore)
    .map(({ outcome }) => String(outcome))
  const after = parseMetrics(await service.metrics())
  t.ok(outcomes.length >= sent, `${outcomes.length} lines`)
  for (const outcome of ['internal-error', 'overloaded', 'auth-keys-unavailable', 'success']) {
    t.notOk(outcomes.includes(outcome), outcome)
  }
  for (const [name, expression] of alerts) {
    if (name === 'replicas are on their own' || aboutStrangers.has(name)) continue
    t.notOk(fires(expression, before, after), name)
  }
  t.ok(after.length - before.length < 40, `${after.length - before.length} more series`)
  t.ok(heapUsed() - heapBefore < 40 * 1024 * 1024, 'memory beside the log of this test')
  await until(async () => (await send(`${service.managementUrl}/readyz`)).status === 200)
  t.equal((await service.mint({ token: good })).status, 201, 'a user is served as before')
})

/** After a collection: what was not collected yet says nothing. */
function heapUsed(): number {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  return process.memoryUsage().heapUsed
}
