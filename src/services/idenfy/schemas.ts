import { type Static, type TSchema, Type } from '@sinclair/typebox'

/*
 * From iDenfy's documentation of POST /kyb/tokens/. Lengths and patterns are iDenfy's. In addition, texts must not have
 * control characters, characters that change the direction of writing, or lone surrogates. UUIDs are checked by pattern,
 * because the `uuid` format of common validators also accepts `urn:uuid:…`.
 */

const Nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])

const Uuid = Type.String({ pattern: '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' })

export const Locale = Type.Union(
  ['en', 'es', 'fr', 'ru', 'de', 'it', 'pl', 'lt', 'lv', 'et', 'cs', 'ro', 'hu', 'ja', 'bg', 'nl', 'pt'].map(
    (locale) => Type.Literal(locale),
  ),
)
/** A text of any length. Surrogate pairs are written out, because one of the two validators reads UTF-16 units. */
const text = (alsoNot = '') =>
  `^([^${alsoNot}\\u0000-\\u001f\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]|[\\ud800-\\udbff][\\udc00-\\udfff])*$`
export const Tag = Type.String({ minLength: 1, maxLength: 32, pattern: text(',') })
export const ScanRef = Type.String({ minLength: 1, maxLength: 40, pattern: text(',') })

/** The body of `POST /kyb/tokens/`. */
export const KybFormTokenRequest = Type.Object(
  {
    tokenType: Type.Union([Type.Literal('FORM'), Type.Literal('GOV1'), Type.Literal('GOV2')]),
    clientId: Type.String({ minLength: 1, maxLength: 100 }),
    externalRef: Type.Optional(Nullable(Type.String({ maxLength: 40 }))),
    lifetime: Type.Optional(Type.Integer({ minimum: 0, maximum: 2_592_000 })),
    locale: Type.Optional(Nullable(Locale)),
    flow: Type.Optional(Nullable(Uuid)),
    theme: Type.Optional(Nullable(Uuid)),
    questionnaire: Type.Optional(Nullable(Type.String({ minLength: 1, pattern: text() }))),
    questionnaireRequired: Type.Optional(Type.Boolean()),
    tags: Type.Optional(Type.Array(Tag, { maxItems: 5 })),
    scanRefs: Type.Optional(Nullable(Type.Array(ScanRef))),
  },
  { additionalProperties: false },
)
export type KybFormTokenRequest = Static<typeof KybFormTokenRequest>

const { tokenType: _, clientId: __, externalRef: ___, ...sessionProperties } = KybFormTokenRequest.properties

/** In seconds. At least a minute: iDenfy does not document what 0 means, and it might mean no end. */
export const Lifetime = Type.Integer({ minimum: 60, maximum: 2_592_000 })

/** What can be chosen for a session: the request without the identity. */
export const KybSession = Type.Object(
  { ...sessionProperties, lifetime: Type.Optional(Lifetime) },
  { additionalProperties: false },
)
export type KybSession = Static<typeof KybSession>

/**
 * The response of `POST /kyb/tokens/`, read tolerantly. Versions of iDenfy's documentation differ on required members and
 * on nulls. So only what a session needs is required, and unknown members are ignored.
 */
export const KybFormToken = Type.Object({
  /** A bearer credential for the whole form. */
  tokenString: Type.String({ pattern: '^[A-Za-z0-9._~+/=-]{1,2048}$' }),
  /** RFC 3339 with a time zone. Without one the moment would be a guess. */
  expiration: Type.String({
    pattern: '^\\d{4}-\\d{2}-\\d{2}[T ]\\d{2}:\\d{2}:\\d{2}(\\.\\d+)?(Z|[+-]\\d{2}:?\\d{2})$',
  }),
  tokenType: Type.Optional(Type.Literal('FORM')),
  isValid: Type.Optional(Type.Literal(true)),
  clientId: Type.Optional(Type.String()),
  externalRef: Type.Optional(Nullable(Type.String())),
  companyId: Type.Optional(Nullable(Type.String({ maxLength: 200 }))),
  locale: Type.Optional(Nullable(Type.String({ maxLength: 10 }))),
  flow: Type.Optional(Nullable(Type.String({ maxLength: 100 }))),
  theme: Type.Optional(Nullable(Type.String({ maxLength: 100 }))),
  tags: Type.Optional(Nullable(Type.Array(Type.String({ maxLength: 100 }), { maxItems: 100 }))),
  scanRefs: Type.Optional(Nullable(Type.Array(Type.String({ maxLength: 100 })))),
})
export type KybFormToken = Static<typeof KybFormToken>
