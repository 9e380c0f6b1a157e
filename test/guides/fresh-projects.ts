import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { chromium, type Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { freePort, inTime, listen, send, spawnNode, until } from '../helper.js'
import { blocksOf } from './blocks.js'

const installMs = 150_000
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'

/** The environment of a terminal, without what `npm run` adds to it. npm asks no questions. */
const environment = Object.fromEntries(
  Object.entries({ ...process.env, npm_config_yes: 'true', NO_COLOR: '1' }).filter(
    ([name]) => !/^npm_(?!config_(yes|registry|cafile)$)/i.test(name),
  ),
)

interface Command {
  readonly child: ChildProcess
  readonly output: () => string
}

/** Starts a command in a shell, in a process group of its own, so that its children end with it. */
function start(t: Test, directory: string, command: string): Command {
  // tap adds NODE_OPTIONS that the tools of the projects do not work with.
  const child = spawn('bash', ['-ec', `unset NODE_OPTIONS\n${command}`], {
    cwd: directory,
    env: environment,
    detached: true,
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text) => (output += text))
  t.teardown(() => {
    try {
      process.kill(-Number(child.pid), 'SIGKILL')
    } catch {} // It has ended.
  })
  return { child, output: () => output }
}

/** @throws an error with its output if it fails */
async function run(t: Test, directory: string, command: string): Promise<string> {
  const { child, output } = start(t, directory, command)
  const [code] = await inTime(once(child, 'close'), () => `${command}; ${output()}`, installMs)
  if (code !== 0) throw new Error(`${command} ended with ${code}: ${output()}`)
  return output()
}

/** Why this cannot run here, if it cannot. */
async function findMissing(): Promise<string | false> {
  if (!existsSync(executablePath)) return `there is no ${executablePath}: install chromium, or set CHROMIUM`
  try {
    await run(t, tmpdir(), 'npm view --fetch-retries=0 --fetch-timeout=10000 create-vite version')
    return false
  } catch {
    return 'the registry of npm cannot be reached'
  }
}

const missing = await findMissing()
// With CI set, a missing program or network fails the test instead of skipping it.
if (missing && process.env.CI) throw new Error(missing)

t.test('the guide for web pages works in fresh projects', { skip: missing, timeout: 580_000 }, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'guide-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))

  // --- the sandbox, and the code of the guide with its addresses ---

  const ports = { react: await freePort(t), html: await freePort(t) }
  const insecurePage = createServer((_request, response) =>
    response.setHeader('content-type', 'text/html').end(codeOf('index.html')),
  )
  const urls = {
    react: `http://localhost:${ports.react}`,
    html: `http://localhost:${ports.html}`,
    insecure: `http://phone.test:${await listen(t, insecurePage)}`,
  }
  const anyPort = ['', 'MANAGEMENT_', 'IDENFY_', 'IDENTITY_', 'DEMO_'].map((part) => [
    `SANDBOX_${part}PORT`,
    '0',
  ])
  const sandbox = spawnNode(t, ['dist-sandbox/server.js'], {
    ...Object.fromEntries(anyPort),
    SANDBOX_CORS_ORIGINS: Object.values(urls).join(),
  })
  await sandbox.waitFor(/demo page +http/)
  const addressOf = (part: string) =>
    String(new RegExp(`${part} +(http\\S+)`).exec(sandbox.output.stdout)?.[1])
  const [service, idenfy, identity] = ['service', 'iDenfy simulator', 'identity provider'].map(addressOf)

  const blocks = blocksOf('docs/web.md', readFileSync('docs/web.md', 'utf8')).map((block) => ({
    ...block,
    text: block.text
      .replaceAll('http://127.0.0.1:3000', String(service))
      .replaceAll('http://127.0.0.1:4011', String(identity)),
  }))

  function codeOf(path: string): string {
    const block = blocks.find((block) => block.path === path)
    if (!block) throw new Error(`the guide has no code for ${path}`)
    return block.text
  }

  /** The commands of the guide that contain this text, in its order. */
  const commandsWith = (text: string) =>
    blocks
      .filter(({ language, text: command }) => language === 'sh' && command.includes(text))
      .map(({ text }) => text)

  /** Writes code where its first line says. */
  async function paste(project: string, code: string): Promise<void> {
    const [{ path = '' } = {}] = blocksOf('', `\`\`\`code\n${code}\`\`\``)
    await mkdir(dirname(join(project, path)), { recursive: true })
    await writeFile(join(project, path), code)
  }

  // --- the projects ---

  const [createReactProject = ''] = commandsWith('npm create vite')
  const [serveHtml = '', serveReact = ''] = commandsWith('vite --port')
  const [generateTypes = ''] = commandsWith('openapi-typescript')
  const project = join(directory, 'my-page')
  const projectWithEslint = join(directory, 'with-eslint')
  const projectWithHtml = join(directory, 'html')
  const appInFrame = codeOf('src/App.tsx').replaceAll('KybRedirect', 'KybFrame')
  await Promise.all([
    run(t, directory, createReactProject),
    // The rules of React are in the template's ESLint. That does not work with TypeScript 7 yet.
    run(
      t,
      directory,
      createReactProject
        .replaceAll('my-page', 'with-eslint')
        .replace('--template', '--eslint --template')
        .replace('npm install', 'npm install --save-dev typescript@~6.0'),
    ),
  ])
  await paste(projectWithHtml, codeOf('index.html'))
  for (const { path = '', text } of blocks.filter(({ path }) => path?.startsWith('src/'))) {
    await paste(project, text)
    await paste(projectWithEslint, text)
    if (path === 'src/App.tsx') await writeFile(join(projectWithEslint, 'src/AppInFrame.tsx'), appInFrame)
  }

  await t.test('the code has no errors and no warnings', async (t) => {
    await run(t, project, generateTypes)
    t.match(await readFile(join(project, 'src/service-api.ts'), 'utf8'), 'KybToken: {')
    const [output] = await Promise.all([
      run(t, project, 'npm run lint && npm run build'),
      run(t, projectWithEslint, 'npm run lint -- --max-warnings=0 && npx tsc -b'),
    ])
    t.match(output, 'Found 0 warnings and 0 errors')
  })

  async function serve(t: Test, folder: string, command: string, url: string): Promise<void> {
    const { output } = start(t, folder, command.replace('5173', new URL(url).port))
    await until(() => output().includes(url), `${command} to print ${url}`, installMs)
  }

  // --- the browser ---

  const browser = await chromium.launch({
    executablePath,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--no-first-run',
      '--disable-background-networking',
      // A host that is not secure, as that of a computer is for a phone.
      '--host-resolver-rules=MAP phone.test 127.0.0.1',
    ],
  })
  t.teardown(() => browser.close())

  let visits = 0

  /** Opens a page as a user that no test had before, so that no test gets the token of another. */
  function visit(
    t: Test,
    name: string,
    url: string,
    act: (t: Test, page: Page, keys: readonly (string | undefined)[]) => Promise<void>,
    expectedError = /^$/,
  ) {
    return t.test(name, async (t) => {
      visits += 1
      const suffix = `-${visits}`
      const context = await browser.newContext()
      t.teardown(() => context.close())
      const page = await context.newPage()
      const errors: string[] = []
      const keys: (string | undefined)[] = []
      page.on('pageerror', (error) => errors.push(error.message))
      page.on('console', (message) => {
        if (/error|warning/.test(message.type()) && !expectedError.test(message.text()))
          errors.push(message.text())
      })
      page.on('request', (request) => {
        if (request.method() === 'POST' && isServiceUrl(new URL(request.url())))
          keys.push(request.headers()['idempotency-key'])
      })
      await page.route(isIdentityUrl, (route) => {
        const request = route.request().postDataJSON()
        return route.continue({ postData: JSON.stringify({ ...request, userId: request.userId + suffix }) })
      })
      await page.goto(url)
      await act(t, page, keys)
      t.strictSame(errors, [], 'the console is quiet')
    })
  }

  const isServiceUrl = ({ href }: URL) => href === `${service}/onboarding/kyb-token`
  const isIdentityUrl = ({ href }: URL) => href === `${identity}/token`
  const isFormUrl = ({ href }: URL) => href.startsWith(`${idenfy}/welcome?`)
  const failedRequest = /status of [45]\d\d|net::ERR_FAILED/

  const button = (page: Page) => page.getByRole('button', { name: 'Verify your business' })
  const form = (page: Page) => page.getByRole('heading', { name: 'Tell us about your business' })
  const frame = (page: Page) => page.frameLocator('iframe[title="Business verification"]')
  const status = (page: Page, text: string | RegExp) => page.getByRole('status').getByText(text)

  /** The bodies of the requests that reached the simulator of iDenfy. */
  async function created(): Promise<{ clientId: string; externalRef: string }[]> {
    const { json } = await send(`${idenfy}/_sandbox/requests`)
    return json.flatMap(({ url, body }: { url: string; body?: object }) =>
      url === '/kyb/tokens/' ? [body] : [],
    )
  }

  async function setFault(fault: object): Promise<void> {
    const { status } = await send(`${idenfy}/_sandbox/faults`, {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ times: 1, ...fault }),
    })
    if (status !== 200) throw new Error(`the simulator refuses the fault with status ${status}`)
  }

  /** Holds the next response back until it is released. */
  async function hold(page: Page, isHeld: (url: URL) => boolean) {
    const arrived = deferred()
    const released = deferred()
    const ended = deferred()
    await page.route(
      isHeld,
      async (route) => {
        const response = await route.fetch()
        arrived.resolve()
        await released.promise
        // The page may have aborted the request.
        await route.fulfill({ response }).catch(() => {})
        ended.resolve()
      },
      { times: 1 },
    )
    return { arrived: arrived.promise, release: released.resolve, ended: ended.promise }
  }

  /** Resolves when the page has had the time to handle a response that was held back. */
  async function hasHandled(page: Page, { ended }: { ended: Promise<void> }): Promise<void> {
    await inTime(ended, 'the page to get the held response')
    await page.evaluate(`fetch('/').then((response) => response.text())`)
  }

  // --- plain HTML ---

  await t.test('plain HTML', async (t) => {
    await serve(t, projectWithHtml, serveHtml, urls.html)

    await visit(t, 'a click opens the form', urls.html, async (t, page, keys) => {
      await button(page).dblclick()
      await form(page).waitFor()
      t.equal(keys.length, 1)
      await page.goBack()
      await button(page).click()
      await form(page).waitFor()
      t.equal(new Set(keys).size, 2, 'each click has its own key')
    })

    await visit(t, 'on a page without https', urls.insecure, async (t, page) => {
      t.equal(await page.evaluate('isSecureContext'), false)
      await button(page).click()
      await form(page).waitFor()
    })

    await visit(
      t,
      'a failure is shown',
      urls.html,
      async (t, page) => {
        await setFault({ status: 500, identifier: 'INTERNAL_ERROR' })
        await button(page).click()
        await status(page, /\(reference: [0-9a-f-]{36}\)$/).waitFor()
        await page.route(isServiceUrl, (route) => route.abort(), { times: 1 })
        await button(page).click()
        await status(page, 'No response').waitFor()
        t.ok(await button(page).isEnabled())
      },
      failedRequest,
    )
  })

  // --- React ---

  const signInAs = (page: Page, userId: string) => page.getByLabel('Signed in as').selectOption(userId)

  /** The page shows nothing of the user before, and the form that it opens is for the company of this user. */
  async function isForOtherUser(t: Test, page: Page): Promise<void> {
    t.equal(page.url(), `${urls.react}/`)
    t.equal(await page.locator('iframe').count(), 0, 'no form')
    t.equal(await page.getByRole('status').textContent(), '', 'no message')
    const before = await created()
    await button(page).click()
    await until(async () => (await created()).length > before.length, 'a request at the simulator')
    t.match((await created()).at(-1), { clientId: 'globex', externalRef: /^u-2-/ })
  }

  // The development server has React's StrictMode, which runs each effect twice.
  await t.test('React, the form on its own page', async (t) => {
    await serve(t, project, serveReact, urls.react)

    await visit(t, 'a double click sends one request; there and back', urls.react, async (t, page, keys) => {
      const before = await created()
      const held = await hold(page, isServiceUrl)
      await button(page).dblclick()
      await status(page, 'Opening the form…').waitFor()
      held.release()
      await form(page).waitFor()
      t.equal(keys.length, 1)
      const [request, ...others] = (await created()).slice(before.length)
      t.match(request, { clientId: 'acme', externalRef: /^u-1-/ })
      t.strictSame(others, [])
      await page.getByRole('button', { name: 'Submit' }).click()
      await page.getByRole('heading', { name: 'Submitted' }).waitFor()
      await page.goBack()
      await button(page).waitFor()
    })

    for (const [what, isHeld, requests] of [
      ['the access token', isIdentityUrl, 0],
      ['the response', isServiceUrl, 1],
    ] as const) {
      await visit(
        t,
        `a user who changes while the page waits for ${what}`,
        urls.react,
        async (t, page, keys) => {
          const held = await hold(page, isHeld)
          await button(page).click()
          await inTime(held.arrived, 'the held response')
          await signInAs(page, 'u-2')
          await signInAs(page, 'u-1')
          held.release()
          await hasHandled(page, held)
          t.equal(keys.length, requests)
          t.equal(await page.getByRole('status').textContent(), '', 'no message after another sign-in')
          await signInAs(page, 'u-2')
          await isForOtherUser(t, page)
        },
      )
    }

    await visit(t, 'a page that the browser has kept', urls.react, async (_t, page) => {
      // The page stays as it was, as it does in the memory of the browser.
      const left = deferred()
      await page.route(isFormUrl, async (route) => {
        await route.fulfill({ status: 204 })
        left.resolve()
      })
      await button(page).click()
      await inTime(left.promise, 'the page to open the form')
      await page.getByText('Opening the form…').waitFor()
      await page.evaluate(`dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))`)
      await status(page, 'If you sent the form, we are checking your details.').waitFor()
      await signInAs(page, 'u-2')
      await page.getByRole('status').and(page.locator(':empty')).waitFor({ state: 'attached' })
    })

    await visit(
      t,
      'an unknown outcome is not retried automatically, and the next click has a new key',
      urls.react,
      async (t, page, keys) => {
        await page.clock.install()
        await page.goto(urls.react)
        const before = await created()
        await setFault({ status: 500, identifier: 'INTERNAL_ERROR' })
        await button(page).click()
        await status(page, /^We do not know whether.* Reference: [0-9a-f-]{36}$/).waitFor()
        await page.clock.runFor(120_000)
        t.equal((await created()).length - before.length, 1)
        await button(page).click()
        await form(page).waitFor()
        t.equal(new Set(keys).size, 2)
      },
      failedRequest,
    )

    await visit(
      t,
      'after other failures, the next click has the same key',
      urls.react,
      async (t, page, keys) => {
        await page.route(isIdentityUrl, (route) => route.abort(), { times: 1 })
        await button(page).click()
        await status(page, 'Please sign in again.').waitFor()
        t.equal(keys.length, 0)

        await setFault({ status: 429, identifier: 'TOO_MANY_REQUESTS' })
        await button(page).click()
        await status(page, 'Please try again in 30 seconds.').waitFor()
        t.equal(keys.length, 1)

        await page.route(isServiceUrl, (route) => route.abort(), { times: 1 })
        await button(page).click()
        await status(page, 'You seem to be offline.').waitFor()

        const headers = { 'content-type': 'text/html', 'access-control-allow-origin': '*' }
        const errorPage = { status: 502, headers, body: '<h1>Bad Gateway</h1>' }
        await page.route(isServiceUrl, (route) => route.fulfill(errorPage), { times: 1 })
        await button(page).click()
        await status(page, 'This does not work right now. Please try again.').waitFor()

        await button(page).click()
        await form(page).waitFor()
        t.equal(keys.length, 4)
        t.equal(new Set(keys).size, 1)
      },
      failedRequest,
    )
  })

  await t.test('React, the built page', async (t) => {
    await serve(t, project, serveReact.replace('vite', 'vite preview'), urls.react)

    await visit(t, 'a user who changes while the form begins to load', urls.react, async (t, page) => {
      const held = await hold(page, isFormUrl)
      // The page changes the user itself: from outside, nothing can be done until the form has loaded.
      await page.route('**/form-is-loading', async (route) => {
        await held.arrived
        await route.fulfill({ status: 204 })
      })
      await page.evaluate(`addEventListener('beforeunload', async () => {
        await fetch('/form-is-loading')
        const select = document.querySelector('select')
        select.value = 'u-2'
        select.dispatchEvent(new Event('change', { bubbles: true }))
      }, { once: true })`)
      await button(page).click()
      await page.locator('option[value="u-2"]:checked').waitFor({ state: 'attached' })
      held.release()
      await hasHandled(page, held)
      await isForOtherUser(t, page)
    })
  })

  await t.test('React, the form in an iframe', async (t) => {
    await paste(project, appInFrame)
    await serve(t, project, serveReact, urls.react)

    await visit(t, 'the page learns how the form ended', urls.react, async (t, page) => {
      await button(page).click()
      await frame(page).getByText('This page may use the camera').waitFor()
      await page.evaluate(`postMessage(JSON.stringify({ status: 'success' }), '*')`)
      await page.evaluate(
        `document.querySelector('iframe').contentWindow.postMessage({ status: 'success' }, '*')`,
      )
      t.ok(await page.locator('iframe').isVisible(), 'a message that is not from the form is ignored')
      await frame(page).getByRole('button', { name: 'Submit' }).click()
      await status(page, 'If you sent the form, we are checking your details.').waitFor()
      t.equal(await page.locator('iframe').count(), 0)

      await signInAs(page, 'u-2')
      await button(page).click()
      await frame(page).getByRole('button', { name: 'Fail' }).click()
      await status(page, 'The form was not completed.').waitFor()
    })

    await visit(t, 'a user who changes while the form is open', urls.react, async (t, page) => {
      await button(page).click()
      await frame(page).getByRole('button', { name: 'Submit' }).waitFor()
      await signInAs(page, 'u-2')
      await button(page).waitFor()
      await isForOtherUser(t, page)
    })
  })
})

function deferred() {
  let resolve = () => {}
  const promise = new Promise<void>((settle) => {
    resolve = settle
  })
  return { promise, resolve }
}
