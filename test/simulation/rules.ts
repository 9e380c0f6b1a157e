import type { Problem } from '../../src/problems/problem.js'
import { classifyFailure } from '../../src/services/idenfy/resilient-client.js'
import type { Files } from './files.js'
import {
  type History,
  type Instance,
  outcomeOf,
  type PostRecord,
  type RequestRecord,
  type Response,
} from './history.js'
import type { Idenfy } from './idenfy.js'
import { type IdentityProvider, issuedBeforeMs, shortTokenMs } from './identity-provider.js'
import { epochMs } from './process.js'
import type { RedisServer } from './redis-server.js'
import type { Scenario } from './scenario.js'
import type { VirtualTime } from './virtual-time.js'

/** What happened, and all that instances cannot know. */
export interface World {
  readonly scenario: Scenario
  readonly time: VirtualTime
  readonly history: History
  readonly idenfy: Idenfy
  readonly provider: IdentityProvider
  readonly redis: RedisServer | undefined
  readonly files: Files
}

/** A rule of docs/reliability.md does not hold. */
export class RuleBroken extends Error {
  override readonly name = 'RuleBroken'
}

function broken(rule: string, text: string): never {
  throw new RuleBroken(`${rule}: ${text}`)
}

const toleranceMs = 100
const unknownOutcomeMs = 5_000
const hourMs = 60 * 60_000
const leaseSlackMs = 2_000
const minReplayLifeMs = 30_000
/** How long two readings of a file take, and a POST that was already prepared. */
const reloadMs = 3_500

/** Called when a POST begins to be sent, before it is added to the history. */
export function checkPost(world: World, post: PostRecord): void {
  const { scenario, history } = world
  const { posts } = history
  const { request } = post
  const { process } = request.instance
  for (const other of posts) checkSecondPost(world, post, other)

  if (post.isOnDeadConnection) {
    broken('no outcome is unknown without need', `POST of ${request.id} on a connection that is dead`)
  }
  const usedMs = post.sentMonotonicMs - request.beganMonotonicMs
  if (usedMs > (scenario.timeoutMs * 3) / 4 + 1) {
    broken('one deadline', `POST of ${request.id} sent after ${Math.round(usedMs)} ms`)
  }
  const inFlight = posts.filter(
    (other) => other.request.instance === request.instance && other.settled === undefined,
  )
  if (inFlight.length >= scenario.maxInFlight) {
    broken('bulkhead', `${inFlight.length + 1} POSTs of ${request.instance.name} in flight`)
  }
  const waiting = world.history.requests.filter(
    (other) =>
      other.instance === request.instance &&
      other.endedAtMs === undefined &&
      (other.session === request.session || other.id === request.id),
  )
  if (waiting.every(({ isAbandoned }) => isAbandoned)) {
    broken('one click, one verification', `POST of ${request.id} sent although every client has disconnected`)
  }
  const replacedAtMs = world.files.replacedAtMs(post.authorization)
  const knownAtMs = Math.max(replacedAtMs ?? Number.POSITIVE_INFINITY, request.instance.lastContinuedAtMs)
  if (world.time.now() > knownAtMs + reloadMs) {
    broken('revoked stops working', `POST of ${request.id} with credentials replaced at ${replacedAtMs}`)
  }
  const staleMs = reloadMs + scenario.timeoutMs
  const hasJustContinued = world.time.now() < request.instance.lastContinuedAtMs + staleMs
  const since = (hasJustContinued ? request.instance.lastFrozenAtMs : world.time.now()) - staleMs
  if (!world.files.wasPolicy(post.lifetimeSeconds, since)) {
    broken('a bad value affects nothing', `POST of ${request.id} with lifetime ${post.lifetimeSeconds}`)
  }
  if (!process.isRunning()) broken('simulation', 'a process that does not run sent a POST')
}

/** Whether an earlier POST, which may have opened a verification, forbids this one. */
function checkSecondPost(world: World, post: PostRecord, other: PostRecord): void {
  const { scenario } = world
  const { request } = post
  const { settled } = other
  if (settled?.outcome === 'not-created') return
  const isSameKey =
    request.idempotencyKey !== undefined && request.idempotencyKey === other.request.idempotencyKey
  const isSameSession =
    request.session === other.request.session && post.lifetimeSeconds === other.lifetimeSeconds
  if (!isSameKey && !isSameSession) return

  const { instance } = request
  const { now, monotonicNow } = instance.process.clock
  const isSameInstance = instance === other.request.instance
  if (!isSameInstance && !isShared(world, isSameKey, other)) return
  const describe = (reason: string): never =>
    broken(
      'one click, one verification',
      `POST of ${request.id} (${instance.name}) after the one of ${other.request.id} (${other.request.instance.name}), ${reason}`,
    )
  /** By both clocks of this instance, or by the one of Redis. */
  const ageMs = !settled
    ? 0
    : isSameInstance
      ? Math.max(monotonicNow() - settled.monotonicMs, now() - settled.wallMs)
      : world.time.now() - settled.atMs
  const lifeMs = verificationLifeMs(world, other, isSameInstance ? now() : Number.NEGATIVE_INFINITY)

  if (request === other.request) describe('which was its own')
  if (isSameKey) {
    if (!settled) {
      if (world.time.now() < leaseEndMs(world, other) + hourMs || isSameInstance)
        describe('which is in flight under its key')
    } else if (settled.outcome === 'unknown' && ageMs < hourMs - toleranceMs) {
      describe('whose outcome is unknown under its key')
    } else if (settled.outcome === 'created' && ageMs < hourMs - toleranceMs && lifeMs > toleranceMs) {
      describe('which opened a verification under its key')
    }
  }
  if (!isSameSession) return
  if (!settled) {
    if (isSameInstance || other.request.instance.process.isAlive()) {
      if (isSameInstance || world.time.now() < leaseEndMs(world, other)) describe('which is in flight')
    } else if (request.idempotencyKey === undefined) {
      if (world.time.now() < leaseEndMs(world, other) + unknownOutcomeMs - toleranceMs)
        describe('whose instance was killed')
    } else if (world.time.now() < leaseEndMs(world, other) - toleranceMs)
      describe('whose lease has not ended')
    return
  }
  // A result that could not be stored is not known to others. Its lease stops them: until it ends, and without a key
  // for five seconds more.
  const isStored = isSameInstance || !world.redis?.hadTroubleSince(other.request.beganAtMs)
  const lostMs = request.idempotencyKey === undefined ? unknownOutcomeMs : 0
  const blockedMs = isStored ? Number.POSITIVE_INFINITY : leaseEndMs(world, other) + lostMs - world.time.now()
  if (settled.outcome === 'unknown') {
    if (request.idempotencyKey === undefined && ageMs < unknownOutcomeMs - toleranceMs && blockedMs > 0)
      describe('whose outcome is unknown')
    return
  }
  const replayLeftMs = Math.min(scenario.replayMs - ageMs, lifeMs - minReplayLifeMs)
  if (replayLeftMs > toleranceMs && blockedMs > toleranceMs) describe('which has just opened a verification')
}

/** Whether what one instance does is known to the others, whatever happens. */
function isShared({ scenario, redis }: World, isSameKey: boolean, other: PostRecord): boolean {
  if (!redis || redis.hasLostWrites()) return false
  if (scenario.required === 'all' || (isSameKey && scenario.required === 'keys')) return true
  return !redis.hadTroubleSince(other.request.beganAtMs)
}

/** When the lease of a request ends that sent a POST. */
function leaseEndMs({ scenario }: World, { request }: PostRecord): number {
  return request.beganAtMs + scenario.timeoutMs + leaseSlackMs
}

/** How long a token is valid: truly, by a wall clock, and by the one of the instance that stored it. */
function verificationLifeMs(world: World, { request, settled }: PostRecord, wallMs: number): number {
  for (const { externalRef, expiresAtMs } of world.idenfy.opened.values()) {
    if (externalRef !== request.id) continue
    const endMs = epochMs + expiresAtMs
    const storedMs = settled ? endMs - settled.wallMs - (world.time.now() - settled.atMs) : 0
    return Math.min(expiresAtMs - world.time.now(), endMs - wallMs, storedMs)
  }
  return 0
}

/** Called when an instance has a response. */
export function checkResponse(world: World, request: RequestRecord, response: Response): void {
  const { instance } = request
  const durationMs = instance.process.clock.monotonicNow() - request.beganMonotonicMs
  const wasFrozen = instance.lastContinuedAtMs >= request.beganAtMs
  if (durationMs > world.scenario.timeoutMs + 5 && !wasFrozen) {
    broken('one deadline', `${request.id} waited ${Math.round(durationMs)} ms`)
  }
  checkReload(world, instance)
  checkKeys(world, request, response)
  if ('token' in response) checkToken(world, request, response.token)
  else if ('problem' in response) {
    checkProblem(world, request, response.problem)
    checkCircuit(request, response.problem)
  } else broken('every failure is a problem', `${request.id}: ${(response.fault as Error)?.stack}`)
}

/** A bad file is reported for as long as it is bad. */
function checkReload({ files, time }: World, { name, replica, process, lastContinuedAtMs }: Instance): void {
  const { isUsable, sinceMs } = files.policy()
  const isRead = time.now() > Math.max(sinceMs, lastContinuedAtMs, process.startedAtMs) + reloadMs
  if (isUsable === undefined || !isRead || replica?.policy.isFailing() === !isUsable) return
  broken('a bad value affects nothing', `${name} reports a ${isUsable ? 'good' : 'bad'} policy as the other`)
}

function checkToken(
  world: World,
  { id, user, session, instance }: RequestRecord,
  { tokenString, expiration, expiresIn }: { tokenString: string; expiration: string; expiresIn: number },
): void {
  const verification = world.idenfy.opened.get(tokenString)
  const minter = world.history.posts.find(({ request }) => request.id === verification?.externalRef)
  if (!verification || !minter)
    throw new RuleBroken(`nothing is invented: ${id} got a token that iDenfy did not issue`)
  if (verification.clientId !== `company-${user}:user-${user}` || minter.request.session !== session) {
    broken('the company comes from verified data', `${id} got the token of ${verification.externalRef}`)
  }
  const byWall = Date.parse(expiration) - instance.process.clock.now()
  if (byWall <= 0 || expiresIn < 0)
    broken('expired is never handed out', `${id} got a token ${byWall} ms before its end`)
  const wasClockRight = (minter.settled?.wallAheadMs ?? 0) >= -50
  if (wasClockRight && verification.expiresAtMs < world.time.now() - toleranceMs) {
    broken('expired is never handed out', `${id} got a token that has expired`)
  }
}

function checkProblem(world: World, request: RequestRecord, problem: Problem): void {
  const { code, status, headers } = problem
  const { retryable, outcome } = problem.toDetails(request.id)
  if (outcome === 'unknown' && (retryable || headers['retry-after'] !== undefined || status === 503)) {
    broken('one click, one verification', `${code} looks retryable`)
  }
  if (status >= 500 && code !== 'auth-keys-unavailable' && outcomeOf(problem) === 'not-created') {
    const opened = world.history.posts.find(
      (post) =>
        post.request.instance === request.instance &&
        post.request.session === request.session &&
        post.sentAtMs >= request.beganAtMs &&
        [...world.idenfy.opened.values()].some(({ externalRef }) => externalRef === post.request.id),
    )
    if (opened)
      broken('one click, one verification', `${request.id} got ${code}, but ${opened.request.id} opened one`)
  }
  if (code === 'internal-error') broken('every failure is a problem', `${request.id} got ${code}`)
  checkSharedResult(world, request, problem)
}

/** What an instance has learned reaches the others while Redis works. */
function checkSharedResult(
  { history, redis, scenario, time }: World,
  request: RequestRecord,
  problem: Problem,
): void {
  const { code, options } = problem
  const isShared = options.diagnosis?.reason === 'shared-result'
  if (!redis || (!isShared && code !== 'idempotency-conflict')) return
  const recent = history.posts.filter(
    ({ sentAtMs, request: other }) =>
      sentAtMs > request.beganAtMs - scenario.timeoutMs &&
      (isShared
        ? other.session === request.session
        : other.user === request.user && other.idempotencyKey === request.idempotencyKey),
  )
  const [post] = recent
  // With several of them this request may wait for another one.
  if (recent.length !== 1 || post?.settled?.outcome !== 'created') return
  const { settled, request: other } = post
  const isAlive = other.instance.process.isAlive() && other.instance.lastContinuedAtMs < settled.atMs
  if (!isAlive || request.beganAtMs > settled.atMs) return
  // Retries to write it come at twice the time each.
  const writtenAfterMs = 2 * redis.troubleMsAfter(settled.atMs) + 1_000
  const silentMs = time.now() - settled.atMs
  if (silentMs > writtenAfterMs && silentMs < leaseSlackMs + scenario.timeoutMs) {
    broken(
      'one click, one verification',
      `${request.id} got ${code}, but ${other.id} got a token ${Math.round(silentMs)} ms ago`,
    )
  }
}

/** A call that began before the breaker closed cannot open it. */
function checkCircuit({ instance, beganAtMs: askedAtMs }: RequestRecord, { options }: Problem): void {
  const { attempts, name } = instance
  if (options.diagnosis?.reason !== 'circuit-open') return
  const probe = attempts.findLast(
    ({ isProbe, endedAtMs, error }) => isProbe && endedAtMs !== undefined && !error,
  )
  const closedAtMs = probe?.endedAtMs ?? Number.POSITIVE_INFINITY
  if (askedAtMs < closedAtMs) return
  const hasFailed = attempts.some(
    ({ beganAtMs, endedAtMs, error }) =>
      beganAtMs >= closedAtMs && endedAtMs !== undefined && classifyFailure(error) === 'down',
  )
  if (!hasFailed) broken('circuit breaker', `${name} refuses calls, but every call since its probe succeeded`)
}

function checkKeys(world: World, request: RequestRecord, response: Response): void {
  const { instance, signedWith } = request
  const nowMs = request.beganAtMs
  const status = 'problem' in response ? response.problem.status : 201
  const withdrawnAtMs = world.provider.withdrawnAtMs(signedWith)
  const isChecked = status !== 401 && status !== 503
  const couldFetch = instance.lastKeyFetchFailedAtMs < nowMs - 70_000
  if (isChecked && withdrawnAtMs !== undefined && nowMs - withdrawnAtMs > 5 * 60_000 + 5_000 && couldFetch) {
    broken(
      'revoked stops working',
      `${request.id} was accepted with key ${signedWith}, withdrawn at ${withdrawnAtMs}`,
    )
  }
  if (status === 403) broken('could not check is 503', `${request.id} got 403`)
  if (status !== 401 || !('problem' in response)) return
  const reason = response.problem.options.diagnosis?.reason
  const isExpired = instance.process.clock.now() >= epochMs + shortTokenMs && request.hasShortToken
  if (reason === 'expired' && isExpired) return
  const isBehind = instance.process.clock.now() < epochMs - issuedBeforeMs
  if (reason === 'issued-in-future' && isBehind) return
  const publishedAtMs = world.provider.publishedAtMs(signedWith)
  const isNew = publishedAtMs === undefined || nowMs - publishedAtMs < 5_000
  const hasJustContinued = nowMs - instance.lastContinuedAtMs < 5_000
  if (reason === 'unknown-key' && (isNew || hasJustContinued)) return
  broken('could not check is 503', `${request.id} got 401 (${reason}) with key ${signedWith}`)
}

/** Called at the end: every request has a response, and every verification belongs to a POST that may have opened it. */
export function checkHistory({ history, idenfy }: World): void {
  for (const { id, instance, endedAtMs } of history.requests) {
    if (endedAtMs === undefined && instance.process.isAlive()) broken('one deadline', `${id} has no response`)
  }
  const opened = new Map<string, number>()
  for (const { externalRef } of idenfy.opened.values()) {
    opened.set(externalRef, (opened.get(externalRef) ?? 0) + 1)
  }
  for (const { request, settled } of history.posts) {
    if (settled?.outcome !== 'not-created') opened.set(request.id, (opened.get(request.id) ?? 0) - 1)
  }
  for (const [id, count] of opened) {
    if (count > 0)
      broken('one click, one verification', `${id} opened a verification that is said not to exist`)
  }
}

/** Called when the last fault is over and everything had time to recover. */
export function checkRecovery({ name, replica }: Instance, isRedisUsed: boolean): void {
  if (!replica) throw new RuleBroken(`recovery: ${name} has not started`)
  const { bulkhead, breaker, redis, policy, credentials, process, standby } = replica
  if (bulkhead.inFlight() > 0 || bulkhead.waiting() > 0) {
    broken('recovery', `${name} has ${bulkhead.inFlight()} calls in flight, ${bulkhead.waiting()} waiting`)
  }
  if (breaker.isOpen()) broken('recovery', `the circuit of ${name} is open`)
  if (isRedisUsed && !redis?.isUp()) broken('recovery', `${name} counts Redis as down`)
  if (policy.isFailing() || credentials.isFailing()) broken('recovery', `${name} cannot use a file`)
  // One to tick, one to check Redis, and those of Redis commands that are under way. Some connections stand by, or did.
  if (process.pendingTimers() > (standby ? 9 : 4))
    broken('recovery', `${name} has ${process.pendingTimers()} timers`)
}
