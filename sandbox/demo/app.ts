import { type Fault, faults, noFault } from './faults.js'
import { createKybToken, type KybToken, type Outcome, type Problem } from './kyb-service.js'
import { type Message, messageOf, problemCodes } from './messages.js'
import { type User, users } from './users.js'

/** How long a request may take before the page announces that it is still running. */
const announceSlowAfterMs = 4000
/** Browsers run a timer with a longer delay immediately. A token can be valid for 30 days, which is longer. */
const maxTimerMs = 2 ** 31 - 1

const element = <T extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as T

const settings = (await (await fetch('/settings.json')).json()) as {
  serviceUrl: string
  identityUrl: string
  idenfyUrl: string
}

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
let fault = noFault
/** Resolves when the simulator has the fault. Changes are sent one after another, so that the last one wins. */
let faultIsSet: Promise<unknown> = Promise.resolve()
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

const newUserId = ({ id }: User) => `${id}-${crypto.randomUUID().slice(0, 8)}`

/** Continues as a new user with the same name. For 30 seconds, an identical request of the same user gets the same token. */
function changeUserId(userSession: Session): void {
  userSession.userId = newUserId(userSession.user)
  userSession.accessToken = ''
  userSession.idempotencyKey = undefined
}

async function fetchAccessToken({ companies }: User, userId: string, signal: AbortSignal): Promise<string> {
  const response = await fetch(`${settings.identityUrl}/token`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ userId, companyIds: companies.map(({ id }) => id) }),
    signal,
  })
  const { access_token } = (await response.json()) as { access_token: string }
  return access_token
}

async function signIn(user: User): Promise<void> {
  const signal = startAction()
  element('sign-in-fault').hidden = true
  const userId = newUserId(user)
  const accessToken = await fetchAccessToken(user, userId, signal).catch(() => undefined)
  if (signal.aborted) return
  if (accessToken === undefined) {
    element('sign-in-fault').hidden = false
    return
  }
  session = { user, userId, accessToken, idempotencyKey: undefined }
  // Needed when the user comes back from the form to this page. Never store the token.
  sessionStorage.setItem('user', user.id)
  element('who-name').textContent = user.name
  element('company-field').hidden = user.companies.length < 2
  element('company').replaceChildren(...user.companies.map(({ id, name }) => new Option(name, id)))
  show('verify')
}

function signOut(): void {
  startAction()
  session = undefined
  sessionStorage.removeItem('user')
  sessionStorage.removeItem('left-for-form')
  element('log').replaceChildren()
  element('log-empty').hidden = false
  show('sign-in')
}

// --- the KYB token ---

async function verify(): Promise<void> {
  if (isBusy || !session) return
  const userSession = session
  const signal = startAction()
  const chosenFault = fault
  if (chosenFault !== noFault) {
    changeUserId(userSession)
    selectFault('none')
  }
  const companyId =
    userSession.user.companies.length > 1 ? element<HTMLSelectElement>('company').value : undefined
  setBusy(true)
  announce('Opening the form')
  await faultIsSet
  if (signal.aborted) return
  let outcome = await requestToken(userSession, companyId, chosenFault, signal)
  if (!signal.aborted && 'problem' in outcome && outcome.problem?.code === 'invalid-token') {
    // The access token may have just expired. Nothing was sent to iDenfy, so one automatic retry is safe.
    userSession.accessToken = ''
    outcome = await requestToken(userSession, companyId, chosenFault, signal)
  }
  // Clear the fault even if this action is aborted. It must not affect the next request.
  if (chosenFault.atIdenfy && fault === noFault) await applyFault('none')
  if (signal.aborted) return
  setBusy(false)
  if ('token' in outcome) {
    userSession.idempotencyKey = undefined
    openForm(outcome.token, userSession, signal)
    return
  }
  // The same key would return the same outcome. Only the user decides whether to try again with a new key.
  if (outcome.problem?.outcome === 'unknown') userSession.idempotencyKey = undefined
  showNotice(messageOf(outcome.problem), outcome)
}

async function requestToken(
  userSession: Session,
  companyId: string | undefined,
  { inRequest, burst = [] }: Fault,
  signal: AbortSignal,
): Promise<Outcome> {
  userSession.idempotencyKey ??= crypto.randomUUID()
  const { idempotencyKey } = userSession
  if (!userSession.accessToken) {
    const accessToken = await fetchAccessToken(userSession.user, userSession.userId, signal).catch(() => '')
    if (signal.aborted) return { retryAfterSeconds: 0 }
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
  for (const locale of burst) {
    const burstRequest = { ...request, idempotencyKey: crypto.randomUUID(), session: { locale } }
    const outcome = await logOutcome(createKybToken(burstRequest), signal)
    if (signal.aborted || !('token' in outcome)) return outcome
  }
  return logOutcome(createKybToken(request), signal)
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
  element('reference').hidden = !problem || !(message.action === 'contact' || message.action === 'start-new')
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

function selectFault(name: string): void {
  fault = faults[name] as Fault
  element<HTMLInputElement>(`fault-${name}`).checked = true
}

function applyFault(name: string): Promise<unknown> {
  selectFault(name)
  const { atIdenfy } = fault
  const send = () =>
    fetch(`${settings.idenfyUrl}/_sandbox/faults`, {
      method: 'PUT',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(atIdenfy ? { ...atIdenfy, times: 1 } : {}),
    })
  faultIsSet = faultIsSet.then(send).catch(() => undefined)
  return faultIsSet
}

async function logOutcome(request: Promise<Outcome>, signal: AbortSignal): Promise<Outcome> {
  const begin = performance.now()
  const outcome = await request
  if (signal.aborted) return outcome
  const line = document.createElement('li')
  const time = ` · ${Math.round(performance.now() - begin)} ms`
  if ('token' in outcome) line.append(`201${outcome.isReplayed ? ' replayed' : ''}${time}`)
  else if (!outcome.problem) line.append(`no response${time}`)
  else {
    const { status, code, type } = outcome.problem
    const link = document.createElement('a')
    link.href = settings.serviceUrl + type
    link.target = '_blank'
    link.rel = 'noreferrer'
    link.textContent = code
    line.append(`${status} `, link, time)
  }
  element('log-empty').hidden = true
  element('log').prepend(line)
  return outcome
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
  Object.assign(input, { type: 'radio', name: 'fault', id: `fault-${name}`, checked: name === 'none' })
  input.addEventListener('change', () => applyFault(name))
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
    requestId: '9b94f962-e2ad-4f5f-8d85-724a1e0717bf',
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
element('company').addEventListener('change', () => {
  startAction()
  if (session) session.idempotencyKey = undefined
})
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
