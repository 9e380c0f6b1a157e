import { createHmac } from 'node:crypto'
import { Problem } from '../../problems/problem.js'
import type { Caller } from '../auth/caller.js'

const placeholders = ['companyId', 'userId', 'companyHash', 'userHash', 'requestId'] as const
type Placeholder = (typeof placeholders)[number]
type TemplatePart = { readonly literal: string } | { readonly placeholder: Placeholder }

export interface IdentityTemplates {
  readonly clientId: string
  readonly externalRef: string
}

export interface ClientIdentity {
  /** At most 100 characters. */
  readonly clientId: string
  /** At most 40 characters. */
  readonly externalRef: string
}

const maxLength = { clientId: 100, externalRef: 40 }
/** The characters of a plain id, as the inside of a character class. `:` and `/` are excluded: they separate ids. */
const idCharacters = 'A-Za-z0-9._~@|+=\\-'
const plainId = new RegExp(`^[${idCharacters}]+$`)
const separator = new RegExp(`[^${idCharacters}]`)

/**
 * Maps a caller to iDenfy's `clientId` and `externalRef`. If the templates name both user and company, two callers never
 * share a pair: plain ids cannot contain the separators that the templates must put between them. Hashed ids may be any
 * id text.
 *
 * @param identityKey keys the HMAC behind `{companyHash}` and `{userHash}`
 * @throws Error if a template is not usable
 */
export function createClientIdentity(templates: IdentityTemplates, identityKey?: string) {
  const parts = {
    clientId: parseTemplate(templates.clientId),
    externalRef: parseTemplate(templates.externalRef),
  }

  // The kind is part of the message, so that a user and a company with the same id get different hashes.
  const hash = (kind: 'company' | 'user', id: string): string =>
    createHmac('sha256', identityKey as string)
      .update(`${kind}:${id}`)
      .digest()
      .subarray(0, 16)
      .toString('base64url')

  const plain = (kind: 'company' | 'user', id: string): string => {
    if (plainId.test(id)) return id
    throw new Problem('identity-not-mappable', { diagnosis: { reason: `${kind}-id` } })
  }

  const values: Record<Placeholder, (caller: Caller, requestId: string) => string> = {
    companyId: ({ companyId }) => plain('company', companyId),
    userId: ({ userId }) => plain('user', userId),
    companyHash: ({ companyId }) => hash('company', companyId),
    userHash: ({ userId }) => hash('user', userId),
    requestId: (_caller, requestId) => requestId,
  }

  const render = (field: keyof ClientIdentity, caller: Caller, requestId: string): string => {
    const value = parts[field]
      .map((part) => ('literal' in part ? part.literal : values[part.placeholder](caller, requestId)))
      .join('')
    if (value.length > maxLength[field]) {
      // If it were cut, two callers could share an identity.
      throw new Problem('identity-not-mappable', { diagnosis: { reason: `${field}-too-long` } })
    }
    return value
  }

  /** @throws Problem `identity-not-mappable` */
  return (caller: Caller, requestId: string): ClientIdentity => ({
    clientId: render('clientId', caller, requestId),
    externalRef: render('externalRef', caller, requestId),
  })
}

export type ClientIdentityMapper = ReturnType<typeof createClientIdentity>

/** @throws Error that says, in words for the operator, what is wrong with the template */
export function checkTemplate(template: string, hasIdentityKey: boolean): void {
  const usesHash = parseTemplate(template).some(
    (part) => 'placeholder' in part && part.placeholder.endsWith('Hash'),
  )
  if (usesHash && !hasIdentityKey) throw new Error('uses a hash placeholder, which needs KYB_IDENTITY_KEY')
}

/** @throws Error if neither names the company: one company could then use the verification of another */
export function checkNamesCompany({ clientId, externalRef }: IdentityTemplates): void {
  if (!/\{company(Id|Hash)\}/.test(clientId + externalRef)) {
    throw new Error('or KYB_EXTERNAL_REF must name the company: {companyId} or {companyHash}')
  }
}

function parseTemplate(template: string): TemplatePart[] {
  if (!/^[ -~]+$/.test(template)) throw new Error('must be printable ASCII')
  const parts = template
    .split(/(\{[^{}]*\})/)
    .filter((text) => text !== '')
    .map((text): TemplatePart => {
      if (!/[{}]/.test(text)) return { literal: text }
      const placeholder = placeholders.find((name) => text === `{${name}}`)
      if (placeholder) return { placeholder }
      throw new Error(
        `has an unknown placeholder; known are ${placeholders.map((name) => `{${name}}`).join(', ')}`,
      )
    })
  let sincePlaceholder: string | undefined
  for (const part of parts) {
    if ('literal' in part) {
      if (sincePlaceholder !== undefined) sincePlaceholder = part.literal
    } else {
      if (sincePlaceholder !== undefined && !separator.test(sincePlaceholder)) {
        throw new Error('needs a separator that no id contains, such as ":" or "/", between two placeholders')
      }
      sincePlaceholder = ''
    }
  }
  return parts
}
