import { type Clicker, createClients, describe, type Outcome } from './clients.js'
import { createFaults } from './faults.js'
import { createFiles } from './files.js'
import { createHistory } from './history.js'
import { createIdenfy } from './idenfy.js'
import { createIdentityProvider, type KeyId, users } from './identity-provider.js'
import { createInstances } from './instances.js'
import { createNetwork, type MessageFault } from './network.js'
import { createRedisServer } from './redis-server.js'
import { checkHistory, checkPost, checkRecovery, checkResponse, RuleBroken, type World } from './rules.js'
import { type Click, type Fault, faultsMs, type Moment, type Scenario } from './scenario.js'
import { createVirtualTime, type Event } from './virtual-time.js'

/** When the last fault is over, everything must work again within this time. */
const recoveryMs = 10_000
/** The same after failed fetches of the signing keys, which back off for up to a minute. */
const keyRecoveryMs = 75_000
/** From a message of Redis that has a fault, until its replica uses Redis again. A lost one is noticed late. */
const messageRecoveryMs = { lost: 3_000, cut: 1_000, delayed: 1_000, doubled: 0 }
/** A simulation that has not ended after so many steps has a click without an end. */
const maxSteps = 200
/** How long work may take to end when an instance closes. It tries for a second to write its results to Redis. */
const closingMs = 1_100

/**
 * Runs one scenario, and checks the rules at every step.
 *
 * @param timeline gets a line for everything that happens
 * @throws RuleBroken
 */
export async function simulate(scenario: Scenario, timeline?: string[]): Promise<void> {
  const time = createVirtualTime()
  function note(who: string, text: () => string): void {
    timeline?.push(`${(time.now() / 1000).toFixed(4).padStart(10)}  ${who.padEnd(12)} ${text()}`)
  }
  let failure: unknown
  /** The first rule that is broken ends the simulation. */
  function check(run: () => void): void {
    try {
      run()
    } catch (error) {
      failure ??= error
    }
  }

  const onMessage = new Map<string, (() => void)[]>()
  let hadKeyFault = false
  const network = createNetwork({
    time,
    seed: scenario.seed,
    faults: scenario.faults.filter((fault): fault is Fault & MessageFault => fault.kind === 'message'),
    onSend: (channel, index) => {
      for (const begin of onMessage.get(`${channel} ${index}`) ?? []) time.after(0, begin)
    },
    onFault: (fault) => {
      note('fault', () => JSON.stringify(fault))
      if (fault.channel.startsWith('redis'))
        redis?.noteTrouble(fault.delayMs, messageRecoveryMs[fault.effect])
      if (fault.channel.startsWith('keys')) hadKeyFault = true
    },
  })
  const idenfy = createIdenfy(time, scenario.seed)
  const provider = createIdentityProvider(time)
  const redis = scenario.hasRedis ? createRedisServer(time) : undefined
  const files = createFiles(time, scenario.lifetimeSeconds)
  idenfy.accept(files.authorization())
  const history = createHistory()
  const world: World = { scenario, time, history, idenfy, provider, redis, files }
  const instances = createInstances({
    ...world,
    network,
    note,
    onPost: (post) => check(() => checkPost(world, post)),
  })
  const clients = createClients({
    time,
    network,
    instances,
    history,
    note,
    patienceMs: scenario.timeoutMs + 10_000,
    onResponse: (request, response) => check(() => checkResponse(world, request, response)),
  })

  /** What is to happen at a moment of the clock. It waits while all machines sleep. */
  const planned = new Set<Event>()
  function plan(atMs: number, happen: () => void): void {
    const event = time.after(atMs - time.now(), () => {
      planned.delete(event)
      happen()
    })
    planned.add(event)
  }
  const faults = createFaults({
    ...world,
    instances,
    clients,
    note,
    onSleep: (forMs) => {
      for (const event of [...planned]) {
        event.isCancelled = true
        planned.delete(event)
        plan(event.atMs + forMs, event.happen)
      }
    },
  })
  function planAt(from: Moment, happen: () => void): void {
    if ('atMs' in from) {
      plan(from.atMs, happen)
      return
    }
    const message = `${from.channel} ${from.index}`
    onMessage.set(message, [...(onMessage.get(message) ?? []), happen])
  }
  for (const fault of scenario.faults) {
    if (fault.kind === 'provider') hadKeyFault = true
    if (fault.kind !== 'message') planAt(fault.from, () => faults.begin(fault))
  }

  let openClicks = 0
  for (const click of scenario.clicks) {
    for (const user of usersOf(click)) {
      plan(click.atMs, () => {
        openClicks += 1
        void clients.click({ click, user, signedWith: click.signedWith }).then(() => {
          openClicks -= 1
        })
      })
    }
  }

  await time.runUntil(faultsMs)
  for (let steps = 0; failure === undefined; steps++) {
    if (openClicks === 0 && planned.size === 0 && time.now() >= faults.lastEndsAtMs()) break
    if (steps > maxSteps) throw new RuleBroken('recovery: a click does not end')
    await time.runUntil(Math.max(time.now() + 1_000, faults.lastEndsAtMs()))
  }
  if (failure === undefined) await recover()
  if (failure !== undefined) throw failure

  /** Everything works again on every replica, soon. */
  async function recover(): Promise<void> {
    note('end', () => 'faults are over')
    network.heal()
    onMessage.clear()
    for (const { process } of instances.all) process.setWallClock(-process.wallAheadMs())
    // A call that has begun may take until its deadline, and then count as an outage.
    const endMs = time.now() + scenario.timeoutMs + (hadKeyFault ? keyRecoveryMs : recoveryMs)
    let problem: unknown
    do {
      await time.runUntil(time.now() + 2_000)
      problem = await findProblem()
    } while (problem !== undefined && failure === undefined && time.now() < endMs)
    failure ??= problem ?? (await findUnsettled())
    check(() => checkHistory(world))
  }

  /** @returns work that has not ended although its clients have their responses */
  async function findUnsettled(): Promise<unknown> {
    let settled = 0
    for (const { replica } of instances.all) {
      time.run(() => {
        void replica?.singleFlight.settled().then(() => {
          settled += 1
        })
      })
    }
    await time.runUntil(time.now() + closingMs)
    return settled === scenario.replicas ? undefined : new RuleBroken('recovery: work has not ended')
  }

  /** Sends a request to every replica. @returns what does not work yet */
  async function findProblem(): Promise<unknown> {
    const [signedWith] = provider.published() as [KeyId]
    const outcomes: Outcome[] = []
    for (let index = 0; index < scenario.replicas; index++) {
      const clicker: Clicker = { click: lastClick, user: users - 1 - index, signedWith }
      void clients.send(clicker, index).then((outcome) => outcomes.push(outcome))
    }
    await time.runUntil(time.now() + 500)
    try {
      for (const instance of instances.all) checkRecovery(instance, redis !== undefined)
      checkServed(outcomes, scenario.replicas)
      return undefined
    } catch (error) {
      return error
    }
  }
}

/** The user of a click, and other users from the second half of all. */
function usersOf({ user, others }: Click): number[] {
  return [user, ...Array.from({ length: others }, (_, index) => users / 2 + index)]
}

function checkServed(outcomes: readonly Outcome[], expected: number): void {
  for (const outcome of outcomes) {
    if (outcome === 'lost') throw new RuleBroken('recovery: a connection is lost')
    if (!('token' in outcome.response)) throw new RuleBroken(`recovery: ${describe(outcome.response)}`)
  }
  if (outcomes.length < expected) throw new RuleBroken('recovery: no response')
}

/** What a user does when everything works again. */
const lastClick: Click = {
  atMs: 0,
  user: 0,
  others: 0,
  replica: 0,
  locale: 'en',
  key: undefined,
  client: 'page',
  disconnectAfterMs: undefined,
  signedWith: 'a',
  hasShortToken: false,
}
