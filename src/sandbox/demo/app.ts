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
  readonly burst?: number
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
  burst: { label: 'Too many requests', burst: 10 },
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

let user: User | undefined
let userId = ''
let accessToken = ''
let fault: Fault = faults.none as Fault
let isBusy = false
/** Of the click that is being handled, for as long as it may be tried again. */
let idempotencyKey: string | undefined
let leaveForm: (() => void) | undefined
let countdown: number | undefined
let patience: number | undefined

function say(text: string): void {
  element('live').textContent = text
}

function show(section: 'sign-in' | 'verify' | 'form' | 'done'): void {
  for (const { id, hidden } of document.querySelectorAll<HTMLElement>('main > section')) {
    if (hidden === (id === section)) element(id).hidden = id !== section
  }
  element('who').hidden = user === undefined
  element(section).querySelector('h1')?.focus()
}

// --- signing in ---

/** A user nobody has seen before, by the same name: for a while an equal request of a known one gets its token again. */
function becomeNew({ id }: User): void {
  userId = `${id}-${crypto.randomUUID().slice(0, 8)}`
  accessToken = ''
  idempotencyKey = undefined
}

async function fetchAccessToken({ companies }: User): Promise<string> {
  const response = await fetch(`${settings.identityUrl}/token`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ userId, companyIds: companies.map(({ id }) => id) }),
  })
  const { access_token } = (await response.json()) as { access_token: string }
  return access_token
}

async function signIn(someone: User): Promise<void> {
  element('sign-in-fault').hidden = true
  becomeNew(someone)
  try {
    accessToken = await fetchAccessToken(someone)
  } catch {
    element('sign-in-fault').hidden = false
    return
  }
  user = someone
  // So that the way back from the form leads here. Who, never the token.
  sessionStorage.setItem('user', someone.id)
  element('who-name').textContent = someone.name
  element('company-field').hidden = someone.companies.length < 2
  element('company').replaceChildren(...someone.companies.map(({ id, name }) => new Option(name, id)))
  hideNotice()
  show('verify')
}

function signOut(): void {
  leaveForm?.()
  user = undefined
  accessToken = ''
  sessionStorage.removeItem('user')
  show('sign-in')
}

// --- asking for a token ---

async function verify(): Promise<void> {
  if (isBusy || !user) return
  setBusy(true)
  hideNotice()
  say('Opening the form')
  const met = fault
  let outcome = await ask(user, met)
  if ('problem' in outcome && outcome.problem?.code === 'invalid-token') {
    // It may just have ended: once, without troubling anybody.
    accessToken = ''
    outcome = await ask(user, met)
  }
  if (met !== faults.none) await meet('none')
  setBusy(false)
  if ('token' in outcome) {
    idempotencyKey = undefined
    open(outcome.token)
  } else showNotice(messageOf(outcome.problem), outcome)
}

async function ask(someone: User, { inRequest, burst = 0 }: Fault): Promise<Outcome> {
  idempotencyKey ??= crypto.randomUUID()
  accessToken ||= await fetchAccessToken(someone).catch(() => '')
  const request = {
    serviceUrl: settings.serviceUrl,
    accessToken,
    idempotencyKey,
    companyId: someone.companies.length > 1 ? element<HTMLSelectElement>('company').value : undefined,
    ...inRequest,
  }
  for (let left = burst; left > 0; left -= 1) {
    const outcome = await logged(createKybToken({ ...request, idempotencyKey: crypto.randomUUID() }))
    if ('problem' in outcome) return outcome
  }
  return logged(createKybToken(request))
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

function open(token: KybToken): void {
  const way = document.querySelector<HTMLInputElement>('input[name=way]:checked')?.value
  if (way === 'redirect') {
    sessionStorage.setItem('left-for-form', 'yes')
    location.assign(token.redirectUrl)
    return
  }
  const frame = document.createElement('iframe')
  frame.title = 'Business verification'
  frame.allow = 'camera; fullscreen'
  frame.src = token.redirectUrl
  const { origin } = new URL(token.redirectUrl)

  // Anybody can post a message: only the form itself, in the frame that was opened, is listened to.
  const listen = ({ origin: from, source, data }: MessageEvent): void => {
    if (from !== origin || source !== frame.contentWindow) return
    const status = statusOf(data)
    if (status === undefined) return
    leaveForm?.()
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
      leaveForm?.()
      show('verify')
      showNotice({
        title: 'The form has ended',
        text: 'It was open for too long. You can start again.',
        action: 'try-again',
      })
    },
    Math.min(token.expiresIn * 1000, maxTimerMs),
  )
  leaveForm = () => {
    clearTimeout(ended)
    removeEventListener('message', listen)
    frame.remove()
    leaveForm = undefined
    // Here forms end within seconds; the same user would be led back to one that is over.
    if (user) becomeNew(user)
  }
  addEventListener('message', listen)
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
  if (!user || !sessionStorage.getItem('left-for-form')) return
  sessionStorage.removeItem('left-for-form')
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
  element('reference').hidden = message.action !== 'contact' || !problem
  element('reference-id').textContent = problem?.requestId ?? ''
  offer(message.action, retryAfterSeconds)
  element('notice-title').focus()
}

interface Failure {
  readonly problem?: Problem
  readonly retryAfterSeconds?: number
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
    const text = action === 'sign-in' ? 'Sign in' : 'Try again'
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

async function meet(name: string): Promise<void> {
  fault = faults[name] as Fault
  element<HTMLInputElement>(`fault-${name}`).checked = true
  await fetch(`${settings.idenfyUrl}/_sandbox/faults`, {
    method: 'PUT',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(fault.atIdenfy ? { ...fault.atIdenfy, times: 1 } : {}),
  })
  if (user && fault !== faults.none) becomeNew(user)
}

async function logged(request: Promise<Outcome>): Promise<Outcome> {
  const since = performance.now()
  const outcome = await request
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
  const outcome = code.startsWith('provider-') ? 'not-created' : undefined
  const problem: Problem = {
    type: `/problems/${code}`,
    code,
    title: '',
    status: 0,
    requestId: '9b94f962-e2ad-4f5f-8d85-724a1e0717bf',
    retryable: true,
    ...(outcome && { outcome }),
  }
  if (!user) await signIn(users[0] as User)
  show('verify')
  showNotice(messageOf(problem), { problem })
})
element('sign-out').addEventListener('click', signOut)
element('request').addEventListener('submit', (event) => {
  event.preventDefault()
  // A new wish, not a repetition.
  if (!isBusy) idempotencyKey = undefined
  verify()
})
element('leave').addEventListener('click', () => {
  leaveForm?.()
  show('verify')
})
element('again').addEventListener('click', () => show('verify'))
element<HTMLAnchorElement>('docs').href = `${settings.serviceUrl}/docs`
const known = users.find(({ id }) => id === sessionStorage.getItem('user'))
if (known) await signIn(known)
welcomeBack()
// The page may come out of the browser's memory as it was left.
addEventListener('pageshow', ({ persisted }) => {
  if (persisted) welcomeBack()
})
