import { type Static, type TSchema, Type } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import { type FieldFault, Problem } from '../../problems/problem.js'
import { idText } from '../auth/id-grammar.js'
import { type KybFormToken, KybSession, Lifetime, Locale, ScanRef, Tag } from '../idenfy/schemas.js'

const { lifetime, flow, theme, questionnaire, questionnaireRequired } = KybSession.properties

/** `true` lets the caller set a property to any value, a list to these values (for a list property: these members). */
const permission = <T extends TSchema>(value: T) => Type.Union([Type.Boolean(), Type.Array(value)])

const CallerMaySet = Type.Partial(
  Type.Object(
    {
      lifetime: Type.Union([
        permission(lifetime),
        Type.Object({ maximum: Lifetime }, { additionalProperties: false }),
      ]),
      locale: permission(Type.Union([Locale, Type.Null()])),
      flow: permission(flow),
      theme: permission(theme),
      questionnaire: permission(questionnaire),
      questionnaireRequired: permission(questionnaireRequired),
      tags: permission(Tag),
      scanRefs: permission(ScanRef),
    },
    { additionalProperties: false },
  ),
)

const Rules = Type.Object(
  { session: Type.Optional(KybSession), callerMaySet: Type.Optional(CallerMaySet) },
  { additionalProperties: false },
)

/** The document of `KYB_POLICY_FILE`. */
export const SessionPolicyDocument = Type.Object(
  {
    ...Rules.properties,
    companies: Type.Optional(
      Type.Record(Type.String({ pattern: `^${idText}$` }), Rules, {
        additionalProperties: false,
      }),
    ),
  },
  { additionalProperties: false },
)
export type SessionPolicyDocument = Static<typeof SessionPolicyDocument>

type Permission = boolean | readonly unknown[] | { readonly maximum?: number }
type EffectiveRules = Required<Static<typeof Rules>>

const defaults: EffectiveRules = { session: { lifetime: 3600 }, callerMaySet: { locale: true } }
const maxListedFaults = 20
const maxPointerLength = 300
const documentCheck = TypeCompiler.Compile(SessionPolicyDocument)

/** @throws Error that lists, in words for the operator, the first 20 faults by their JSON Pointers and never by their values */
export function checkPolicy(document: unknown): asserts document is SessionPolicyDocument {
  const faults = documentCheck.Check(document) ? conflicts(document) : [...documentCheck.Errors(document)]
  if (faults.length === 0) return
  const listed = faults
    .slice(0, maxListedFaults)
    .map(({ path, message }) => `${shown(path || '/')} ${message}`)
  if (faults.length > maxListedFaults) listed.push(`and ${faults.length - maxListedFaults} more`)
  throw new Error(`is not valid: ${listed.join('; ')}`)
}

/** The names in a pointer come from the operator and can have any length. */
function shown(pointer: string): string {
  const text = pointer.replace(/\p{Cc}/gu, '?')
  return text.length > maxPointerLength ? `${text.slice(0, maxPointerLength)}…` : text
}

/** @throws Error like {@link checkPolicy}, or that the text is not JSON */
export function parsePolicy(text: string): SessionPolicyDocument {
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch {
    throw new Error('is not JSON, which has no comments and no trailing commas')
  }
  checkPolicy(document)
  return document
}

/** A caller must not be able to disable what the operator has set. */
function conflicts(document: SessionPolicyDocument): { path: string; message: string }[] {
  const companies = Object.keys(document.companies ?? {})
  return [undefined, ...companies].flatMap((id) => {
    const { session, callerMaySet } = rulesOf(document, id)
    const path = id === undefined ? '' : `/companies/${id.replaceAll('~', '~0').replaceAll('/', '~1')}`
    const ignored = 'but iDenfy ignores a questionnaire next to a flow'
    const faults: { path: string; message: string }[] = []
    if (session.flow && session.questionnaire) {
      faults.push({ path: `${path}/session`, message: `has a flow and a questionnaire, ${ignored}` })
    } else if (session.questionnaire && maySetValue(callerMaySet.flow)) {
      faults.push({
        path: `${path}/callerMaySet/flow`,
        message: `lets the caller set a flow, and session has a questionnaire, ${ignored}`,
      })
    } else if (session.flow && maySetValue(callerMaySet.questionnaire)) {
      faults.push({
        path: `${path}/callerMaySet/questionnaire`,
        message: `lets the caller set a questionnaire, and session has a flow, ${ignored}`,
      })
    }
    return faults
  })
}

/** Whether the caller may set anything but null. */
function maySetValue(permission: boolean | readonly unknown[] | undefined): boolean {
  return Array.isArray(permission) ? permission.some((value) => value !== null) : permission === true
}

/**
 * Decides what a KYB session contains: the values of the operator's policy for the company, and those requested values
 * that the policy allows.
 *
 * @param document as accepted by {@link checkPolicy}
 */
export function createSessionPolicy(document: SessionPolicyDocument = {}) {
  const common = rulesOf(document)
  const ofCompany = new Map(Object.keys(document.companies ?? {}).map((id) => [id, rulesOf(document, id)]))
  const rulesFor = (companyId: string): EffectiveRules => ofCompany.get(companyId) ?? common

  return {
    /**
     * The session to request from iDenfy. A value of the caller replaces the policy's value.
     *
     * @throws Problem `field-not-permitted`, naming every such field; `validation-failed` for fields that exclude each other
     */
    sessionFor(companyId: string, request: KybSession): KybSession {
      const { session, callerMaySet } = rulesFor(companyId)
      const errors = Object.entries(request).flatMap(([property, value]): FieldFault[] => {
        const rule = permissionOf(callerMaySet, property)
        if (permits(rule, value)) return []
        return [{ pointer: `/${property}`, code: rule ? 'value-not-permitted' : 'not-permitted' }]
      })
      if (errors.length > 0) throw new Problem('field-not-permitted', { errors })
      const effective = { ...session, ...request }
      // For iDenfy null and absent mean the same here, but its documentation forbids null. Other nulls have a meaning.
      if (effective.locale === null) delete effective.locale
      if (effective.flow && effective.questionnaire) {
        throw new Problem('validation-failed', {
          errors: [{ pointer: '/questionnaire', code: 'excluded-by-flow' }],
        })
      }
      return effective
    },

    /** What callers of this company may set. */
    permissionsOf: (companyId: string): EffectiveRules['callerMaySet'] => rulesFor(companyId).callerMaySet,

    /** The part of iDenfy's session that the caller may see: only what the caller could have set. */
    readableBy(companyId: string, token: KybFormToken): Pick<KybFormToken, ReadableProperty> {
      const { callerMaySet } = rulesFor(companyId)
      const readable: Record<string, unknown> = {}
      for (const property of readableProperties) {
        const rule = permissionOf(callerMaySet, property)
        const value = token[property]
        if (Array.isArray(value)) {
          if (rule) readable[property] = value.filter((member) => permits(rule, member))
        } else if (value !== undefined && permits(rule, value)) {
          readable[property] = value
        }
      }
      return readable
    },
  }
}

export type SessionPolicy = ReturnType<typeof createSessionPolicy>

const readableProperties = ['locale', 'flow', 'theme', 'tags', 'scanRefs'] as const
type ReadableProperty = (typeof readableProperties)[number]

function rulesOf(document: SessionPolicyDocument, companyId?: string): EffectiveRules {
  const own = companyId === undefined ? {} : document.companies?.[companyId]
  return {
    session: { ...(document.session ?? defaults.session), ...own?.session },
    callerMaySet: { ...(document.callerMaySet ?? defaults.callerMaySet), ...own?.callerMaySet },
  }
}

function permissionOf(callerMaySet: EffectiveRules['callerMaySet'], property: string): Permission {
  return callerMaySet[property as keyof typeof callerMaySet] ?? false
}

function permits(rule: Permission, value: unknown): boolean {
  if (typeof rule === 'boolean') return rule
  if (!Array.isArray(rule)) return typeof value === 'number' && value <= (rule as { maximum: number }).maximum
  return Array.isArray(value) ? value.every((member) => rule.includes(member)) : rule.includes(value)
}
