import fc from 'fast-check'
import { policyFaults } from './files.js'
import { connectFaults, responseFaults } from './idenfy.js'
import { type KeyId, keyIds, providerFaults, users } from './identity-provider.js'
import { type Channel, channels, messageEffects } from './network.js'

/** Faults begin and clicks happen in this time. After it, everything must recover. */
export const faultsMs = 12_000

/** In seconds, as a policy may say. */
const policyLifetimes = [60, 7_200] as const

/** A moment: by the clock, or when a message of a channel is sent. */
const momentIn = (maxMs: number, index: fc.Arbitrary<number>, channel: fc.Arbitrary<Channel>) =>
  fc.oneof(fc.record({ atMs: fc.nat(maxMs) }), fc.record({ channel, index }))
export type Moment = ReturnType<typeof momentIn> extends fc.Arbitrary<infer T> ? T : never

const durationMs = fc.oneof(fc.integer({ min: 50, max: 1_000 }), fc.integer({ min: 1_000, max: 12_000 }))
const replica = fc.nat(2)

const faultsAt = (
  moment: fc.Arbitrary<Moment>,
  index: fc.Arbitrary<number>,
  channel: fc.Arbitrary<Channel>,
) => ({
  idenfy: fc.record({
    kind: fc.constant('idenfy'),
    fault: fc.constantFrom(...connectFaults, ...responseFaults),
    from: moment,
    forMs: durationMs,
    /** How much longer than usual a response takes. */
    slowMs: fc.oneof(fc.constant(0), fc.nat(8_000)),
  }),
  redis: fc.record({
    kind: fc.constant('redis'),
    fault: fc.constantFrom('gone', 'slow', 'frozen', 'full', 'read-only', 'failover', 'restart'),
    from: moment,
    forMs: durationMs,
    /** What a failover loses. */
    lostMs: fc.nat(500),
  }),
  replica: fc.record({
    kind: fc.constant('replica'),
    fault: fc.constantFrom('kill', 'stop', 'suspend'),
    replica,
    from: moment,
    forMs: durationMs,
    timersFirst: fc.boolean(),
  }),
  sleep: fc.record({
    kind: fc.constant('replica'),
    fault: fc.constantFrom('stop', 'suspend'),
    replica,
    from: moment,
    forMs: fc.constantFrom(6 * 60_000, 20 * 60 * 60_000),
    timersFirst: fc.boolean(),
  }),
  clock: fc.record({
    kind: fc.constant('clock'),
    replica,
    from: moment,
    jumpMs: fc.constantFrom(-3_600_000, -60_000, -1_000, 1_000, 20_000, 60_000, 3_600_000),
  }),
  keys: fc.record({
    kind: fc.constant('keys'),
    publish: fc.uniqueArray(fc.constantFrom(...keyIds), { minLength: 1, maxLength: 2 }),
    from: moment,
  }),
  provider: fc.record({
    kind: fc.constant('provider'),
    fault: fc.constantFrom(...providerFaults),
    from: moment,
    forMs: durationMs,
  }),
  credentials: fc.record({
    kind: fc.constant('credentials'),
    from: moment,
    /** How long iDenfy still accepts the old pair. */
    overlapMs: fc.constantFrom(0, 2_000, 10_000),
  }),
  policy: fc.record({
    kind: fc.constant('policy'),
    content: fc.constantFrom(...policyFaults, ...policyLifetimes),
    from: moment,
    forMs: durationMs,
  }),
  message: fc.record({
    kind: fc.constant('message'),
    channel,
    index,
    effect: fc.constantFrom(...messageEffects),
    delayMs: fc.oneof(fc.nat(100), fc.nat(3_000)),
  }),
})
type FaultsOf = ReturnType<typeof faultsAt>
type FaultKind = keyof FaultsOf
export type Fault = FaultsOf[FaultKind] extends fc.Arbitrary<infer T> ? T : never

const anyIndex = fc.oneof(fc.nat(6), fc.nat(60))
const anyChannel = fc.constantFrom(...channels)
const faultsOf = faultsAt(momentIn(faultsMs, anyIndex, anyChannel), anyIndex, anyChannel)

/** So early that few messages are sent which have nothing to do with the clicks. */
const earlyMs = 500
const earlyIndex = fc.nat(12)
const serverChannel = fc.constantFrom(...channels.filter((name) => /^(redis|idenfy)/.test(name)))
const earlyFaultsOf = faultsAt(momentIn(earlyMs, earlyIndex, serverChannel), earlyIndex, serverChannel)

const near = (...momentsMs: readonly [number, ...number[]]) =>
  fc.tuple(fc.constantFrom(...momentsMs), fc.nat(300)).map(([atMs, laterMs]) => atMs + laterMs)

/** Calls that hang beside calls that fail at once. */
const shortOutage = fc.record({
  kind: fc.constant('idenfy'),
  fault: fc.constantFrom('hangs', 'error', 'refused'),
  from: fc.record({ atMs: near(0, 1_500) }),
  forMs: fc.integer({ min: 500, max: 2_000 }),
  slowMs: fc.constant(0),
})

/** Clicks of the same user come close to each other, or seconds apart. */
const clickMs = fc
  .tuple(fc.nat(faultsMs / 1000), fc.oneof(fc.nat(20), fc.nat(400)))
  .map(([seconds, milliseconds]) => seconds * 1000 + milliseconds)

const click = {
  atMs: clickMs,
  user: fc.oneof({ weight: 4, arbitrary: fc.nat(1) }, { weight: 1, arbitrary: fc.nat(users / 2 - 1) }),
  /** How many more users click at the same moment. */
  others: fc.oneof({ weight: 10, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(users / 2) }),
  replica,
  locale: fc.constantFrom('lt', 'en'),
  /** Two clicks of a user with one key: the user, or the page, tries again. */
  key: fc.option(fc.nat(2), { nil: undefined, freq: 2 }),
  client: fc.constantFrom('page', 'page', 'mesh', 'phone', 'double-click'),
  disconnectAfterMs: fc.oneof(
    { weight: 8, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.nat(50) },
    { weight: 1, arbitrary: fc.nat(2_000) },
  ),
  signedWith: fc.oneof(
    { weight: 5, arbitrary: fc.constant<KeyId>('a') },
    { weight: 2, arbitrary: fc.constantFrom(...keyIds) },
  ),
  hasShortToken: fc.oneof(
    { weight: 7, arbitrary: fc.constant(false) },
    { weight: 1, arbitrary: fc.constant(true) },
  ),
}
const anyClick = fc.record(click)
export type Click = typeof anyClick extends fc.Arbitrary<infer T> ? T : never

/** After so many milliseconds an idle connection is closed, or forgotten. */
const idleLimitMs = fc.oneof(
  fc.constantFrom(1_000, 5_000, 60_000, 3_600_000),
  fc.integer({ min: 1_000, max: 12_000 }),
)

/** How long a connection may stand by, and what becomes of idle ones. */
const path = fc.record({
  standbyMaxAgeMs: fc.constantFrom(45_000, 5_000),
  closedAfterMs: idleLimitMs,
  forgottenAfterMs: idleLimitMs,
})

const settings = {
  seed: fc.nat(),
  replicas: fc.integer({ min: 1, max: 3 }),
  hasRedis: fc.oneof(
    { weight: 3, arbitrary: fc.constant(true) },
    { weight: 1, arbitrary: fc.constant(false) },
  ),
  required: fc.constantFrom('keys', 'all', 'none'),
  timeoutMs: fc.constantFrom(2_000, 2_000, 4_000, 8_000),
  maxInFlight: fc.constantFrom(50, 3, 1),
  replayMs: fc.constantFrom(30_000, 5_000, 0),
  lifetimeSeconds: fc.constantFrom(3_600, 60),
  /** Without it, no connection stands by. */
  path: fc.option(path, { nil: undefined, freq: 2 }),
  /** Of a million: how much faster the monotonic clock of each replica is. */
  drifts: fc.tuple(fc.integer({ min: -500, max: 500 }), fc.constant(0), fc.integer({ min: -500, max: 500 })),
  /** How far each wall clock is ahead. */
  aheadMs: fc.tuple(fc.constant(0), fc.constantFrom(0, 0, 40, -40), fc.constantFrom(0, 0, 800, -800)),
}

interface Part {
  readonly faults: readonly fc.Arbitrary<Fault>[]
  readonly maxFaults: number
  readonly minClicks?: number
  readonly maxClicks: number
  readonly click?: Partial<typeof click>
  readonly settings?: Partial<typeof settings>
}

function scenariosOf(part: Part) {
  const { faults, maxFaults, minClicks = 1, maxClicks } = part
  return fc.record({
    ...settings,
    ...part.settings,
    clicks: fc.array(fc.record({ ...click, ...part.click }), { minLength: minClicks, maxLength: maxClicks }),
    faults: fc.array(fc.oneof(...faults), { minLength: 1, maxLength: maxFaults }),
  })
}

/**
 * Everything that happens in one simulation. It is data, so a failing one can be made smaller. Some scenarios have every
 * kind of fault. The others have few kinds, which then meet more often.
 */
export const scenario = fc.oneof(
  { weight: 4, arbitrary: scenariosOf({ faults: Object.values(faultsOf), maxFaults: 5, maxClicks: 5 }) },
  // Identical requests on several replicas, while something happens to one of them, to Redis or to a message.
  {
    weight: 4,
    arbitrary: scenariosOf({
      faults: [
        earlyFaultsOf.message,
        earlyFaultsOf.message,
        earlyFaultsOf.replica,
        earlyFaultsOf.redis,
        earlyFaultsOf.idenfy,
        earlyFaultsOf.clock,
      ],
      maxFaults: 2,
      maxClicks: 2,
      click: {
        atMs: fc.nat(earlyMs),
        user: fc.constant(0),
        others: fc.constant(0),
        locale: fc.constant('en'),
        client: fc.constant('double-click'),
        signedWith: fc.constant<KeyId>('a'),
        hasShortToken: fc.constant(false),
      },
      settings: {
        replicas: fc.constantFrom(2, 3),
        hasRedis: fc.constant(true),
        timeoutMs: fc.constantFrom(8_000, 4_000),
      },
    }),
  },
  // iDenfy fails and recovers while many users click.
  {
    weight: 1,
    arbitrary: scenariosOf({
      faults: [shortOutage],
      maxFaults: 3,
      minClicks: 4,
      maxClicks: 5,
      click: {
        // Calls that hang until their deadlines at 8.5 s; calls that fail; a probe before the deadlines; calls after them.
        atMs: near(500, 2_000, 7_500, 9_500),
        others: fc.constant(4),
        client: fc.constant('page'),
        key: fc.constant(undefined),
        signedWith: fc.constant<KeyId>('a'),
        hasShortToken: fc.constant(false),
      },
      settings: {
        replicas: fc.constant(1),
        hasRedis: fc.constant(false),
        timeoutMs: fc.constant(8_000),
        replayMs: fc.constant(0),
        maxInFlight: fc.constant(50),
      },
    }),
  },
  // Users come up to minutes apart, and connections stand by.
  {
    weight: 1,
    arbitrary: scenariosOf({
      faults: [faultsOf.idenfy, faultsOf.clock, faultsOf.replica, faultsOf.message],
      maxFaults: 3,
      minClicks: 2,
      maxClicks: 6,
      click: { atMs: fc.nat(150_000), signedWith: fc.constant<KeyId>('a') },
      settings: { path, replicas: fc.constantFrom(1, 2) },
    }),
  },
  // Machines sleep while keys and credentials change.
  {
    weight: 1,
    arbitrary: scenariosOf({
      faults: [faultsOf.sleep, faultsOf.keys, faultsOf.keys, faultsOf.provider, faultsOf.credentials],
      maxFaults: 4,
      maxClicks: 4,
      settings: { replicas: fc.constantFrom(1, 2) },
    }),
  },
)
export type Scenario = typeof scenario extends fc.Arbitrary<infer T> ? T : never
