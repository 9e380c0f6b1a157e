/** Simulates iDenfy's form. It checks whether its token is still valid and reports how the visit ended. */

const element = <T extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as T

const texts = {
  success: ['Submitted', 'Thank you. You can close this page.'],
  failed: ['Not completed', 'The form could not be completed.'],
  expired: ['This link has expired', 'Go back to the page that you came from and request a new one.'],
  used: ['This form has been completed', 'There is nothing more to do here.'],
  unknown: ['This link does not work', 'Go back to the page that you came from and request a new one.'],
  unreachable: ['This page got no response', 'Please reload it.'],
} as const

const headers = {
  Authorization: `Bearer ${new URLSearchParams(location.search).get('authToken')}`,
  'Content-Type': 'application/json',
}

function show(id: 'open' | 'closed'): void {
  element('open').hidden = id !== 'open'
  element('closed').hidden = id !== 'closed'
  element(id).querySelector('h1')?.focus()
}

function close(reason: keyof typeof texts): void {
  const [title, text] = texts[reason]
  element('closed-title').textContent = title
  element('closed-text').textContent = text
  const isFramed = parent !== window
  element('back-line').hidden = isFramed || document.referrer === ''
  element<HTMLAnchorElement>('back').href = document.referrer
  show('closed')
}

/** Shows the form, or how it has ended. */
async function showState(): Promise<void> {
  const info = await fetch('/kyb/info/', { headers, cache: 'no-store' }).catch(() => undefined)
  if (!info) return close('unreachable')
  if (info.ok) return show('open')
  const { message } = (await info.json()) as { message: string | { completed: boolean } }
  if (typeof message === 'string') close('unknown')
  else close(message.completed ? 'used' : 'expired')
}

async function finish(outcome: 'success' | 'failed' | 'expired'): Promise<void> {
  element('send-fault').hidden = true
  try {
    const response = await fetch('/_sandbox/form', {
      method: 'PUT',
      headers,
      body: JSON.stringify({ outcome }),
    })
    // It has ended before, for example in another tab.
    if (!response.ok) return await showState()
  } catch {
    element('send-fault').hidden = false
    return
  }
  close(outcome)
  // Like iDenfy's form, this one does not tell the embedding page that it has expired.
  if (outcome !== 'expired') parent.postMessage(JSON.stringify({ status: outcome }), '*')
}

element('company-form').addEventListener('submit', (event) => {
  event.preventDefault()
  finish('success')
})
element('fail').addEventListener('click', () => finish('failed'))
element('expire').addEventListener('click', () => finish('expired'))
// The browser may restore an open form from its back/forward cache, although it has ended since.
addEventListener('pageshow', ({ persisted }) => {
  if (persisted) showState()
})

const { featurePolicy } = document as { featurePolicy?: { allowsFeature(name: string): boolean } }
if (!isSecureContext) {
  element('camera').textContent = 'Browsers do not let this page use the camera, because it has no HTTPS.'
} else if (featurePolicy) {
  const isAllowed = featurePolicy.allowsFeature('camera')
  element('camera').textContent = isAllowed
    ? 'This page may use the camera for your documents.'
    : 'The page that embeds this form does not allow it to use the camera.'
}

await showState()
