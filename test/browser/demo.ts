import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { problemCodes } from '../../sandbox/demo/messages.js'
import { inTime, listen, send, spawnNode } from '../helper.js'

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
const shots = '.screenshots'
const missing =
  !existsSync(executablePath) && `there is no ${executablePath}: install chromium, or set CHROMIUM`
// What a developer may leave out, CI may not.
if (missing && process.env.CI) throw new Error(missing)

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const phone = { viewport: { width: 375, height: 720 }, isMobile: true, hasTouch: true }

t.test('the demo page in a real browser', { skip: missing, timeout: 400_000 }, async (t) => {
  mkdirSync(shots, { recursive: true })
  const anyPort = ['', 'MANAGEMENT_', 'IDENFY_', 'IDENTITY_', 'DEMO_'].map((part) => [
    `SANDBOX_${part}PORT`,
    '0',
  ])
  const ownPage = createServer((_request, response) =>
    response.setHeader('content-type', 'text/html').end('<title>'),
  )
  const ownOrigin = `http://localhost:${await listen(t, ownPage)}`
  const sandbox = spawnNode(t, ['dist-sandbox/server.js'], {
    ...Object.fromEntries(anyPort),
    SANDBOX_CORS_ORIGINS: ownOrigin,
  })
  await sandbox.waitFor(/demo page +http/)
  const address = (part: string) => String(new RegExp(`${part} +(http\\S+)`).exec(sandbox.output.stdout)?.[1])
  const urls = {
    service: address('service'),
    idenfy: address('iDenfy simulator'),
    identity: address('identity provider'),
    demo: address('demo page'),
    ownPage: ownOrigin,
  }
  const browser = await chromium.launch({
    executablePath,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
    ],
  })
  t.teardown(() => browser.close())

  const posts = async (): Promise<number> => {
    const { json } = await send(`${urls.idenfy}/_sandbox/requests`)
    return json.filter(({ url }: { url: string }) => url === '/kyb/tokens/').length
  }

  /** Runs a test with a page whose every request and complaint is watched: in the end nothing may have gone wrong. */
  function visit(
    name: string,
    run: (t: Test, visit: { page: Page; created: () => number }) => Promise<void>,
    options: BrowserContextOptions = {},
  ) {
    return t.test(name, async (t) => {
      const context = await browser.newContext(options)
      t.teardown(() => context.close())
      const page = await context.newPage()
      const complaints: string[] = []
      const requests: { method: string; url: string; referer: string | undefined }[] = []
      page.on('pageerror', (error) => complaints.push(error.message))
      page.on('console', (message) => {
        const isRefusal = /status of [45]\d\d|net::ERR_FAILED/.test(message.text())
        if (message.type() === 'error' && !isRefusal) complaints.push(message.text())
      })
      context.on('request', (request) => {
        requests.push({ method: request.method(), url: request.url(), referer: request.headers().referer })
      })
      await page.goto(urls.demo)
      await run(t, { page, created: () => requests.filter(isCreation).length })

      t.strictSame(complaints, [], 'the console is quiet')
      const origins = [...new Set(requests.map(({ url }) => new URL(url).origin))]
      t.strictSame(
        origins.filter((origin) => !Object.values(urls).includes(origin)),
        [],
        'nobody else is asked for anything',
      )
      const elsewhere = requests.filter(({ url }) => new URL(url).origin !== urls.idenfy)
      const told = [...elsewhere.map(({ url }) => url), ...requests.map(({ referer }) => referer ?? '')]
      t.strictSame(
        told.filter((text) => /[0-9a-f]{40}|eyJ/.test(text)),
        [],
        'no token in a URL but iDenfy’s',
      )
    })
  }

  const isCreation = ({ method, url }: { method: string; url: string }) =>
    method === 'POST' && url === `${urls.service}/onboarding/kyb-token`

  const isServiceUrl = ({ href }: URL) => href === `${urls.service}/onboarding/kyb-token`
  const isIdentityUrl = ({ href }: URL) => href === `${urls.identity}/token`
  const isFormUrl = ({ href }: URL) => href.startsWith(`${urls.idenfy}/welcome?`)

  async function signIn(page: Page, name: string): Promise<void> {
    await page.getByRole('button', { name }).click()
    await page.getByRole('heading', { name: 'Verify your business' }).waitFor()
  }

  const notKnown = 'We do not know whether your verification was opened'
  const startNew = 'Start a new verification'
  const start = (page: Page) => page.getByRole('button', { name: 'Verify your business' })
  const frameOf = (page: Page) => page.frameLocator('iframe[title="Business verification"]')
  const heading = (page: Page, name: string) => page.getByRole('heading', { name, exact: true })
  const shoot = (page: Page, name: string) =>
    page.screenshot({ path: `${shots}/${name}.png`, fullPage: true })

  async function isAccessible(t: Test, page: Page, what: string): Promise<void> {
    await page.evaluate(axe)
    const { violations } = (await page.evaluate('axe.run()')) as {
      violations: { id: string; nodes: unknown[] }[]
    }
    t.strictSame(
      violations.map(({ id, nodes }) => [id, nodes]),
      [],
      `axe: ${what}`,
    )
  }

  await visit('by redirect, there and back', async (t, { page, created }) => {
    await shoot(page, 'sign-in')
    await isAccessible(t, page, 'sign-in')
    await signIn(page, 'Ada Martin')
    await shoot(page, 'verify')
    await isAccessible(t, page, 'verify')
    await start(page).click()
    await heading(page, 'Tell us about your business').waitFor()
    t.match(page.url(), new RegExp(`^${urls.idenfy}/welcome\\?authToken=[0-9a-f]{40}$`))
    await shoot(page, 'form')
    await isAccessible(t, page, 'form')
    await page.getByRole('button', { name: 'Submit' }).click()
    await heading(page, 'Submitted').waitFor()
    await page.reload()
    await heading(page, 'This form has been completed').waitFor()
    await page.goBack()
    await heading(page, 'Welcome back').waitFor()
    await shoot(page, 'welcome-back')
    t.equal(created(), 1)
  })

  await visit('in an iframe: sent, failed, ended, closed', async (t, { page }) => {
    await signIn(page, 'Ben Okafor')
    const begin = async () => {
      await page.getByLabel('within this page').check()
      await start(page).click()
      await frameOf(page).getByRole('heading', { name: 'Tell us about your business' }).waitFor()
    }
    await begin()
    t.equal(await page.locator('iframe').getAttribute('allow'), 'camera; fullscreen')
    t.equal(
      await frameOf(page).locator('#camera').textContent(),
      'This page may use the camera for your documents.',
    )
    await shoot(page, 'iframe')
    await isAccessible(t, page, 'iframe')

    await page.evaluate(`postMessage(JSON.stringify({ status: 'success' }), '*')`)
    await page.evaluate(
      `document.querySelector('iframe').contentWindow.postMessage({ status: 'success' }, '*')`,
    )
    t.ok(await page.locator('iframe').isVisible(), 'a message of somebody else says nothing')

    await frameOf(page).getByRole('button', { name: 'Submit' }).click()
    await heading(page, 'Thank you').waitFor()
    t.equal(await page.locator('iframe').count(), 0, 'the token is gone with the frame')
    await shoot(page, 'done')
    await isAccessible(t, page, 'done')

    await page.getByRole('button', { name: 'Start another verification' }).click()
    await begin()
    await frameOf(page).getByRole('button', { name: 'Fail' }).click()
    await heading(page, 'The form was not completed').waitFor()
    await begin()
    await frameOf(page).getByRole('button', { name: 'Let it expire' }).click()
    await frameOf(page).getByRole('heading', { name: 'This link has expired' }).waitFor()
    await shoot(page, 'ended')
    await page.getByRole('button', { name: 'Close the form' }).click()
    await heading(page, 'Verify your business').waitFor()
  })
  await visit('a form that is left open ends with its token', async (t, { page }) => {
    await page.clock.install()
    await page.goto(urls.demo)
    await signIn(page, 'Ada Martin')
    await page.getByLabel('within this page').check()
    await start(page).click()
    await heading(page, 'Your business').waitFor()
    await page.clock.fastForward('59:00')
    t.ok(await page.locator('iframe').isVisible())
    await page.clock.fastForward('01:00')
    await heading(page, 'The form has expired').waitFor()
    t.equal(await page.locator('iframe').count(), 0)
  })

  await visit('a double click is one POST', async (t, { page, created }) => {
    const before = await posts()
    await signIn(page, 'Ada Martin')
    await page.getByLabel('Slow response').check()
    await start(page).dblclick()
    await page.getByRole('button', { name: 'Opening the form' }).waitFor()
    await shoot(page, 'loading')
    await heading(page, 'Tell us about your business').waitFor()
    t.equal(created(), 1)
    t.equal((await posts()) - before, 1)
  })

  await visit('a user of two companies picks one', async (t, { page }) => {
    await signIn(page, 'Chris Lindqvist')
    await page.getByLabel('Which company?').selectOption('Initech Paper')
    await shoot(page, 'two-companies')
    await start(page).click()
    await heading(page, 'Tell us about your business').waitFor()
    const { json } = await send(`${urls.idenfy}/_sandbox/requests`)
    t.match(json.filter(({ body }: { body?: object }) => body).at(-1).body, {
      clientId: 'initech',
      externalRef: /^u-chris-/,
    })
  })

  /** The keys of the requests that the page sends from now on. */
  function keysOf(page: Page): string[] {
    const keys: string[] = []
    page.on('request', (request) => {
      const { 'idempotency-key': key } = request.headers()
      if (key && request.method() === 'POST') keys.push(key)
    })
    return keys
  }

  await visit('every fault has words, and passes', async (t, { page }) => {
    const rows: [string, string, string, string | undefined][] = [
      ['iDenfy is down', notKnown, startNew, 'provider-outcome-unknown'],
      ['No response within eight seconds', notKnown, startNew, 'provider-timeout'],
      ['Connection lost', notKnown, startNew, 'provider-outcome-unknown'],
      [
        'A session is already open',
        'Your company is already being verified',
        'Try again',
        'kyb-session-conflict',
      ],
      ['iDenfy limits our requests', 'We are busy right now', 'Try again', 'provider-rate-limited'],
      ['iDenfy rejects our API key', 'Verification is not available right now', '', 'provider-rejected'],
      ['Invalid response from iDenfy', notKnown, startNew, 'provider-bad-response'],
      ['The id of another company', 'You have no access to this company', '', 'company-not-allowed'],
      ['A field that the policy forbids', 'Something went wrong on our side', '', 'field-not-permitted'],
      ['Invalid access token', 'Please sign in again', 'Sign in', 'invalid-token'],
    ]
    await signIn(page, 'Ada Martin')
    for (const [fault, title, button, code] of rows) {
      await page.getByLabel(fault).check()
      await start(page).click()
      await heading(page, title).waitFor()
      await page.locator('#notice-title:focus').waitFor()
      t.equal(await page.locator('#log li a').first().textContent(), code, fault)
      const offered = page.locator('#notice-button')
      t.equal(await offered.isVisible(), button !== '')
      if (button) t.match(await offered.textContent(), button)
      t.notMatch(
        await page.locator('#notice-text').innerText(),
        /iDenfy|token|provider|\d{3}/,
        'in plain words',
      )
      await shoot(page, `fault-${code}`)
    }
    await isAccessible(t, page, 'a notice')
    await page.locator('#notice-button').click()
    await heading(page, 'Welcome to Northgate').waitFor()

    await signIn(page, 'Chris Lindqvist')
    await page.getByLabel('Connection lost').check()
    await start(page).click()
    await heading(page, notKnown).waitFor()
    await page.getByRole('button', { name: startNew }).click()
    await heading(page, 'Tell us about your business').waitFor()
  })

  await visit('one key for one click, however often it is tried', async (t, { page }) => {
    await signIn(page, 'Ben Okafor')
    const keys = keysOf(page)
    for (const name of ['first', 'second']) {
      await page.getByLabel('A session is already open').check()
      await start(page).click()
      await heading(page, 'Your company is already being verified').waitFor()
      t.ok(keys.length > 0, name)
    }
    await page.getByRole('button', { name: 'Try again' }).click()
    await heading(page, 'Tell us about your business').waitFor()
    t.equal(keys.length, 3)
    t.not(keys[0], keys[1], 'another click, another key')
    t.equal(keys[1], keys[2], 'a repetition, the same key')
  })

  await visit('an unknown outcome is not retried: a new try is a new key', async (t, { page, created }) => {
    await signIn(page, 'Ben Okafor')
    const keys = keysOf(page)
    const before = await posts()
    await page.getByLabel('Connection lost').check()
    await start(page).click()
    await heading(page, notKnown).waitFor()
    t.equal(created(), 1, 'the page does not retry by itself')
    t.match(await page.locator('#reference').innerText(), /^Reference [\w-]+$/)
    await isAccessible(t, page, 'an unknown outcome')
    await page.getByRole('button', { name: startNew }).click()
    await heading(page, 'Tell us about your business').waitFor()
    t.equal(new Set(keys).size, 2)
    t.equal((await posts()) - before, 2)
  })

  for (const [fault, isOpened] of [
    ['No fault', true],
    ['Connection lost', false],
  ] as const) {
    await visit(`a lost response is retried with the same key: ${fault}`, async (t, { page }) => {
      await signIn(page, 'Ben Okafor')
      const keys = keysOf(page)
      const before = await posts()
      await page.getByLabel(fault).check()
      await page.route(
        isServiceUrl,
        async (route) => {
          await route.fetch()
          await route.abort()
        },
        { times: 1 },
      )
      await start(page).click()
      await heading(page, 'You seem to be offline').waitFor()
      await page.getByRole('button', { name: 'Try again' }).click()
      if (!isOpened) {
        await heading(page, notKnown).waitFor()
        t.equal((await posts()) - before, 1, 'the service has kept the unknown outcome')
        await page.getByRole('button', { name: startNew }).click()
      }
      await heading(page, 'Tell us about your business').waitFor()
      t.equal(keys[0], keys[1])
      t.equal(new Set(keys).size, isOpened ? 1 : 2)
      t.equal((await posts()) - before, isOpened ? 1 : 2)
    })
  }

  const ways = ['on its own page', 'within this page']

  /** Keeps the next response back, which is complete by then, until it is released. */
  async function hold(page: Page, isHeld: (url: URL) => boolean, { isLost = false } = {}) {
    let release = () => {}
    const released = new Promise<void>((resolve) => {
      release = resolve
    })
    let end = () => {}
    const ended = new Promise<void>((resolve) => {
      end = resolve
    })
    const arrived = new Promise<void>((resolve) => {
      page.route(
        isHeld,
        async (route) => {
          const response = await route.fetch()
          resolve()
          await released
          // The page may have given the request up.
          await (isLost ? route.abort() : route.fulfill({ response })).catch(() => {})
          end()
        },
        { times: 1 },
      )
    })
    return {
      arrived,
      /** Resolves when the page has had the time to handle the response. */
      release: async () => {
        release()
        await inTime(ended, 'the page to get the held response')
        await page.evaluate(`fetch('/settings.json').then((response) => response.text())`)
      },
    }
  }

  /** Nothing of the user before, and everything that this user does works. */
  async function isAtHome(t: Test, page: Page, clientId: string): Promise<void> {
    t.equal(page.url(), `${urls.demo}/`)
    t.equal(await page.locator('iframe').count(), 0, 'no form')
    t.notOk(await page.locator('#notice').isVisible(), 'no notice')
    t.equal(await page.locator('#log li').count(), 0, 'no log entry')
    t.equal(await page.locator('#live').textContent(), '', 'nothing is announced')
    await page.getByLabel('within this page').check()
    await start(page).click()
    await frameOf(page).getByRole('heading', { name: 'Tell us about your business' }).waitFor()
    const { json } = await send(`${urls.idenfy}/_sandbox/requests`)
    t.equal(json.filter(({ body }: { body?: object }) => body).at(-1).body.clientId, clientId)
    t.equal(await page.locator('#log li').count(), 1)
  }

  for (const way of ways) {
    await visit(
      `a user who signs in sees no form of the one before, ${way}`,
      async (t, { page, created }) => {
        await signIn(page, 'Ada Martin')
        await page.getByLabel(way).check()
        const held = await hold(page, isServiceUrl)
        await start(page).click()
        await inTime(held.arrived, 'the held response')
        await page.getByRole('button', { name: 'Sign out' }).click()
        await signIn(page, 'Ben Okafor')
        t.equal(await start(page).getAttribute('aria-disabled'), 'false', 'the button is free')
        await held.release()
        await isAtHome(t, page, 'globex')
        t.equal(created(), 2)
      },
    )
  }

  await visit('a user who signs in sees no failure of the one before', async (t, { page, created }) => {
    const rows: [fault: string, options?: { isLost: boolean }][] = [
      ['iDenfy rejects our API key'],
      ['Connection lost'],
      ['iDenfy limits our requests'],
      ['Invalid access token'],
      ['No fault', { isLost: true }],
    ]
    for (const [fault, options] of rows) {
      await signIn(page, 'Ada Martin')
      await page.getByLabel(fault).check()
      const before = created()
      const held = await hold(page, isServiceUrl, options)
      await start(page).click()
      await inTime(held.arrived, 'the held response')
      await page.getByRole('button', { name: 'Sign out' }).click()
      await signIn(page, 'Ben Okafor')
      t.ok(await page.getByLabel('No fault').isChecked(), 'the fault was not for this user')
      await held.release()
      await isAtHome(t, page, 'globex')
      t.equal(created() - before, 2, `${fault}: no retry for a user who has left`)
      await page.getByRole('button', { name: 'Sign out' }).click()
      t.equal(await page.locator('iframe').count(), 0)
      t.equal(await page.locator('#log li').count(), 0)
    }
  })

  await visit('a click works while a request of the user before still runs', async (t, { page }) => {
    await signIn(page, 'Ada Martin')
    const held = await hold(page, isServiceUrl)
    await start(page).click()
    await inTime(held.arrived, 'the held response')
    await page.getByRole('button', { name: 'Sign out' }).click()
    await signIn(page, 'Ben Okafor')
    await isAtHome(t, page, 'globex')
    await held.release()
    t.equal(await page.locator('iframe').count(), 1)
    t.equal(await page.locator('#log li').count(), 1)
  })

  await visit('of two sign-ins the later one counts', async (t, { page }) => {
    for (const isLost of [false, true]) {
      const held = await hold(page, isIdentityUrl, { isLost })
      await page.getByRole('button', { name: 'Ada Martin' }).click()
      await inTime(held.arrived, 'the held response')
      await signIn(page, 'Ben Okafor')
      await held.release()
      t.equal(await page.locator('#who-name').textContent(), 'Ben Okafor')
      await page.getByRole('button', { name: 'Sign out' }).click()
      t.notOk(await page.locator('#sign-in-fault').isVisible(), 'nor does its failure')
    }
    const held = await hold(page, isIdentityUrl)
    await page.getByLabel('Show a message').selectOption('internal-error')
    await inTime(held.arrived, 'the held response')
    await signIn(page, 'Ben Okafor')
    await held.release()
    await isAtHome(t, page, 'globex')
  })

  await visit('a sign-in that is restored gives way to a click', async (t, { page }) => {
    await signIn(page, 'Ada Martin')
    await page.evaluate(`sessionStorage.setItem('left-for-form', 'u-ada')`)
    const held = await hold(page, isIdentityUrl)
    await page.reload()
    await inTime(held.arrived, 'the held response')
    await signIn(page, 'Ben Okafor')
    await held.release()
    t.equal(await page.locator('#who-name').textContent(), 'Ben Okafor')
    await isAtHome(t, page, 'globex')
  })

  await visit(
    'an access token that is fetched for a click is not waited for after sign-out',
    async (t, { page, created }) => {
      await signIn(page, 'Ada Martin')
      await page.getByLabel('Slow response').check()
      const held = await hold(page, isIdentityUrl)
      await start(page).click()
      await inTime(held.arrived, 'the held response')
      await page.getByRole('button', { name: 'Sign out' }).click()
      await signIn(page, 'Ben Okafor')
      await held.release()
      t.equal(created(), 0, 'nothing is sent for a user who has left')
      await isAtHome(t, page, 'globex')
    },
  )

  for (const way of ways) {
    await visit(`another company is another verification, ${way}`, async (t, { page }) => {
      await signIn(page, 'Chris Lindqvist')
      await page.getByLabel(way).check()
      const keys = keysOf(page)
      const held = await hold(page, isServiceUrl)
      await start(page).click()
      await inTime(held.arrived, 'the held response')
      await page.getByLabel('Which company?').selectOption('Initech Paper')
      t.equal(await start(page).getAttribute('aria-disabled'), 'false')
      await held.release()
      await isAtHome(t, page, 'initech')
      t.equal(new Set(keys).size, 2)
    })
  }

  await visit('a failure goes with its company', async (t, { page }) => {
    await signIn(page, 'Chris Lindqvist')
    const keys = keysOf(page)
    await page.getByLabel('A session is already open').check()
    await start(page).click()
    await heading(page, 'Your company is already being verified').waitFor()
    await page.getByLabel('Which company?').selectOption('Initech Paper')
    t.notOk(await page.locator('#notice').isVisible())
    await start(page).click()
    await heading(page, 'Tell us about your business').waitFor()
    t.equal(new Set(keys).size, 2)
  })

  await visit('a form that begins to load does not open after sign-out', async (t, { page }) => {
    await signIn(page, 'Ada Martin')
    const held = await hold(page, isFormUrl)
    // The page clicks itself: from outside, nothing can be done until the form has loaded.
    await page.route('**/form-is-loading', async (route) => {
      await inTime(held.arrived, 'the held response')
      await route.fulfill({ status: 204 })
    })
    await page.evaluate(`addEventListener('beforeunload', async () => {
      await fetch('/form-is-loading')
      document.getElementById('sign-out').click()
      document.querySelector('#people li:nth-child(2) button').click()
    }, { once: true })`)
    await start(page).click()
    await page.locator('#who-name').getByText('Ben Okafor').waitFor()
    await held.release()
    await page.reload()
    await page.getByRole('heading', { name: 'Verify your business' }).waitFor()
    t.equal(await page.locator('#who-name').textContent(), 'Ben Okafor')
    await isAtHome(t, page, 'globex')
  })

  await visit('timers end with the user they belong to', async (t, { page }) => {
    await page.clock.install()
    await page.goto(urls.demo)
    for (const fault of ['iDenfy limits our requests', 'Slow response']) {
      await signIn(page, 'Ada Martin')
      await page.getByLabel(fault).check()
      const held = await hold(page, isServiceUrl)
      await start(page).click()
      await inTime(held.arrived, 'the held response')
      if (fault === 'iDenfy limits our requests') {
        await held.release()
        await page.getByText(/^Try again in \d+ s$/).waitFor()
      }
      await page.getByRole('button', { name: 'Sign out' }).click()
      await signIn(page, 'Ben Okafor')
      await page.clock.runFor(60_000)
      t.equal(await page.locator('#live').textContent(), '', fault)
      await held.release()
      await page.getByRole('button', { name: 'Sign out' }).click()
    }
    await signIn(page, 'Ada Martin')
    await page.getByLabel('within this page').check()
    await start(page).click()
    await heading(page, 'Your business').waitFor()
    await page.getByRole('button', { name: 'Sign out' }).click()
    await signIn(page, 'Ben Okafor')
    t.equal(await page.locator('iframe').count(), 0)
    await page.clock.fastForward('02:00:00')
    await isAtHome(t, page, 'globex')
  })

  await visit('a page out of the browser’s memory belongs to the user of the tab', async (t, { page }) => {
    await signIn(page, 'Ada Martin')
    await page.getByLabel('within this page').check()
    await start(page).click()
    await heading(page, 'Your business').waitFor()
    const comeBack = () =>
      page.evaluate(`dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))`)
    await comeBack()
    t.equal(await page.locator('iframe').count(), 1, 'the same user continues')

    await page.evaluate(`sessionStorage.setItem('user', 'u-ben')`)
    await comeBack()
    await page.locator('#who-name').getByText('Ben Okafor').waitFor()
    await isAtHome(t, page, 'globex')

    await page.evaluate('sessionStorage.clear()')
    await comeBack()
    await heading(page, 'Welcome to Northgate').waitFor()
  })

  await visit('a service that cannot be reached, and too many requests', async (t, { page }) => {
    await signIn(page, 'Ben Okafor')
    await page.getByLabel('Too many requests').check()
    await start(page).click()
    await heading(page, 'One moment, please').waitFor()
    const button = page.locator('#notice-button')
    t.match(await button.textContent(), /^Try again in \d+ s$/)
    t.equal(await button.getAttribute('aria-disabled'), 'true')
    await shoot(page, 'fault-rate-limited')
  })

  await visit(
    'every problem code has a message, on a phone, in the dark',
    async (t, { page }) => {
      await shoot(page, 'phone-sign-in')
      await signIn(page, 'Chris Lindqvist')
      for (const code of problemCodes) {
        await page.getByLabel('Show a message').selectOption(code)
        t.ok((await page.locator('#notice-text').innerText()).length > 20, code)
        const overflow = await page.evaluate('document.documentElement.scrollWidth - innerWidth')
        t.equal(overflow, 0, 'nothing is wider than the screen')
      }
      await isAccessible(t, page, 'phone, dark')
      await shoot(page, 'phone-notice')
      await page.getByLabel('within this page').check()
      await start(page).tap()
      await frameOf(page).getByRole('heading', { name: 'Tell us about your business' }).waitFor()
      await shoot(page, 'phone-iframe')
      await isAccessible(t, page, 'phone, iframe')
    },
    { ...phone, colorScheme: 'dark', reducedMotion: 'reduce' },
  )

  await visit('by keyboard alone', async (_t, { page }) => {
    await page.getByRole('button', { name: 'Ada Martin' }).waitFor()
    for (let step = 0; step < 3; step += 1) await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    const company = page.getByLabel('Which company?')
    await company.waitFor()
    await page.locator('#verify h1:focus').waitFor()
    await page.keyboard.press('Tab')
    await page.locator('#company:focus').waitFor()
    await page.keyboard.press('ArrowDown')
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    await heading(page, 'Tell us about your business').waitFor()
  })

  await visit('the README’s code in a page of one’s own', async (_t, { page }) => {
    const [, code = ''] = /^```js\n([\s\S]*?)^```$/m.exec(readFileSync('README.md', 'utf8')) ?? []
    await page.goto(ownOrigin)
    await page.addScriptTag({
      type: 'module',
      content: code
        .replace('http://127.0.0.1:4011', urls.identity)
        .replace('http://127.0.0.1:3000', urls.service),
    })
    await heading(page, 'Tell us about your business').waitFor()
  })

  await visit('the documentation', async (t, { page }) => {
    await page.goto(`${urls.service}/docs`)
    await page.getByText('/onboarding/kyb-token').first().click()
    await page.getByText('Idempotency-Key').first().waitFor()
    await page.screenshot({ path: `${shots}/docs.png` })
    await page.goto(`${urls.service}/problems/provider-timeout`)
    await heading(page, 'The verification provider did not respond in time').waitFor()
    await shoot(page, 'problem')
    await isAccessible(t, page, 'a problem')
  })
})
