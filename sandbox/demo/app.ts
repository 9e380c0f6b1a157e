import {
  curlCommand,
  type Exchange,
  type ReceivedRequest,
  receivedFrom,
  receivedText,
  recordingFetch,
  requestText,
  responseText,
} from './exchange.js'
import { type Fault, faults, noFault } from './faults.js'
import {
  createKybToken,
  type KybToken,
  type KybTokenRequest,
  newIdempotencyKey,
  type Outcome,
  type Problem,
} from './kyb-service.js'
import { type Message, messageOf, problemCodes } from './messages.js'
import { type User, users } from './users.js'

/** How long a request may take before the page announces that it is still running. */
const announceSlowAfterMs = 4000
/** Browsers run a timer with a longer delay immediately. A token can be valid for 30 days, which is longer. */
const maxTimerMs = 2 ** 31 - 1

const noExchange = 'No request to show.'

const element = <T extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as T

const settings = (await (await fetch('/settings.json')).json()) as {
  serviceUrl: string
  identityUrl: string
  idenfyUrl: string
  scope?: string
  faultsByCaller?: boolean
}
const faultsByCaller = settings.faultsByCaller ?? true

/**
 * One user, from sign-in to sign-out. Asynchronous code keeps its own reference, because `session` may belong to another
 * user after an `await`.
 */
interface Session {
  readonly user: User
  userId: string
  accessToken: string
  /** The key of the last click, while the click may be retried. */
  idempotencyKey: string | undefined
}

let session: Session | undefined
/** Aborts what the user started last: a sign-in, or a click and the form that it opens. */
let currentAction = new AbortController()
/** Changes are sent to the simulator one after another, so that the last one wins. */
let lastFaultChange: Promise<unknown> = Promise.resolve()
let isBusy = false
let countdownTimer: number | undefined
let slowTimer: number | undefined

/**
 * Ends the current action with its requests, timers, notice and form. Every sign-in, sign-out, change of company and click
 * calls it first.
 *
 * @returns the signal of the new action. Asynchronous code checks it after each `await`, and stops if it is aborted.
 */
function startAction(): AbortSignal {
  currentAction.abort()
  currentAction = new AbortController()
  setBusy(false)
  hideNotice()
  announce('')
  element('exchange-empty').textContent = noExchange
  return currentAction.signal
}

function announce(text: string): void {
  element('live').textContent = text
}

function show(section: 'sign-in' | 'verify' | 'form' | 'done'): void {
  for (const { id, hidden } of document.querySelectorAll<HTMLElement>('main > section')) {
    if (hidden === (id === section)) element(id).hidden = id !== section
  }
  element('who').hidden = session === undefined
  element(section).querySelector('h1')?.focus()
}

// --- sign-in ---

const newUserId = ({ id }: User) => `${id}-${newIdempotencyKey().slice(0, 8)}`

/** Continues as a new user with the same name. For 30 seconds, an identical request of the same user gets the same token. */
function changeUserId(userSession: Session): void {
  userSession.userId = newUserId(userSession.user)
  userSession.accessToken = ''
  userSession.idempotencyKey = undefined
}

const tokenRequestOf = ({ companies }: User, userId: string) => ({
  userId,
  companyIds: companies.map(({ id }) => id),
  ...(settings.scope !== undefined && { scope: settings.scope }),
})

/** @returns undefined if the identity provider did not issue one */
async function fetchAccessToken(
  user: User,
  userId: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    const response = await fetch(`${settings.identityUrl}/token`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(tokenRequestOf(user, userId)),
      signal,
    })
    return ((await response.json()) as { access_token?: string }).access_token
  } catch {
    return undefined
  }
}

async function signIn(user: User): Promise<void> {
  const signal = startAction()
  element('sign-in-fault').hidden = true
  const userId = newUserId(user)
  const accessToken = await fetchAccessToken(user, userId, signal)
  if (signal.aborted) return
  if (accessToken === undefined) {
    element('sign-in-fault').hidden = false
    return
  }
  session = { user, userId, accessToken, idempotencyKey: undefined }
  // Needed when the user comes back from the form to this page. Never store the token.
  if (sessionStorage.getItem('user') !== user.id) forgetUser()
  sessionStorage.setItem('user', user.id)
  element('who-name').textContent = user.name
  element('company-field').hidden = user.companies.length < 2
  const chosenId = sessionStorage.getItem('company')
  element('company').replaceChildren(
    ...user.companies.map(({ id, name }) => new Option(name, id, false, id === chosenId)),
  )
  restoreExchange()
  show('verify')
}

function signOut(): void {
  startAction()
  session = undefined
  forgetUser()
  show('sign-in')
}

function forgetUser(): void {
  for (const key of ['user', 'company', 'left-for-form', 'exchange']) sessionStorage.removeItem(key)
  hideExchange()
  element('log').replaceChildren()
  element('log-empty').hidden = false
}

// --- the KYB token ---

async function verify(): Promise<void> {
  if (isBusy || !session) return
  const userSession = session
  const signal = startAction()
  const chosenFault = takeFault()
  if (chosenFault !== noFault) changeUserId(userSession)
  const { userId } = userSession
  const companyId =
    userSession.user.companies.length > 1 ? element<HTMLSelectElement>('company').value : undefined
  setBusy(true)
  hideExchange('Waiting for the response…')
  announce('Opening the form')
  const lastReceived = (await fetchReceived(signal))?.at(-1)?.number ?? 0
  if (signal.aborted) return
  if (chosenFault.atIdenfy) await setFault({ ...chosenFault.atIdenfy, times: 1 }, userId)
  let outcome = await requestToken(userSession, companyId, chosenFault, signal)
  if (!signal.aborted && 'problem' in outcome && outcome.problem?.code === 'invalid-token') {
    // The access token may have just expired. Nothing was sent to iDenfy, so one automatic retry is safe.
    userSession.accessToken = ''
    outcome = await requestToken(userSession, companyId, chosenFault, signal)
  }
  // End the fault even if this action is aborted. It must not affect a later request.
  if (chosenFault.atIdenfy) await setFault({}, userId)
  if (signal.aborted) return
  const received = await fetchReceived(signal)
  if (signal.aborted) return
  showReceived(received && receivedFrom(received, lastReceived, faultsByCaller ? userId : undefined))
  setBusy(false)
  if ('token' in outcome) {
    userSession.idempotencyKey = undefined
    openForm(outcome.token, userSession, signal)
    return
  }
  // The same key would return the same outcome. Only the user decides whether to try again with a new key.
  if (outcome.problem?.outcome === 'unknown') userSession.idempotencyKey = undefined
  showNotice(messageOf(outcome.problem, navigator.onLine), outcome)
}

async function requestToken(
  userSession: Session,
  companyId: string | undefined,
  chosenFault: Fault,
  signal: AbortSignal,
): Promise<Outcome> {
  const { inRequest, burst = [] } = chosenFault
  const { user, userId } = userSession
  userSession.idempotencyKey ??= newIdempotencyKey()
  const { idempotencyKey } = userSession
  if (!userSession.accessToken) {
    const accessToken = await fetchAccessToken(user, userId, signal)
    if (signal.aborted) return { retryAfterSeconds: 0 }
    if (accessToken === undefined) {
      hideExchange('Nothing was sent, because the identity provider issued no access token.')
      return { retryAfterSeconds: 0 }
    }
    userSession.accessToken = accessToken
  }
  const request = {
    serviceUrl: settings.serviceUrl,
    accessToken: userSession.accessToken,
    idempotencyKey,
    companyId,
    signal,
    ...inRequest,
  }
  const tokenRequest = inRequest?.accessToken === undefined ? tokenRequestOf(user, userId) : undefined
  for (const locale of burst) {
    const burstRequest = { ...request, idempotencyKey: newIdempotencyKey(), session: { locale } }
    const outcome = await sendAndShow(burstRequest, chosenFault, tokenRequest)
    if (signal.aborted || !('token' in outcome)) return outcome
  }
  return sendAndShow(request, chosenFault, tokenRequest)
}

function setBusy(busy: boolean): void {
  isBusy = busy
  const button = element('start')
  // A button with `disabled` would lose the focus.
  button.setAttribute('aria-disabled', String(busy))
  button.classList.toggle('busy', busy)
  element('start-text').textContent = busy ? 'Opening the form…' : 'Verify your business'
  clearTimeout(slowTimer)
  if (busy) slowTimer = setTimeout(announce, announceSlowAfterMs, 'Still opening the form')
}

// --- the form ---

function openForm(token: KybToken, userSession: Session, signal: AbortSignal): void {
  const display = document.querySelector<HTMLInputElement>('input[name=display]:checked')?.value
  if (display === 'redirect') {
    // Until the form begins to load, the user can still act on this page. Then `stop` cancels the navigation.
    signal.addEventListener('abort', () => {
      stop()
      sessionStorage.removeItem('left-for-form')
    })
    sessionStorage.setItem('left-for-form', userSession.user.id)
    location.assign(token.redirectUrl)
    return
  }
  const frame = document.createElement('iframe')
  frame.title = 'Business verification'
  frame.allow = 'camera; fullscreen'
  frame.src = token.redirectUrl
  const { origin } = new URL(token.redirectUrl)

  // Any page can post a message. Accept only messages of the form in this frame.
  const handleMessage = ({ origin: from, source, data }: MessageEvent): void => {
    if (from !== origin || source !== frame.contentWindow) return
    const status = formStatusOf(data)
    if (status === undefined) return
    startAction()
    if (status === 'success') show('done')
    else {
      show('verify')
      showNotice({
        title: 'The form was not completed',
        text: 'You can start again whenever you like.',
        action: 'try-again',
      })
    }
  }
  const expiryTimer = setTimeout(
    () => {
      startAction()
      show('verify')
      showNotice({
        title: 'The form has expired',
        text: 'It was open for too long. You can start again.',
        action: 'try-again',
      })
    },
    Math.min(token.expiresIn * 1000, maxTimerMs),
  )
  signal.addEventListener('abort', () => {
    clearTimeout(expiryTimer)
    frame.remove()
    // The service would give the same user the same token for 30 seconds, and its form may be finished.
    changeUserId(userSession)
  })
  addEventListener('message', handleMessage, { signal })
  element('frame-place').append(frame)
  show('form')
}

/** iDenfy's form posts an object or its JSON. */
function formStatusOf(data: unknown): 'success' | 'failed' | undefined {
  let message = data
  try {
    if (typeof data === 'string') message = JSON.parse(data)
  } catch {
    return undefined
  }
  const { status } = (message ?? {}) as { status?: unknown }
  return status === 'success' || status === 'failed' ? status : undefined
}

function welcomeBack(): void {
  const userWhoLeft = sessionStorage.getItem('left-for-form')
  sessionStorage.removeItem('left-for-form')
  if (!session || userWhoLeft !== session.user.id) return
  startAction()
  changeUserId(session)
  showNotice({
    title: 'Welcome back',
    text: 'If you sent the form, we are checking your details and will write to you. If not, open it again.',
    action: 'none',
  })
}

// --- notices for the applicant ---

function showNotice(message: Message, { problem, retryAfterSeconds = 0 }: Failure = {}): void {
  hideNotice()
  element('notice').hidden = false
  element('notice').classList.toggle('calm', message.action === 'none')
  element('notice-title').textContent = message.title
  element('notice-text').textContent = message.text
  element('reference').hidden = !problem
  element('reference-id').textContent = problem?.requestId ?? ''
  showAction(message.action, retryAfterSeconds)
  element('notice-title').focus()
}

interface Failure {
  readonly problem?: Problem
  readonly retryAfterSeconds?: number
}

const buttonTexts: { readonly [A in Message['action']]?: string } = {
  'sign-in': 'Sign in',
  'start-new': 'Start a new verification',
}

function showAction(action: Message['action'], seconds: number): void {
  const button = element('notice-button')
  button.hidden = action === 'contact' || action === 'none'
  button.onclick = () => {
    if (button.getAttribute('aria-disabled') === 'true') return
    if (action === 'sign-in') signOut()
    else verify()
  }
  const tick = (left: number): void => {
    button.setAttribute('aria-disabled', String(left > 0))
    const text = buttonTexts[action] ?? 'Try again'
    button.textContent = left > 0 ? `${text} in ${left} s` : text
    if (left > 0) countdownTimer = setTimeout(tick, 1000, left - 1)
    else if (seconds > 0) announce('You can try again now')
  }
  tick(seconds)
}

function hideNotice(): void {
  clearTimeout(countdownTimer)
  element('notice').hidden = true
}

// --- the sandbox panel ---

/** @returns the chosen fault, which applies once */
function takeFault(): Fault {
  const name = document.querySelector<HTMLInputElement>('input[name=fault]:checked')?.value ?? 'none'
  element<HTMLInputElement>('fault-none').checked = true
  return faults[name] as Fault
}

/** An empty fault ends the one before. */
function setFault(fault: object, userId: string): Promise<unknown> {
  const body = JSON.stringify({ ...fault, ...(faultsByCaller && { caller: userId }) })
  const send = () =>
    fetch(`${settings.idenfyUrl}/_sandbox/faults`, {
      method: 'PUT',
      headers: { 'Content-Type': 'application/json' },
      body,
    })
  lastFaultChange = lastFaultChange.then(send).catch(() => undefined)
  return lastFaultChange
}

/** @returns undefined if the simulator did not respond */
async function fetchReceived(signal: AbortSignal): Promise<ReceivedRequest[] | undefined> {
  try {
    return await (await fetch(`${settings.idenfyUrl}/_sandbox/requests`, { signal })).json()
  } catch {
    return undefined
  }
}

const exchangeParts = ['request', 'response', 'curl', 'received'] as const

/** The texts of the panel about one exchange. They contain no token, so the page may store them. */
interface ExchangeTexts {
  readonly status: string
  readonly problem?: Pick<Problem, 'code' | 'type'>
  readonly suffix: string
  readonly request: string
  readonly response: string
  readonly curl: string
  readonly received: string
}

async function sendAndShow(
  request: KybTokenRequest,
  chosenFault: Fault,
  tokenRequest: object | undefined,
): Promise<Outcome> {
  let exchange: Exchange | undefined
  const fetch = recordingFetch((ended) => {
    exchange = ended
  })
  const begin = performance.now()
  const outcome = await createKybToken({ ...request, fetch })
  if (request.signal?.aborted || !exchange) return outcome
  const time = ` · ${Math.round(performance.now() - begin)} ms`
  const { problem } = 'problem' in outcome ? outcome : {}
  const isReplayed = exchange.response?.headers.has('Idempotency-Replayed')
  const texts: ExchangeTexts = {
    status: `${exchange.response?.status ?? 'No response'}${isReplayed ? ' replayed' : ''}`,
    ...(problem && { problem: { code: problem.code, type: problem.type } }),
    suffix: chosenFault === noFault ? time : `${time} · Simulated: ${chosenFault.label}`,
    request: requestText(exchange),
    response: responseText(exchange),
    curl: curlCommand(exchange, settings.identityUrl, tokenRequest),
    received: 'Not known yet.',
  }
  const line = document.createElement('li')
  line.append(...resultOf(texts))
  element('log-empty').hidden = true
  element('log').prepend(line)
  showExchange(texts)
  return outcome
}

function resultOf({ status, problem, suffix }: ExchangeTexts): (string | Node)[] {
  if (!problem) return [status, suffix]
  const link = document.createElement('a')
  link.href = settings.serviceUrl + problem.type
  link.target = '_blank'
  link.rel = 'noreferrer'
  link.textContent = problem.code
  return [`${status} `, link, suffix]
}

function showExchange(texts: ExchangeTexts): void {
  for (const part of exchangeParts) {
    element(`exchange-${part}`).textContent = texts[part]
  }
  element('exchange-result').replaceChildren(...resultOf(texts))
  element('copied').textContent = ''
  element('exchange-empty').hidden = true
  element('exchange').hidden = false
  // Kept while the user is on the page of the form.
  sessionStorage.setItem('exchange', JSON.stringify(texts))
}

function showReceived(requests: readonly ReceivedRequest[] | undefined): void {
  const stored = sessionStorage.getItem('exchange')
  if (stored === null) return
  const received = requests ? receivedText(requests) : 'The simulator of iDenfy did not respond.'
  showExchange({ ...(JSON.parse(stored) as ExchangeTexts), received })
}

function restoreExchange(): void {
  const stored = sessionStorage.getItem('exchange')
  if (stored !== null) showExchange(JSON.parse(stored) as ExchangeTexts)
}

function hideExchange(reason = noExchange): void {
  sessionStorage.removeItem('exchange')
  for (const part of [...exchangeParts, 'result']) element(`exchange-${part}`).textContent = ''
  element('exchange').hidden = true
  element('exchange-empty').hidden = false
  element('exchange-empty').textContent = reason
}

/** @returns what to tell the user */
async function copyText(source: HTMLElement): Promise<string> {
  try {
    await navigator.clipboard.writeText(source.textContent ?? '')
    return 'Copied'
  } catch {
    // Browsers have no clipboard API on pages without HTTPS, except on localhost.
    getSelection()?.selectAllChildren(source)
    return document.execCommand('copy') ? 'Copied' : 'Selected. Copy it with the keyboard or the menu.'
  }
}

// --- page setup ---

for (const user of users) {
  const button = document.createElement('button')
  const name = document.createElement('strong')
  name.textContent = user.name
  const companies = document.createElement('span')
  companies.textContent = user.companies.map((company) => company.name).join(' and ')
  button.type = 'button'
  button.append(name, companies)
  button.addEventListener('click', () => signIn(user))
  const item = document.createElement('li')
  item.append(button)
  element('people').append(item)
}
for (const [name, { label }] of Object.entries(faults)) {
  const input = document.createElement('input')
  const properties = { type: 'radio', name: 'fault', id: `fault-${name}`, value: name, autocomplete: 'off' }
  Object.assign(input, { ...properties, checked: name === 'none' })
  const inputLabel = document.createElement('label')
  inputLabel.append(input, ` ${label}`)
  element('faults').append(inputLabel)
}
element('preview').append(...problemCodes.map((code) => new Option(code, code)))
element('preview').addEventListener('change', async ({ target }) => {
  const code = (target as HTMLSelectElement).value as Problem['code']
  if (!code) return hideNotice()
  const problem: Problem = {
    type: `/problems/${code}`,
    code,
    title: '',
    status: 0,
    requestId: '00000000-0000-4000-8000-000000000000',
    retryable: true,
  }
  if (!session) {
    const signingIn = signIn(users[0] as User)
    const { signal } = currentAction
    await signingIn
    if (signal.aborted || !session) return
  }
  show('verify')
  showNotice(messageOf(problem), { problem })
})
element('sign-out').addEventListener('click', signOut)
element('request').addEventListener('submit', (event) => {
  event.preventDefault()
  // A new click needs a new key.
  if (session && !isBusy) session.idempotencyKey = undefined
  verify()
})
element('company').addEventListener('change', ({ target }) => {
  startAction()
  sessionStorage.setItem('company', (target as HTMLSelectElement).value)
  if (session) session.idempotencyKey = undefined
})
element('copy').addEventListener('click', async () => {
  element('copied').textContent = await copyText(element('exchange-curl'))
})
element('reset').addEventListener('click', async () => {
  const response = await fetch(`${settings.idenfyUrl}/_sandbox/reset`, { method: 'POST' }).catch(
    () => undefined,
  )
  element('reset-done').textContent = response?.ok ? 'Done' : 'The simulator did not respond.'
})
element('any-tab').hidden = faultsByCaller
element('leave').addEventListener('click', () => {
  startAction()
  show('verify')
})
element('again').addEventListener('click', () => show('verify'))
element<HTMLAnchorElement>('docs').href = `${settings.serviceUrl}/docs`
const signedInUser = users.find(({ id }) => id === sessionStorage.getItem('user'))
if (signedInUser) await signIn(signedInUser)
welcomeBack()
// The browser may restore the page from its back/forward cache.
addEventListener('pageshow', ({ persisted }) => {
  if (!persisted) return
  if (sessionStorage.getItem('user') === (session?.user.id ?? null)) return welcomeBack()
  // Meanwhile the user has signed out, or another user has signed in, on a later page of this tab.
  startAction()
  location.reload()
})
