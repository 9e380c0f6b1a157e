import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { networkInterfaces } from 'node:os'
import { promisify } from 'node:util'
import { type BrowserContextOptions, chromium, type Page, type Request } from 'playwright-core'
import t, { type Test } from 'tap'
import { problemCodes } from '../../sandbox/demo/messages.js'
import { inTime, listen, send, spawnNode } from '../helper.js'
import { smallPng } from './small-png.js'

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
const shots = '.screenshots'
/** A host whose pages have no secure context, like this machine in the browser of a phone. */
const networkHost = Object.values(networkInterfaces())
  .flat()
  .find((network) => network?.family === 'IPv4' && !network.internal)?.address
const missing =
  !existsSync(executablePath) && `there is no ${executablePath}: install chromium, or set CHROMIUM`
// What a developer may leave out, CI may not.
if (missing && process.env.CI) throw new Error(missing)

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const phone = { viewport: { width: 375, height: 720 }, isMobile: true, hasTouch: true }
const anyPort = Object.fromEntries(
  ['', 'MANAGEMENT_', 'IDENFY_', 'IDENTITY_', 'DEMO_'].map((part) => [`SANDBOX_${part}PORT`, '0']),
)

async function startSandbox(t: Test, env: Readonly<Record<string, string>>) {
  const sandbox = spawnNode(t, ['dist-sandbox/server.js'], { ...anyPort, ...env })
  await sandbox.waitFor(/demo page +http/)
  const address = (part: string) => String(new RegExp(`${part} +(http\\S+)`).exec(sandbox.output.stdout)?.[1])
  return {
    service: address('service'),
    idenfy: address('iDenfy simulator'),
    identity: address('identity provider'),
    demo: address('demo page'),
  }
}

t.test('the demo page in a real browser', { skip: missing, timeout: 400_000 }, async (t) => {
  mkdirSync(shots, { recursive: true })
  const ownPage = createServer((_request, response) =>
    response.setHeader('content-type', 'text/html').end('<title>'),
  )
  const ownOrigin = `http://localhost:${await listen(t, ownPage)}`
  const urls = await startSandbox(t, { SANDBOX_CORS_ORIGINS: ownOrigin })
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

  interface VisitOptions extends BrowserContextOptions {
    readonly sandbox?: typeof urls
    /** Replaces properties of the page's settings. */
    readonly settings?: object
  }

  /** Runs a test with a page. In the end, the page must not have logged an error or called another origin. */
  function visit(
    name: string,
    run: (t: Test, visit: { page: Page; created: () => number }) => Promise<void>,
    { sandbox = urls, settings, ...options }: VisitOptions = {},
  ) {
    return t.test(name, async (t) => {
      const context = await browser.newContext(options)
      if (settings) {
        await context.route('**/settings.json', async (route) => {
          const response = await route.fetch()
          await route.fulfill({ json: { ...(await response.json()), ...settings } })
        })
      }
      t.teardown(() => context.close())
      const page = await context.newPage()
      const complaints: string[] = []
      const requests: { method: string; url: string; referer: string | undefined }[] = []
      page.on('pageerror', (error) => complaints.push(error.message))
      page.on('console', (message) => {
        const isRefusal = /status of [45]\d\d|net::ERR_(FAILED|INTERNET_DISCONNECTED)/.test(message.text())
        if (message.type() === 'error' && !isRefusal) complaints.push(message.text())
      })
      context.on('request', (request) => {
        requests.push({ method: request.method(), url: request.url(), referer: request.headers().referer })
      })
      await page.goto(sandbox.demo)
      await run(t, { page, created: () => requests.filter(isCreation).length })

      t.strictSame(complaints, [], 'the console is quiet')
      const origins = [...new Set(requests.map(({ url }) => new URL(url).origin))]
      t.strictSame(
        origins.filter((origin) => ![...Object.values(sandbox), ownOrigin].includes(origin)),
        [],
        'no other origin is called',
      )
      const elsewhere = requests.filter(({ url }) => new URL(url).origin !== sandbox.idenfy)
      const told = [...elsewhere.map(({ url }) => url), ...requests.map(({ referer }) => referer ?? '')]
      t.strictSame(
        told.filter((text) => /[0-9a-f]{40}|eyJ/.test(text)),
        [],
        'no URL has a token, except for the form’s',
      )
    })
  }

  const isCreation = ({ method, url }: { method: string; url: string }) =>
    method === 'POST' && url === `${urls.service}/onboarding/kyb-token`

  const isServiceUrl = ({ href }: URL) => href === `${urls.service}/onboarding/kyb-token`
  const isIdentityUrl = ({ href }: URL) => href === `${urls.identity}/token`
  const isIdentityRequest = (request: Request) => request.url() === `${urls.identity}/token`
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
    const { violations } = (await page.evaluate(`axe.run({ resultTypes: ['violations'] })`)) as {
      violations: { id: string; nodes: unknown[] }[]
    }
    t.strictSame(
      violations.map(({ id, nodes }) => [id, nodes]),
      [],
      `axe: ${what}`,
    )
  }

  await visit('a form on its own page, and back', async (t, { page, created }) => {
    await signIn(page, 'Ada Martin')
    await start(page).click()
    await heading(page, 'Tell us about your business').waitFor()
    t.match(page.url(), new RegExp(`^${urls.idenfy}/welcome\\?authToken=[0-9a-f]{40}$`))
    await isAccessible(t, page, 'form')
    await page.getByRole('button', { name: 'Submit' }).click()
    await heading(page, 'Submitted').waitFor()
    await page.reload()
    await heading(page, 'This form has been completed').waitFor()
    await page.goBack()
    await heading(page, 'Welcome back').waitFor()
    await shoot(page, 'welcome-back')
    await page.goForward()
    await heading(page, 'This form has been completed').waitFor()
    t.equal(created(), 1)
  })

  await visit(
    'a form that has ended stays ended when the browser goes back to it',
    async (t, { page, created }) => {
      await signIn(page, 'Ada Martin')
      await start(page).click()
      await heading(page, 'Tell us about your business').waitFor()
      await page.getByRole('button', { name: 'Submit' }).click()
      await page.getByRole('link', { name: 'Back to the page that you came from' }).click()
      await heading(page, 'Welcome back').waitFor()
      await page.goBack()
      await heading(page, 'This form has been completed').waitFor()
      t.equal(created(), 1)
    },
  )

  await visit('a form within the page is sent, fails, expires and closes', async (t, { page }) => {
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

    await page.evaluate(`postMessage(JSON.stringify({ status: 'success' }), '*')`)
    await page.evaluate(
      `document.querySelector('iframe').contentWindow.postMessage({ status: 'success' }, '*')`,
    )
    t.ok(await page.locator('iframe').isVisible(), 'a message of another window is ignored')

    await frameOf(page).getByRole('button', { name: 'Submit' }).click()
    await heading(page, 'Thank you').waitFor()
    t.equal(await page.locator('iframe').count(), 0, 'the token is gone with the frame')

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
    await page.getByLabel('iDenfy takes three seconds').check()
    await start(page).dblclick()
    await page.getByRole('button', { name: 'Opening the form' }).waitFor()
    await shoot(page, 'loading')
    await heading(page, 'Tell us about your business').waitFor()
    t.equal(created(), 1)
    t.equal((await posts()) - before, 1)
  })

  await visit('a user of two companies chooses one', async (t, { page }) => {
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

  await visit('every simulated problem has a true text, and a reference', async (t, { page }) => {
    const rows: [string, string, string, string | undefined][] = [
      ['iDenfy has an internal error', notKnown, startNew, 'provider-outcome-unknown'],
      ['iDenfy does not respond in time', notKnown, startNew, 'provider-timeout'],
      ['The connection to iDenfy breaks', notKnown, startNew, 'provider-outcome-unknown'],
      [
        'The company already has an open form',
        'A verification is already open',
        'Try again',
        'kyb-session-conflict',
      ],
      [
        'iDenfy limits our account',
        'Our verification partner asks us to wait',
        'Try again',
        'provider-rate-limited',
      ],
      [
        'iDenfy does not accept our API key',
        'Verification is not available right now',
        '',
        'provider-rejected',
      ],
      ['iDenfy sends an incomplete response', notKnown, startNew, 'provider-bad-response'],
      [
        'The user chooses someone else’s company',
        'Your account is not linked to this company',
        '',
        'company-not-allowed',
      ],
      [
        'The page sets an option it may not set',
        'Something went wrong on our side',
        '',
        'field-not-permitted',
      ],
      ['The user’s sign-in is not valid', 'Please sign in again', 'Sign in', 'invalid-token'],
    ]
    await signIn(page, 'Ada Martin')
    for (const [fault, title, button, code] of rows) {
      await page.getByLabel(fault).check()
      await start(page).click()
      await heading(page, title).waitFor()
      await page.locator('#notice-title:focus').waitFor()
      const response = String(await page.locator('#exchange-response').textContent())
      const [, requestId] = /^X-Request-Id: (.+)$/m.exec(response) ?? []
      t.match(requestId, /^[\w-]{36}$/)
      t.equal(await page.locator('#reference').innerText(), `Reference ${requestId}`)
      t.equal(await page.locator('#log li a').first().textContent(), code, fault)
      const offered = page.locator('#notice-button')
      t.equal(await offered.isVisible(), button !== '')
      if (button) t.match(await offered.textContent(), button)
      t.notMatch(await page.locator('#notice-text').innerText(), /iDenfy|token|provider|\d{3}/, 'plain words')
    }
    await page.locator('#notice-button').click()
    await heading(page, 'Welcome to Northgate').waitFor()

    await signIn(page, 'Chris Lindqvist')
    await page.getByLabel('The connection to iDenfy breaks').check()
    await start(page).click()
    await heading(page, notKnown).waitFor()
    await page.getByRole('button', { name: startNew }).click()
    await heading(page, 'Tell us about your business').waitFor()
  })

  await visit('a click has one key for all its retries', async (t, { page }) => {
    await signIn(page, 'Ben Okafor')
    const keys = keysOf(page)
    for (const name of ['first', 'second']) {
      await page.getByLabel('The company already has an open form').check()
      await start(page).click()
      await heading(page, 'A verification is already open').waitFor()
      t.ok(keys.length > 0, name)
    }
    await page.getByRole('button', { name: 'Try again' }).click()
    await heading(page, 'Tell us about your business').waitFor()
    t.equal(keys.length, 3)
    t.not(keys[0], keys[1], 'a new click has a new key')
    t.equal(keys[1], keys[2], 'a retry has the same key')
  })

  await visit(
    'an unknown outcome is not retried, and the next try has a new key',
    async (t, { page, created }) => {
      await signIn(page, 'Ben Okafor')
      const keys = keysOf(page)
      const before = await posts()
      await page.getByLabel('The connection to iDenfy breaks').check()
      await start(page).click()
      await heading(page, notKnown).waitFor()
      t.equal(created(), 1, 'the page does not retry by itself')
      t.match(await page.locator('#reference').innerText(), /^Reference [\w-]+$/)
      await page.getByRole('button', { name: startNew }).click()
      await heading(page, 'Tell us about your business').waitFor()
      t.equal(new Set(keys).size, 2)
      t.equal((await posts()) - before, 2)
    },
  )

  for (const [fault, isOpened] of [
    ['No problem', true],
    ['The connection to iDenfy breaks', false],
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
      await heading(page, 'We got no response').waitFor()
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

  /** The page shows nothing of the previous user, and works for this one. */
  async function isAtHome(t: Test, page: Page, clientId: string): Promise<void> {
    t.equal(page.url(), `${urls.demo}/`)
    t.equal(await page.locator('iframe').count(), 0, 'no form')
    t.notOk(await page.locator('#notice').isVisible(), 'no notice')
    t.notOk(await page.locator('#exchange').isVisible(), 'no exchange')
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
      `a user who signs in does not get the form of the previous user, ${way}`,
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

  await visit(
    'a user who signs in does not get a failure of the previous user',
    async (t, { page, created }) => {
      const rows: [fault: string, options?: { isLost: boolean }][] = [
        ['iDenfy does not accept our API key'],
        ['The connection to iDenfy breaks'],
        ['iDenfy limits our account'],
        ['The user’s sign-in is not valid'],
        ['No problem', { isLost: true }],
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
        t.ok(await page.getByLabel('No problem').isChecked(), 'the problem was not for this user')
        await held.release()
        await isAtHome(t, page, 'globex')
        t.equal(created() - before, 2, `${fault}: no retry for a user who has left`)
        await page.getByRole('button', { name: 'Sign out' }).click()
        t.equal(await page.locator('iframe').count(), 0)
        t.equal(await page.locator('#log li').count(), 0)
      }
    },
  )

  await visit('a click works while a request of the previous user is in flight', async (t, { page }) => {
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

  await visit('the later one of two sign-ins counts', async (t, { page }) => {
    for (const isLost of [false, true]) {
      const held = await hold(page, isIdentityUrl, { isLost })
      await page.getByRole('button', { name: 'Ada Martin' }).click()
      await inTime(held.arrived, 'the held response')
      await signIn(page, 'Ben Okafor')
      await held.release()
      t.equal(await page.locator('#who-name').textContent(), 'Ben Okafor')
      await page.getByRole('button', { name: 'Sign out' }).click()
      t.notOk(await page.locator('#sign-in-fault').isVisible(), 'the failure of the first one is ignored')
    }
    const held = await hold(page, isIdentityUrl)
    await page.getByLabel('Preview a message to applicants').selectOption('internal-error')
    await inTime(held.arrived, 'the held response')
    await signIn(page, 'Ben Okafor')
    await held.release()
    await isAtHome(t, page, 'globex')
  })

  await visit('a click ends the sign-in that a reload restores', async (t, { page }) => {
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

  await visit('a click of a user who has signed out sends nothing', async (t, { page, created }) => {
    await signIn(page, 'Ada Martin')
    await page.getByLabel('iDenfy takes three seconds').check()
    const held = await hold(page, isIdentityUrl)
    await start(page).click()
    await inTime(held.arrived, 'the held response')
    await page.getByRole('button', { name: 'Sign out' }).click()
    await signIn(page, 'Ben Okafor')
    await held.release()
    t.equal(created(), 0, 'nothing is sent for a user who has left')
    await isAtHome(t, page, 'globex')
  })

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

  await visit('another company clears the failure', async (t, { page }) => {
    await signIn(page, 'Chris Lindqvist')
    const keys = keysOf(page)
    await page.getByLabel('The company already has an open form').check()
    await start(page).click()
    await heading(page, 'A verification is already open').waitFor()
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

  await visit('timers end when their user signs out', async (t, { page }) => {
    await page.clock.install()
    await page.goto(urls.demo)
    for (const fault of ['iDenfy limits our account', 'iDenfy takes three seconds']) {
      await signIn(page, 'Ada Martin')
      await page.getByLabel(fault).check()
      const held = await hold(page, isServiceUrl)
      await start(page).click()
      await inTime(held.arrived, 'the held response')
      if (fault === 'iDenfy limits our account') {
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

  await visit('a page of the back/forward cache belongs to the user of the tab', async (t, { page }) => {
    await signIn(page, 'Ada Martin')
    await page.getByLabel('within this page').check()
    await start(page).click()
    await heading(page, 'Your business').waitFor()
    const comeBack = () =>
      page.evaluate(`dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))`)
    await comeBack()
    t.equal(await page.locator('iframe').count(), 1, 'the same user continues')

    await page.evaluate(`sessionStorage.clear(); sessionStorage.setItem('user', 'u-ben')`)
    await comeBack()
    await page.locator('#who-name').getByText('Ben Okafor').waitFor()
    await isAtHome(t, page, 'globex')

    await page.evaluate('sessionStorage.clear()')
    await comeBack()
    await heading(page, 'Welcome to Northgate').waitFor()
  })

  await visit('a user who tries too often can retry after a countdown', async (t, { page }) => {
    await signIn(page, 'Ben Okafor')
    await page.getByLabel('The user tries too often').check()
    await start(page).click()
    await heading(page, 'Too many attempts').waitFor()
    const button = page.locator('#notice-button')
    t.match(await button.textContent(), /^Try again in \d+ s$/)
    t.equal(await button.getAttribute('aria-disabled'), 'true')
    await shoot(page, 'fault-rate-limited')
  })

  await visit(
    'every problem code has a message that fits on a phone',
    async (t, { page }) => {
      await signIn(page, 'Chris Lindqvist')
      for (const code of problemCodes) {
        await page.getByLabel('Preview a message to applicants').selectOption(code)
        t.ok((await page.locator('#notice-text').innerText()).length > 20, code)
        const overflow = await page.evaluate('document.documentElement.scrollWidth - innerWidth')
        t.equal(overflow, 0, 'nothing is wider than the screen')
      }
      await page.getByLabel('within this page').check()
      await start(page).tap()
      await frameOf(page).getByRole('heading', { name: 'Tell us about your business' }).waitFor()
    },
    { ...phone, colorScheme: 'dark', reducedMotion: 'reduce' },
  )

  /** Opens every part of the panel about the last request. */
  const openExchange = (page: Page) =>
    page.evaluate(`for (const part of document.querySelectorAll('#exchange details')) part.open = true`)
  const exchangeText = async (page: Page, part: string) =>
    String(await page.locator(`#exchange-${part}`).textContent())

  await visit(
    'the panel shows the last request, its response and what reached iDenfy',
    async (t, { page }) => {
      await signIn(page, 'Chris Lindqvist')
      await page.getByLabel('Which company?').selectOption('Initech Paper')
      await page.getByLabel('within this page').check()
      await start(page).click()
      await frameOf(page).getByRole('heading', { name: 'Tell us about your business' }).waitFor()
      t.match(await page.locator('#exchange-result').innerText(), /^201 · \d+ ms$/)
      t.match(
        await exchangeText(page, 'request'),
        /^POST http:\S+\/onboarding\/kyb-token\nAuthorization: Bearer <access token>\nIdempotency-Key: [0-9a-f]{32}\nX-Company-Id: initech$/,
      )
      const response = await exchangeText(page, 'response')
      for (const line of ['201 Created', 'RateLimit: ', 'X-Request-Id: ', '"tokenString": "<hidden>"'])
        t.match(response, line)
      t.match(
        await exchangeText(page, 'received'),
        /^POST \/kyb\/tokens\/\n\n\{\n[^}]*"clientId": "initech",\n {2}"externalRef": "u-chris-[^}]*\}$/,
      )
      const stored = JSON.stringify(await page.evaluate('({ ...sessionStorage })'))
      const text = await page.evaluate('document.body.textContent')
      t.notMatch(stored + text, /[0-9a-f]{40}|eyJ/, 'neither the page nor its storage has a token')

      const before = await posts()
      const command = await exchangeText(page, 'curl')
      const { stdout } = await promisify(execFile)('sh', ['-c', command], { timeout: 60_000 })
      t.match(stdout, /^HTTP\/1\.1 201 /)
      t.match(stdout, /\nidempotency-replayed: true\r/i)
      t.match(stdout, '"clientId":"initech"')
      t.equal(await posts(), before, 'the command opens no second verification')

      await page.getByRole('button', { name: 'Close the form' }).click()
      await page.getByLabel('The user chooses someone else’s company').check()
      await start(page).click()
      await heading(page, 'Your account is not linked to this company').waitFor()
      t.match(
        await page.locator('#exchange-result').innerText(),
        /^403 company-not-allowed · \d+ ms · Simulated: /,
      )
      t.equal(await exchangeText(page, 'received'), 'Nothing reached iDenfy.')
      t.match(await exchangeText(page, 'request'), '\nX-Company-Id: umbrella')

      await page.getByLabel('The page sets an option it may not set').check()
      await start(page).click()
      await heading(page, 'Something went wrong on our side').waitFor()
      await openExchange(page)
      await isAccessible(t, page, 'an exchange')
      const refused = await promisify(execFile)('sh', ['-c', await exchangeText(page, 'curl')])
      t.match(refused.stdout, '"code":"field-not-permitted"', 'the command sends the same body')

      await page.reload()
      await page.locator('#exchange-result').waitFor()
      t.match(await exchangeText(page, 'response'), '403 Forbidden', 'a reload keeps the exchange')
      await page.getByRole('button', { name: 'Sign out' }).click()
      t.notOk(await page.locator('#exchange').isVisible())
      t.notMatch(await page.locator('#exchange').textContent(), 'field-not-permitted')
    },
  )

  await visit('the curl command can be copied with the keyboard', async (t, { page }) => {
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write'])
    await signIn(page, 'Ada Martin')
    await page.getByLabel('The user’s sign-in is not valid').check()
    await start(page).click()
    await heading(page, 'Please sign in again').waitFor()
    const command = page.getByText('Send it again with')
    await command.focus()
    await page.keyboard.press('Enter')
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    await page.locator('#copied').getByText('Copied').waitFor()
    const copied = await page.evaluate('navigator.clipboard.readText()')
    t.equal(copied, await exchangeText(page, 'curl'))
    t.match(copied, `-H 'Authorization: Bearer none'`)
  })

  await visit(
    'the chosen company is kept on the way back from the form, and by a reload',
    async (t, { page }) => {
      await signIn(page, 'Chris Lindqvist')
      await page.getByLabel('Which company?').selectOption('Initech Paper')
      await start(page).click()
      await heading(page, 'Tell us about your business').waitFor()
      await page.getByRole('button', { name: 'Submit' }).click()
      await page.getByRole('link', { name: 'Back to the page that you came from' }).click()
      await heading(page, 'Welcome back').waitFor()
      const company = page.getByLabel('Which company?')
      t.equal(await company.inputValue(), 'initech')
      t.match(await exchangeText(page, 'request'), 'X-Company-Id: initech', 'so is the last request')
      await page.reload()
      await page.locator('#verify h1:focus').waitFor()
      t.equal(await company.inputValue(), 'initech')
      await page.getByRole('button', { name: 'Sign out' }).click()
      await signIn(page, 'Chris Lindqvist')
      t.equal(await company.inputValue(), 'hooli', 'a new sign-in starts with the first company')
    },
  )

  await visit('a form ends once, wherever it is open', async (t, { page }) => {
    await signIn(page, 'Ada Martin')
    await start(page).click()
    await heading(page, 'Tell us about your business').waitFor()
    const restored = await page.context().newPage()
    await restored.goto(page.url())
    const other = await page.context().newPage()
    await other.goto(page.url())
    await heading(other, 'Tell us about your business').waitFor()
    await heading(restored, 'Tell us about your business').waitFor()

    await page.getByRole('button', { name: 'Submit' }).click()
    await heading(page, 'Submitted').waitFor()
    await other.getByRole('button', { name: 'Fail' }).click()
    await heading(other, 'This form has been completed').waitFor()
    await restored.evaluate(`dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))`)
    await heading(restored, 'This form has been completed').waitFor()
    t.notOk(await restored.getByRole('button', { name: 'Submit' }).isVisible())
  })

  await visit('a form that cannot be sent says so, and stays open', async (t, { page }) => {
    await signIn(page, 'Ada Martin')
    await start(page).click()
    await heading(page, 'Tell us about your business').waitFor()
    await page.context().setOffline(true)
    await page.getByRole('button', { name: 'Submit' }).click()
    await page.getByText('The form could not be sent').waitFor()
    await isAccessible(t, page, 'a form that could not be sent')
    await page.context().setOffline(false)
    await page.getByRole('button', { name: 'Submit' }).click()
    await heading(page, 'Submitted').waitFor()
  })

  await visit('a simulated problem applies to one tab only', async (t, { page }) => {
    const other = await page.context().newPage()
    await other.goto(urls.demo)
    await signIn(page, 'Ada Martin')
    await signIn(other, 'Ada Martin')
    let arrive = () => {}
    const arrived = new Promise<void>((resolve) => {
      arrive = resolve
    })
    let release = () => {}
    const released = new Promise<void>((resolve) => {
      release = resolve
    })
    await page.route(isServiceUrl, async (route) => {
      arrive()
      await released
      await route.continue()
    })
    await page.getByLabel('iDenfy does not accept our API key').check()
    await start(page).click()
    await inTime(arrived, 'the request of the first tab')
    await start(other).click()
    await heading(other, 'Tell us about your business').waitFor()
    release()
    await heading(page, 'Verification is not available right now').waitFor()
    t.match(await exchangeText(page, 'received'), /^POST \/kyb\/tokens\/[^/]*$/, 'only its own request')
  })

  await visit(
    'without user ids at iDenfy, the page says that a problem applies to any tab',
    async (t, { page }) => {
      const faults: unknown[] = []
      page.on('request', (request) => {
        if (request.url().endsWith('/_sandbox/faults') && request.method() === 'PUT')
          faults.push(request.postDataJSON())
      })
      await page.getByText('The problem applies to the next request from any tab').waitFor()
      await signIn(page, 'Ada Martin')
      await page.getByLabel('The company already has an open form').check()
      await start(page).click()
      await heading(page, 'A verification is already open').waitFor()
      t.strictSame(faults, [{ status: 409, identifier: 'CONFLICT', times: 1 }, {}])
      t.match(await exchangeText(page, 'received'), /^POST \/kyb\/tokens\/[^/]*$/)
    },
    { settings: { faultsByCaller: false } },
  )

  await visit('a reset ends a problem that someone has set', async (t, { page }) => {
    await send(`${urls.idenfy}/_sandbox/faults`, {
      method: 'PUT',
      body: JSON.stringify({ status: 402 }),
      headers: { 'content-type': 'application/json' },
    })
    await signIn(page, 'Ada Martin')
    await start(page).click()
    await heading(page, 'Verification is not available right now').waitFor()
    await page.getByRole('button', { name: 'Reset the simulator' }).click()
    await page.locator('#reset-done').getByText('Done').waitFor()
    t.equal(await posts(), 0)
    await start(page).click()
    await heading(page, 'Tell us about your business').waitFor()
  })

  await visit(
    'the page requests access tokens with the scope that the service requires',
    async (t, { page }) => {
      const asked = page.waitForRequest(isIdentityRequest)
      await signIn(page, 'Ada Martin')
      t.match((await asked).postDataJSON(), { companyIds: ['acme'], scope: 'kyb:create' })
      await page.getByLabel('within this page').check()
      await start(page).click()
      await frameOf(page).getByRole('heading', { name: 'Tell us about your business' }).waitFor()
      t.match(await exchangeText(page, 'curl'), '"scope":"kyb:create"')
    },
    { settings: { scope: 'kyb:create' } },
  )

  await visit(
    'without a response, the page says whether the device is offline',
    async (t, { page, created }) => {
      await signIn(page, 'Ben Okafor')
      await page.context().setOffline(true)
      await start(page).click()
      await heading(page, 'You seem to be offline').waitFor()
      t.notOk(await page.locator('#reference').isVisible(), 'there is no request id')
      t.match(await exchangeText(page, 'response'), /^No response, so there is no request id\./)
      t.equal(await exchangeText(page, 'received'), 'The simulator of iDenfy did not respond.')
      await page.context().setOffline(false)

      await page.route(isServiceUrl, (route) => route.abort(), { times: 1 })
      await page.getByRole('button', { name: 'Try again' }).click()
      await heading(page, 'We got no response').waitFor()
      t.equal(await exchangeText(page, 'received'), 'Nothing reached iDenfy.')

      await page.route(
        isServiceUrl,
        (route) => route.fulfill({ status: 502, body: '<h1>Bad gateway</h1>' }),
        {
          times: 1,
        },
      )
      await page.getByRole('button', { name: 'Try again' }).click()
      await page.getByText('502 · ').first().waitFor()
      await heading(page, 'We got no response').waitFor()

      const before = created()
      await page.route(isIdentityUrl, (route) => route.abort(), { times: 1 })
      await page.getByLabel('iDenfy takes three seconds').check()
      await start(page).click()
      await page.getByText('the identity provider issued no access token').waitFor()
      await heading(page, 'We got no response').waitFor()
      t.equal(created(), before)
    },
  )

  if (networkHost === undefined) t.pass('without a network, there is no page without a secure context')
  else {
    const sandbox = await startSandbox(t, { SANDBOX_HOST: networkHost })
    await visit(
      'a phone in the same network has no secure context, and the page works',
      async (t, { page }) => {
        t.equal(await page.evaluate('isSecureContext'), false)
        await signIn(page, 'Ada Martin')
        await page.getByLabel('The company already has an open form').check()
        await start(page).tap()
        await heading(page, 'A verification is already open').waitFor()
        await openExchange(page)
        await page.getByRole('button', { name: 'Copy' }).tap()
        await page
          .locator('#copied')
          .getByText(/^(Copied|Selected)/)
          .waitFor()
        t.equal(await page.evaluate('getSelection().toString()'), await exchangeText(page, 'curl'))
        await page.getByLabel('within this page').check()
        await page.getByRole('button', { name: 'Try again' }).tap()
        await frameOf(page).getByText('because it has no HTTPS').waitFor()
        await frameOf(page).getByRole('button', { name: 'Submit' }).tap()
        await heading(page, 'Thank you').waitFor()
      },
      { ...phone, sandbox },
    )
  }

  await visit(
    'every view is accessible and fits, from 320 to 1280 pixels, light and dark',
    async (t, { page }) => {
      const look = async (view: string) => {
        for (const colorScheme of ['light', 'dark'] as const) {
          await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
          for (const width of [1280, 768, 320]) {
            await page.setViewportSize({ width, height: 800 })
            await shoot(page, `${view}-${width}-${colorScheme}`)
            const overflow = await page.evaluate('document.documentElement.scrollWidth - innerWidth')
            t.equal(overflow, 0, `${view} at ${width} pixels`)
          }
          await isAccessible(t, page, `${view}, ${colorScheme}`)
        }
      }
      await look('sign-in')
      await signIn(page, 'Chris Lindqvist')
      await look('verify')
      await page.getByLabel('iDenfy has an internal error').check()
      await start(page).click()
      await heading(page, notKnown).waitFor()
      await openExchange(page)
      await look('failure')
      await page.getByLabel('within this page').check()
      await page.getByRole('button', { name: startNew }).click()
      await frameOf(page).getByRole('heading', { name: 'Tell us about your business' }).waitFor()
      await look('form')
      await frameOf(page).getByRole('button', { name: 'Submit' }).click()
      await heading(page, 'Thank you').waitFor()
      await look('done')
    },
  )

  // Set DEMO_IMAGE=1 to draw the image of the README again. The image shows the URL of the service, so port 3000 must be free.
  if (process.env.DEMO_IMAGE) {
    const sandbox = await startSandbox(t, { SANDBOX_PORT: '3000' })
    await visit(
      'the image of the README',
      async (_t, { page }) => {
        await signIn(page, 'Chris Lindqvist')
        await page.getByLabel('iDenfy limits our account').check()
        await start(page).click()
        await heading(page, 'Our verification partner asks us to wait').waitFor()
        await page.getByText('Request', { exact: true }).click()
        await page.getByText('What reached iDenfy', { exact: true }).click()
        await page.evaluate('document.activeElement.blur(); scrollTo(0, 0)')
        const panel = await page.locator('#last').boundingBox()
        const height = Math.ceil(Number(panel?.y) + Number(panel?.height)) + 16
        mkdirSync('docs/images', { recursive: true })
        const clip = { x: 0, y: 0, width: 1280, height }
        const picture = await page.screenshot({ fullPage: true, clip })
        await page.goto('about:blank')
        writeFileSync('docs/images/demo.png', await smallPng(page, picture))
      },
      { viewport: { width: 1280, height: 800 }, colorScheme: 'light', sandbox },
    )
  }

  await visit('the page works with the keyboard alone', async (_t, { page }) => {
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

  await visit('the code of the README works in another page', async (_t, { page }) => {
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
