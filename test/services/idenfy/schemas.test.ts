import { Value } from '@sinclair/typebox/value'
import t, { type Test } from 'tap'
import {
  KybFormToken,
  KybFormTokenRequest,
  KybSession,
  Lifetime,
  Locale,
  ScanRef,
  Tag,
} from '../../../src/services/idenfy/schemas.js'

const uuid = '7b1d8a1e-6C1b-4d53-9d3a-0c5a3f2e9a10'

/** In ASCII, because tap takes some characters for the end of a line. */
const shown = (value: unknown) => encodeURI(JSON.stringify(value))

function check(t: Test, schema: Parameters<typeof Value.Check>[0], good: unknown[], bad: unknown[]): void {
  for (const value of good) t.equal(Value.Check(schema, value), true, shown(value))
  for (const value of bad) t.equal(Value.Check(schema, value), false, `not ${shown(value)}`)
}

/** The same values as one member of an otherwise good object. */
function checkMember(
  t: Test,
  schema: Parameters<typeof Value.Check>[0],
  rest: object,
  name: string,
  good: unknown[],
  bad: unknown[],
): void {
  const put = (value: unknown) => ({ ...rest, [name]: value })
  check(t, schema, good.map(put), bad.map(put))
}

/** Control characters, changes of the direction of writing, and lone surrogates. */
const unwanted = [
  ...['\u0000', '\n', '\u001f', '\u007f', '\u009f', '\u202a', '\u202e', '\u2066', '\u2069'],
  ...['\ud800', '\udbff', '\udc00', '\udfff', '\udc00\ud800'],
].map((character) => `a${character}b`)
const wanted = [
  'a',
  'Łódź',
  ' ~',
  '\u00a0',
  '\u2029',
  '\u202f',
  '\u2065',
  '\u206a',
  '\ud7ff',
  '\ue000',
  '😀',
  '\ud800\udc00\udbff\udfff',
]

t.test('a tag and a scan reference are short texts without a comma', async (t) => {
  check(t, Tag, [...wanted, 'x'.repeat(32)], ['', 'x'.repeat(33), 'a,b', ',', ...unwanted, 5, null])
  check(t, ScanRef, [...wanted, 'x'.repeat(40)], ['', 'x'.repeat(41), 'a,b', ',', ...unwanted, 5, null])
})

t.test('a locale is one that iDenfy has', async (t) => {
  const locales = 'en es fr ru de it pl lt lv et cs ro hu ja bg nl pt'.split(' ')
  check(t, Locale, locales, ['', 'EN', 'xx', 'en-GB', null])
})

t.test('a lifetime is between a minute and thirty days', async (t) => {
  check(t, Lifetime, [60, 2_592_000], [59, 2_592_001, 60.5, '60', null])
})

t.test('a session has the members that iDenfy documents, and no other', async (t) => {
  const member = (name: string, good: unknown[], bad: unknown[]) =>
    checkMember(t, KybSession, {}, name, good, bad)
  check(
    t,
    KybSession,
    [{}],
    [null, [], 'x', { other: 1 }, { clientId: 'acme' }, { externalRef: 'u-1' }, { tokenType: 'FORM' }],
  )
  member('lifetime', [60], [59, null])
  member('locale', ['lt', null], ['xx', 5])
  for (const name of ['flow', 'theme']) {
    const bad = [
      `urn:uuid:${uuid}`,
      uuid.slice(1),
      `${uuid}0`,
      `0${uuid}`,
      uuid.replace('b', 'g'),
      uuid.replaceAll('-', ''),
      `${uuid.slice(0, 18)}${uuid.slice(23)}`,
    ]
    member(name, [uuid, null], [...bad, '', 5])
  }
  member('questionnaire', ['a,b', 'x'.repeat(1000), ...wanted, null], ['', ...unwanted, 5])
  member('questionnaireRequired', [true, false], [null, 'true'])
  member('tags', [[], ['a', 'b', 'c', 'd', 'e']], [['a', 'b', 'c', 'd', 'e', 'f'], ['a,b'], 'a', null])
  member('scanRefs', [[], Array(50).fill('s'), null], [['a,b'], 's'])
})

t.test('a request has an identity and a session', async (t) => {
  const identity = { tokenType: 'FORM', clientId: 'acme' }
  const member = (name: string, good: unknown[], bad: unknown[]) =>
    checkMember(t, KybFormTokenRequest, identity, name, good, bad)
  check(
    t,
    KybFormTokenRequest,
    [identity, { ...identity, locale: 'lt' }],
    [{}, { clientId: 'acme' }, { tokenType: 'FORM' }, { ...identity, other: 1 }],
  )
  member('tokenType', ['FORM', 'GOV1', 'GOV2'], ['', 'GOV3', null])
  member('clientId', ['x', 'x'.repeat(100)], ['', 'x'.repeat(101), null])
  member('externalRef', ['', 'x'.repeat(40), null], ['x'.repeat(41), 5])
  member('lifetime', [0, 2_592_000], [-1, 2_592_001, null])
})

t.test('a token needs little, and the rest must be usable', async (t) => {
  const token = { tokenString: 'T0ken', expiration: '2026-11-23T13:00:00Z' }
  const member = (name: string, good: unknown[], bad: unknown[]) =>
    checkMember(t, KybFormToken, token, name, good, bad)
  const { tokenString, expiration } = token
  check(
    t,
    KybFormToken,
    [token, { ...token, other: 1 }],
    [{}, { tokenString }, { expiration }, null, [token]],
  )
  member(
    'tokenString',
    ['x', 'AZaz09._~+/=-', 'x'.repeat(2048)],
    ['', 'x'.repeat(2049), 'a b', 'a,b', '<a>', 'é', 'x\n', '\nx', ' x', 5],
  )
  member(
    'expiration',
    [
      '2026-11-23T13:00:00Z',
      '2026-11-23 13:00:00Z',
      '2026-11-23T13:00:00.5Z',
      '2026-11-23T13:00:00.123456+02:00',
      '2026-11-23T13:00:00-0230',
    ],
    [
      '2026-11-23T13:00:00',
      '2026-11-23',
      '202-11-23T13:00:00Z',
      '2026-1-23T13:00:00Z',
      '2026-11-3T13:00:00Z',
      '2026-11-23X13:00:00Z',
      '2026-11-23T3:00:00Z',
      '2026-11-23T13:0:00Z',
      '2026-11-23T13:00:0Z',
      '2026-11-23T13:00:00.Z',
      '2026-11-23T13:00:00z',
      '2026-11-23T13:00:00+2:00',
      '2026-11-23T13:00:00+02:0',
      '2026-11-23T13:00:00+02',
      'x2026-11-23T13:00:00Z',
      '2026-11-23T13:00:00Zx',
      5,
    ],
  )
  member('tokenType', ['FORM'], ['GOV1', null])
  member('isValid', [true], [false, null])
  member('clientId', ['x'], [null, 5])
  member('externalRef', ['x', null], [5])
  member('companyId', ['x'.repeat(200), null], ['x'.repeat(201), 5])
  member('locale', ['x'.repeat(10), null], ['x'.repeat(11), 5])
  for (const name of ['flow', 'theme']) member(name, ['x'.repeat(100), null], ['x'.repeat(101), 5])
  member(
    'tags',
    [[], Array(100).fill('x'.repeat(100)), null],
    [Array(101).fill('x'), ['x'.repeat(101)], [5], 'x'],
  )
  member('scanRefs', [[], Array(200).fill('x'.repeat(100)), null], [['x'.repeat(101)], [5], 'x'])
})
