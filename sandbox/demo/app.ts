import { createKybToken, type KybSession, type KybToken, type Outcome, type Problem } from './kyb-service.js'
import { type Message, messageOf, problemCodes } from './messages.js'

interface User {
  readonly id: string
  readonly name: string
  readonly companies: readonly { readonly id: string; readonly name: string }[]
}

const users: readonly User[] = [
  { id: 'u-ada', name: 'Ada Martin', companies: [{ id: 'acme', name: 'Acme Tools' }] },
  { id: 'u-ben', name: 'Ben Okafor', companies: [{ id: 'globex', name: 'Globex Foods' }] },
  {
    id: 'u-chris',
    name: 'Chris Lindqvist',
    companies: [
      { id: 'hooli', name: 'Hooli Boats' },
      { id: 'initech', name: 'Initech Paper' },
    ],
  },
]

/** What the panel can put into the way of the next request. */
interface Fault {
  readonly label: string
  /** For the simulator. */
  readonly atIdenfy?: object
  /** For the request. */
  readonly inRequest?: { accessToken?: string; companyId?: string; session?: KybSession }
  /** The locales of the requests that come before it. Identical ones would get the same token, which no limit counts. */
  readonly burst?: readonly NonNullable<KybSession['locale']>[]
}

const faults: Readonly<Record<string, Fault>> = {
  none: { label: 'Nothing: all is well' },
  slow: { label: 'A slow answer', atIdenfy: { delayMs: 3000 } },
  outage: { label: 'iDenfy is down', atIdenfy: { status: 500, identifier: 'INTERNAL_ERROR' } },
  silence: { label: 'No answer for eight seconds', atIdenfy: { delayMs: 9000 } },
  drop: { label: 'The connection breaks', atIdenfy: { drop: 'before-headers' } },
  conflict: { label: 'A session is open already', atIdenfy: { status: 409, identifier: 'CONFLICT' } },
  limit: { label: 'iDenfy limits the account', atIdenfy: { status: 429, identifier: 'TOO_MANY_REQUESTS' } },
  credentials: { label: 'iDenfy refuses our key', atIdenfy: { status: 401, identifier: 'UNAUTHORIZED' } },
  nonsense: { label: 'iDenfy answers nonsense', atIdenfy: { body: {} } },
  token: { label: 'The sign-in has ended', inRequest: { accessToken: 'none' } },
  company: { label: 'Another company’s id', inRequest: { companyId: 'umbrella' } },
  field: { label: 'A field that policy closes', inRequest: { session: { tags: ['vip'] } } },
  burst: { label: 'Too many requests', burst: ['en', 'es', 'fr', 'ru', 'de', 'it', 'pl', 'lt', 'lv', 'et'] },
}

const patienceMs = 4000
/** A longer one would fire at once; tokens can last for 30 days. */
const maxTimerMs = 2 ** 31 - 1

const element = <T extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as T

const settings = (await (await fetch('/settings.json')).json()) as {
  serviceUrl: string
  identityUrl: string
  idenfyUrl: string
}

/** One user, from sign-in to sign-out. Code that awaits keeps its own reference: `session` may be another user's by then. */
interface Session {
  readonly user: User
  userId: string
  accessToken: string
  /** Of one click, for as long as it may be retried. */
  idempotencyKey: string | undefined
}

let session: Session | undefined
/** What the user has started last: a sign-in, or a click and the form that it opens. */
let work = new AbortController()
let fault: Fault = faults.none as Fault
/** The simulator has one fault for all pages. Changes reach it in the order in which they were made. */
let faultIsSet: Promise<unknown> = Promise.resolve()
let isBusy = false
let countdown: number | undefined
let patience: number | undefined

/**
 * Ends what was started before, with its requests, timers, notice and form. Every sign-in, sign-out, change of company
 * and click comes through here. Code that awaits checks the signal after each await, and stops if it is aborted.
 */
function supersede(): AbortSignal {
  work.abort()
  work = new AbortController()
  setBusy(false)
  hideNotice()
  say('')
  return work.signal
}

function say(text: string): void {
  element('live').textContent = text
}

function show(section: 'sign-in' | 'verify' | 'form' | 'done'): void {
  for (const { id, hidden } of document.querySelectorAll<HTMLElement>('main > section')) {
    if (hidden === (id === section)) element(id).hidden = id !== section
  }
  element('who').hidden = session === undefined
  element(section).querySelector('h1')?.focus()
}

// --- signing in ---

const newIdOf = ({ id }: User) => `${id}-${crypto.randomUUID().slice(0, 8)}`

/** Another user by the same name: for 30 seconds an identical request of the same user gets the same token. */
function becomeNew(who: Session): void {
  who.userId = newIdOf(who.user)
  who.accessToken = ''
  who.idempotencyKey = undefined
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
  const signal = supersede()
  element('sign-in-fault').hidden = true
  const userId = newIdOf(user)
  const accessToken = await fetchAccessToken(user, userId, signal).catch(() => undefined)
  if (signal.aborted) return
  if (accessToken === undefined) {
    element('sign-in-fault').hidden = false
    return
  }
  session = { user, userId, accessToken, idempotencyKey: undefined }
  // So that the way back from the form leads here. Who, never the token.
  sessionStorage.setItem('user', user.id)
  element('who-name').textContent = user.name
  element('company-field').hidden = user.companies.length < 2
  element('company').replaceChildren(...user.companies.map(({ id, name }) => new Option(name, id)))
  show('verify')
}

function signOut(): void {
  supersede()
  session = undefined
  sessionStorage.removeItem('user')
  sessionStorage.removeItem('left-for-form')
  element('log').replaceChildren()
  element('log-empty').hidden = false
  show('sign-in')
}

// --- asking for a token ---

async function verify(): Promise<void> {
  if (isBusy || !session) return
  const who = session
  const signal = supersede()
  const met = fault
  if (met !== faults.none) {
    becomeNew(who)
    choose('none')
  }
  const companyId = who.user.companies.length > 1 ? element<HTMLSelectElement>('company').value : undefined
  setBusy(true)
  say('Opening the form')
  await faultIsSet
  if (signal.aborted) return
  let outcome = await ask(who, companyId, met, signal)
  if (!signal.aborted && 'problem' in outcome && outcome.problem?.code === 'invalid-token') {
    // It may have just expired. Nothing was sent to iDenfy, so one automatic retry is safe.
    who.accessToken = ''
    outcome = await ask(who, companyId, met, signal)
  }
  // Also for a click that is over: its fault is not for the next one.
  if (met.atIdenfy && fault === faults.none) await meet('none')
  if (signal.aborted) return
  setBusy(false)
  if ('token' in outcome) {
    who.idempotencyKey = undefined
    open(outcome.token, who, signal)
    return
  }
  // The same key would return this outcome again. Trying again is for the user to decide, with a new key.
  if (outcome.problem?.outcome === 'unknown') who.idempotencyKey = undefined
  showNotice(messageOf(outcome.problem), outcome)
}

async function ask(
  who: Session,
  companyId: string | undefined,
  { inRequest, burst = [] }: Fault,
  signal: AbortSignal,
): Promise<Outcome> {
  who.idempotencyKey ??= crypto.randomUUID()
  const { idempotencyKey } = who
  if (!who.accessToken) {
    const accessToken = await fetchAccessToken(who.user, who.userId, signal).catch(() => '')
    if (signal.aborted) return { retryAfterSeconds: 0 }
    who.accessToken = accessToken
  }
  const request = {
    serviceUrl: settings.serviceUrl,
    accessToken: who.accessToken,
    idempotencyKey,
    companyId,
    signal,
    ...inRequest,
  }
  for (const locale of burst) {
    const another = { ...request, idempotencyKey: crypto.randomUUID(), session: { locale } }
    const outcome = await logged(createKybToken(another), signal)
    if (signal.aborted || !('token' in outcome)) return outcome
  }
  return logged(createKybToken(request), signal)
}

function setBusy(busy: boolean): void {
  isBusy = busy
  const button = element('start')
  // Not disabled: that would take the focus away.
  button.setAttribute('aria-disabled', String(busy))
  button.classList.toggle('busy', busy)
  element('start-text').textContent = busy ? 'Opening the form…' : 'Verify your business'
  clearTimeout(patience)
  if (busy) patience = setTimeout(say, patienceMs, 'Still opening the form')
}

// --- the form ---

function open(token: KybToken, who: Session, signal: AbortSignal): void {
  const way = document.querySelector<HTMLInputElement>('input[name=way]:checked')?.value
  if (way === 'redirect') {
    // Until the form's page begins to load, this one can still be used.
    signal.addEventListener('abort', () => {
      stop()
      sessionStorage.removeItem('left-for-form')
    })
    sessionStorage.setItem('left-for-form', who.user.id)
    location.assign(token.redirectUrl)
    return
  }
  const frame = document.createElement('iframe')
  frame.title = 'Business verification'
  frame.allow = 'camera; fullscreen'
  frame.src = token.redirectUrl
  const { origin } = new URL(token.redirectUrl)

  // Any page can post a message: only the form itself, in the frame that was opened, is listened to.
  const listen = ({ origin: from, source, data }: MessageEvent): void => {
    if (from !== origin || source !== frame.contentWindow) return
    const status = statusOf(data)
    if (status === undefined) return
    supersede()
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
  const ended = setTimeout(
    () => {
      supersede()
      show('verify')
      showNotice({
        title: 'The form has ended',
        text: 'It was open for too long. You can start again.',
        action: 'try-again',
      })
    },
    Math.min(token.expiresIn * 1000, maxTimerMs),
  )
  signal.addEventListener('abort', () => {
    clearTimeout(ended)
    frame.remove()
    // Here forms end within seconds; the same user would be led back to one that is over.
    becomeNew(who)
  })
  addEventListener('message', listen, { signal })
  element('frame-place').append(frame)
  show('form')
}

/** iDenfy's form posts an object, or the same as text. */
function statusOf(data: unknown): 'success' | 'failed' | undefined {
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
  const left = sessionStorage.getItem('left-for-form')
  sessionStorage.removeItem('left-for-form')
  if (!session || left !== session.user.id) return
  supersede()
  becomeNew(session)
  showNotice({
    title: 'Welcome back',
    text: 'If you have sent the form, your details are being checked and we write to you. If not, open it again.',
    action: 'none',
  })
}

// --- what an applicant reads ---

function showNotice(message: Message, { problem, retryAfterSeconds = 0 }: Failure = {}): void {
  hideNotice()
  element('notice').hidden = false
  element('notice').classList.toggle('calm', message.action === 'none')
  element('notice-title').textContent = message.title
  element('notice-text').textContent = message.text
  element('reference').hidden = !problem || !(message.action === 'contact' || message.action === 'start-new')
  element('reference-id').textContent = problem?.requestId ?? ''
  offer(message.action, retryAfterSeconds)
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

function offer(action: Message['action'], seconds: number): void {
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
    if (left > 0) countdown = setTimeout(tick, 1000, left - 1)
    else if (seconds > 0) say('You can try again now')
  }
  tick(seconds)
}

function hideNotice(): void {
  clearTimeout(countdown)
  element('notice').hidden = true
}

// --- the panel ---

function choose(name: string): void {
  fault = faults[name] as Fault
  element<HTMLInputElement>(`fault-${name}`).checked = true
}

function meet(name: string): Promise<unknown> {
  choose(name)
  const { atIdenfy } = fault
  const tell = () =>
    fetch(`${settings.idenfyUrl}/_sandbox/faults`, {
      method: 'PUT',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(atIdenfy ? { ...atIdenfy, times: 1 } : {}),
    })
  faultIsSet = faultIsSet.then(tell).catch(() => undefined)
  return faultIsSet
}

async function logged(request: Promise<Outcome>, signal: AbortSignal): Promise<Outcome> {
  const since = performance.now()
  const outcome = await request
  if (signal.aborted) return outcome
  const line = document.createElement('li')
  const time = ` · ${Math.round(performance.now() - since)} ms`
  if ('token' in outcome) line.append(`201${outcome.isReplayed ? ' replayed' : ''}${time}`)
  else if (!outcome.problem) line.append(`no answer${time}`)
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

for (const someone of users) {
  const button = document.createElement('button')
  const name = document.createElement('strong')
  name.textContent = someone.name
  const companies = document.createElement('span')
  companies.textContent = someone.companies.map((company) => company.name).join(' and ')
  button.type = 'button'
  button.append(name, companies)
  button.addEventListener('click', () => signIn(someone))
  const item = document.createElement('li')
  item.append(button)
  element('people').append(item)
}
for (const [name, { label }] of Object.entries(faults)) {
  const input = document.createElement('input')
  Object.assign(input, { type: 'radio', name: 'fault', id: `fault-${name}`, checked: name === 'none' })
  input.addEventListener('change', () => meet(name))
  const text = document.createElement('label')
  text.append(input, ` ${label}`)
  element('faults').append(text)
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
    const { signal } = work
    await signingIn
    if (signal.aborted || !session) return
  }
  show('verify')
  showNotice(messageOf(problem), { problem })
})
element('sign-out').addEventListener('click', signOut)
element('request').addEventListener('submit', (event) => {
  event.preventDefault()
  // A new click, not a retry.
  if (session && !isBusy) session.idempotencyKey = undefined
  verify()
})
element('company').addEventListener('change', () => {
  supersede()
  if (session) session.idempotencyKey = undefined
})
element('leave').addEventListener('click', () => {
  supersede()
  show('verify')
})
element('again').addEventListener('click', () => show('verify'))
element<HTMLAnchorElement>('docs').href = `${settings.serviceUrl}/docs`
const known = users.find(({ id }) => id === sessionStorage.getItem('user'))
if (known) await signIn(known)
welcomeBack()
// The page may come out of the browser's memory as it was left.
addEventListener('pageshow', ({ persisted }) => {
  if (!persisted) return
  if (sessionStorage.getItem('user') === (session?.user.id ?? null)) return welcomeBack()
  // Another user has signed in since, or nobody is signed in any more, on a later page of this tab.
  supersede()
  location.reload()
})
