import { execFileSync } from 'node:child_process'
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { created, goodToken, httpResponse, startFaultServer } from '../fault-server.js'
import { apiKey, apiSecret, build, credentialFiles, until } from '../helper.js'
import { needsRedis, startRedis, stateKey } from '../redis-server.js'

type Files = Readonly<Record<string, string>>

/** The ways in which files are replaced, each on a directory of its own. */
const ways: Record<string, (t: Test, files: Files) => { dir: string; replace: (files: Files) => void }> = {
  'in place': (t, files) => {
    const dir = t.testdir(files)
    return {
      dir,
      replace: (next) => {
        for (const [name, text] of Object.entries(next)) writeFileSync(join(dir, name), text)
      },
    }
  },
  'by atomic rename': (t, files) => {
    const dir = t.testdir(files)
    return {
      dir,
      replace: (next) => {
        for (const [name, text] of Object.entries(next)) {
          writeFileSync(join(dir, `.${name}.new`), text)
          renameSync(join(dir, `.${name}.new`), join(dir, name))
        }
      },
    }
  },
  // name → ..data/name, ..data → ..1: the second link is switched.
  'as kubernetes does it': (t, files) => {
    const dir = t.testdir({})
    let version = 0
    const replace = (next: Files) => {
      version += 1
      mkdirSync(join(dir, `..${version}`))
      for (const [name, text] of Object.entries(next)) writeFileSync(join(dir, `..${version}`, name), text)
      symlinkSync(`..${version}`, join(dir, '..data_tmp'))
      renameSync(join(dir, '..data_tmp'), join(dir, '..data'))
      rmSync(join(dir, `..${version - 1}`), { recursive: true, force: true })
    }
    replace(files)
    for (const name of Object.keys(files)) symlinkSync(join('..data', name), join(dir, name))
    return { dir, replace }
  },
}

const basic = (key: string, secret: string) => `Basic ${Buffer.from(`${key}:${secret}`).toString('base64')}`
const policyOf = (lifetime: number) => JSON.stringify({ session: { lifetime } })

for (const [way, setUp] of Object.entries(ways)) {
  t.test(`files are replaced ${way}`, async (t) => {
    const { dir, replace } = setUp(t, {
      key: apiKey,
      secret: apiSecret,
      identity: 'i'.repeat(32),
      policy: policyOf(3600),
    })
    const idenfy = await startFaultServer(t, created)
    const service = await build(t, {
      env: {
        IDENFY_BASE_URL: idenfy.url,
        ...credentialFiles(dir),
        KYB_IDENTITY_KEY_FILE: join(dir, 'identity'),
        KYB_POLICY_FILE: join(dir, 'policy'),
        KYB_CLIENT_ID: '{companyHash}',
      },
    })
    const { secrets } = service
    secrets.add(goodToken.tokenString)
    const key = secrets.add('canary-api-key-new')
    const secret = secrets.add('canary-api-secret-new')
    await service.mint()
    replace({ key, secret, identity: 'j'.repeat(32), policy: policyOf(7200) })
    await until(
      async () => (await service.metrics()).match(/reloads_total\{.*outcome="taken"\} 1/g)?.length === 3,
      'the service to load the three replaced files',
    )

    t.equal((await service.mint()).status, 201)
    const [before, after] = idenfy.arrivals
    t.match(before?.head, basic(apiKey, apiSecret))
    t.match(after?.head, basic(key, secret))
    t.strictSame([before?.body.lifetime, after?.body.lifetime], [3600, 7200])
    t.not(before?.body.clientId, after?.body.clientId)
    t.match(await service.metrics(), 'idenfy_credentials_generation 2\n')

    await t.test('by what cannot be used: the old ones stay', async (t) => {
      replace({ key: 'two words', secret: '', identity: 'short', policy: '{"session":' })
      await until(
        async () =>
          (await service.metrics()).match(/reloads_total\{.*outcome="refused"\} [1-9]/g)?.length === 3,
        'the service to refuse the three unusable files',
      )
      t.equal((await service.mint()).status, 201)
      t.equal(
        (await service.metrics()).match(/^reload_failing\{.*\} 1$/gm)?.length,
        3,
        'for as long as it is bad',
      )
      t.match(idenfy.arrivals.at(-1)?.head, basic(key, secret))
      t.equal(idenfy.arrivals.at(-1)?.body.lifetime, 7200)
      t.equal(idenfy.arrivals.at(-1)?.body.clientId, after?.body.clientId)
      t.match(
        service
          .log()
          .filter(({ fault }) => fault !== undefined)
          .sort((a, b) => String(a.what).localeCompare(String(b.what))),
        [
          { level: 'error', what: 'credentials', fault: /^IDENFY_API_KEY must be printable ASCII/ },
          { level: 'error', what: 'identity-key', fault: /^KYB_IDENTITY_KEY must be at least 32/ },
          { level: 'error', what: 'policy', fault: 'is not JSON' },
        ],
      )
    })

    await t.test('and by what can be used again', async (t) => {
      replace({ key, secret, identity: 'k'.repeat(32), policy: policyOf(600) })
      await until(
        async () => /reloads_total\{what="policy",outcome="taken"\} 2/.test(await service.metrics()),
        'the service to load the usable policy',
      )
      await service.mint()
      t.equal(idenfy.arrivals.at(-1)?.body.lifetime, 600)
      await until(
        async () => !/^reload_failing\{.*\} 1$/m.test(await service.metrics()),
        'no file to be reported as unusable',
      )
    })
  })
}

t.test('key and secret are used as a pair, never one of them alone', async (t) => {
  const dir = t.testdir({ key: apiKey, secret: apiSecret })
  const pairs = new Set<string>()
  const idenfy = await startFaultServer(t, (socket, { head }) => {
    pairs.add(String(/authorization: (.*)/i.exec(head)?.[1]))
    socket.write(httpResponse('201 Created', goodToken))
  })
  const service = await build(t, {
    env: {
      IDENFY_BASE_URL: idenfy.url,
      ...credentialFiles(dir),
    },
  })
  service.secrets.add(goodToken.tokenString)
  const key = service.secrets.add('canary-api-key-new')
  const secret = service.secrets.add('canary-api-secret-new')
  await service.mint()
  writeFileSync(join(dir, 'key'), key)
  for (let i = 0; i < 20; i++) await service.mint()
  writeFileSync(join(dir, 'secret'), secret)
  await until(async () => {
    await service.mint()
    return pairs.has(basic(key, secret))
  }, 'a POST with the new key and secret')
  t.strictSame([...pairs], [basic(apiKey, apiSecret), basic(key, secret)])
})

t.test('the key of the state in Redis is rotated', needsRedis, async (t) => {
  const redis = await startRedis(t)
  const newKey = Buffer.alloc(32, 'n').toString('base64')
  const dir = t.testdir({ state: stateKey })
  const env = {
    ...redis.env,
    KYB_REPLAY_SECONDS: '3600',
    STATE_ENCRYPTION_KEY: undefined,
    STATE_ENCRYPTION_KEY_FILE: join(dir, 'state'),
  }
  const first = await build(t, { env })
  const rotate = async (keys: string) => {
    writeFileSync(join(dir, 'state'), keys)
    const before = /reloads_total\{what="state-key",outcome="taken"\} (\d+)/
    const count = async () => Number(before.exec(await first.metrics())?.[1] ?? 0)
    const old = await count()
    await until(async () => (await count()) > old, 'the service to load the new state key')
  }
  const mintAs = async (service: typeof first, sub: string) =>
    (await service.mint({ token: await service.token({ sub }) })).json.tokenString
  const old = await mintAs(first, 'u-old')
  await rotate(`${stateKey},${newKey}`)
  await rotate(`${newKey},${stateKey}`)
  const fresh = await mintAs(first, 'u-fresh')
  const second = await build(t, {
    peers: first,
    env: { ...env, STATE_ENCRYPTION_KEY: newKey, STATE_ENCRYPTION_KEY_FILE: undefined },
  })
  t.equal(await mintAs(second, 'u-fresh'), fresh, 'what is new is sealed with the new key')
  t.not(await mintAs(second, 'u-old'), old, 'what is old was not')
  const third = await build(t, { peers: first, env })
  t.equal(await mintAs(third, 'u-fresh'), fresh)
})

t.test('a file system that hangs stops nothing, and is reported', async (t) => {
  const dir = t.testdir({ key: apiKey, secret: apiSecret, policy: policyOf(600) })
  const policy = join(dir, 'policy')
  const idenfy = await startFaultServer(t, created)
  const service = await build(t, {
    env: { IDENFY_BASE_URL: idenfy.url, ...credentialFiles(dir), KYB_POLICY_FILE: policy },
  })
  service.secrets.add(goodToken.tokenString)
  rmSync(policy)
  // Opening it waits for a writer, like a read from a server that is gone.
  execFileSync('mkfifo', [policy])
  await until(
    async () => /^reload_failing\{what="policy"\} 1$/m.test(await service.metrics()),
    'the metric to report that the policy cannot be read',
  )
  t.equal(service.app.isReadingHung(), true)
  t.match(
    service.log().filter(({ msg }) => String(msg).includes('hangs')),
    [{ level: 'error', what: 'policy' }],
  )
  t.match(await service.metrics(), /^reload_failing\{what="credentials"\} 1$/m, 'it may have changed too')
  t.equal((await service.mint()).status, 201)
  t.equal(idenfy.arrivals.at(-1)?.body.lifetime, 600)

  await t.test('until it is back', async (t) => {
    writeFileSync(policy, policyOf(900))
    rmSync(policy)
    writeFileSync(policy, policyOf(900))
    await until(
      async () => /^reload_failing\{what="policy"\} 0$/m.test(await service.metrics()),
      'the metric to report that the policy can be read',
    )
    await until(
      async () => /^reloads_total\{what="policy",outcome="taken"\} 1$/m.test(await service.metrics()),
      'the service to load the new policy',
    )
    t.equal((await service.mint({ body: {} })).status, 201)
    t.equal(idenfy.arrivals.at(-1)?.body.lifetime, 900)
  })
})
