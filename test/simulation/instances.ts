import type { Attempt, History, Instance } from './history.js'
import { outcomeOf } from './history.js'
import { createProcess } from './process.js'
import { type Replica, type ReplicaOptions, startReplica } from './replica.js'
import type { Scenario } from './scenario.js'
import type { VirtualTime } from './virtual-time.js'

export const restartAfterMs = 3_000

export interface InstancesOptions
  extends Pick<ReplicaOptions, 'network' | 'idenfy' | 'provider' | 'redis' | 'files'> {
  readonly scenario: Scenario
  readonly time: VirtualTime
  readonly history: History
  /** Called before a POST is sent. */
  readonly onPost: (post: History['posts'][number]) => void
  readonly note: (who: string, text: () => string) => void
}

/** The replicas of the service, each with its life: it starts, stops, sleeps, continues, is killed and starts again. */
export function createInstances(options: InstancesOptions) {
  const { scenario, time, history, onPost, note, redis } = options
  const running: Instance[] = []
  let started = 0
  let sleepsUntilMs = 0

  function start(index: number): void {
    if (time.now() < sleepsUntilMs) {
      time.after(sleepsUntilMs - time.now(), () => time.run(() => start(index)))
      return
    }
    started += 1
    const instance: Instance = {
      name: `replica-${index}${started > scenario.replicas ? ` (${started})` : ''}`,
      process: createProcess({
        time,
        rate: 1 + (scenario.drifts[index] as number) / 1_000_000,
        aheadMs: scenario.aheadMs[index] as number,
      }),
      replica: undefined,
      lastFrozenAtMs: Number.NEGATIVE_INFINITY,
      lastContinuedAtMs: Number.NEGATIVE_INFINITY,
      lastKeyFetchFailedAtMs: Number.NEGATIVE_INFINITY,
      attempts: [],
    }
    running[index] = instance
    startReplica({
      ...options,
      process: instance.process,
      note: (text) => note(instance.name, text),
      onKeyFetchFailed: () => {
        instance.lastKeyFetchFailedAtMs = time.now()
      },
      onAttempt: (isProbe) => recordAttempt(instance, isProbe),
      onPost: (requestId, lifetimeSeconds, authorization, isOnDeadConnection) => {
        note(instance.name, () => `sends the POST of ${requestId}`)
        const post = {
          request: history.request(requestId),
          authorization,
          lifetimeSeconds,
          isOnDeadConnection,
          sentAtMs: time.now(),
          sentMonotonicMs: instance.process.clock.monotonicNow(),
          settled: undefined,
        }
        onPost(post)
        history.posts.push(post)
      },
    }).then(
      (replica: Replica) => {
        instance.replica = replica
        note(instance.name, () => 'has started')
      },
      // A file cannot be read.
      () => {
        time.after(restartAfterMs, () => {
          if (running[index] === instance) time.run(() => start(index))
        })
      },
    )
  }

  function recordAttempt(instance: Instance, isProbe: boolean) {
    const { clock, wallAheadMs } = instance.process
    const attempt: Attempt = { beganAtMs: time.now(), isProbe, endedAtMs: undefined, error: undefined }
    instance.attempts.push(attempt)
    return (requestId: string, error: unknown): void => {
      attempt.endedAtMs = time.now()
      attempt.error = error
      const post = history.posts.findLast(({ request, settled }) => request.id === requestId && !settled)
      if (!post) return
      post.settled = {
        atMs: time.now(),
        monotonicMs: clock.monotonicNow(),
        wallMs: clock.now(),
        wallAheadMs: wallAheadMs(),
        outcome: error === undefined ? 'created' : outcomeOf(error),
      }
    }
  }

  function freeze(instance: Instance, isSuspended: boolean): void {
    if (!instance.process.isRunning()) return
    instance.lastFrozenAtMs = time.now()
    instance.process.stop(isSuspended)
  }

  function resume(instance: Instance, timersFirst: boolean): void {
    if (!instance.process.isFrozen() || time.now() < sleepsUntilMs) return
    note('fault', () => `${instance.name} continues`)
    instance.lastContinuedAtMs = time.now()
    redis?.noteTrouble(0)
    instance.process.continue(timersFirst)
  }

  for (let index = 0; index < scenario.replicas; index++) start(index)

  return {
    all: running as readonly Instance[],
    /** By any number: there are fewer replicas than a fault or a load balancer may name. */
    at: (index: number): Instance => running[index % scenario.replicas] as Instance,
    /** Kills a process at once. @returns the instance, if it was alive */
    kill(index: number, restartInMs: number): Instance | undefined {
      const instance = running[index % scenario.replicas] as Instance
      if (!instance.process.isAlive()) return undefined
      note('fault', () => `${instance.name} is killed`)
      instance.process.kill()
      time.after(restartInMs, () => time.run(() => start(index % scenario.replicas)))
      return instance
    },
    stop(instance: Instance, forMs: number, isSuspended: boolean, timersFirst: boolean): void {
      note('fault', () => `${instance.name} is ${isSuspended ? 'suspended' : 'stopped'} for ${forMs} ms`)
      redis?.noteTrouble(forMs)
      freeze(instance, isSuspended)
      time.after(forMs, () => resume(instance, timersFirst))
    },
    /** All machines sleep. @returns how much longer than without it */
    sleep(forMs: number, timersFirst: boolean): number {
      note('fault', () => `all replicas sleep for ${forMs} ms`)
      redis?.noteTrouble(forMs)
      const before = Math.max(sleepsUntilMs, time.now())
      sleepsUntilMs = Math.max(before, time.now() + forMs)
      for (const instance of running) freeze(instance, true)
      time.after(sleepsUntilMs - time.now(), () => {
        for (const instance of running) resume(instance, timersFirst)
      })
      return sleepsUntilMs - before
    },
  }
}

export type Instances = ReturnType<typeof createInstances>
