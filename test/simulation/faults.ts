import type { Clients } from './clients.js'
import type { Files } from './files.js'
import type { Idenfy } from './idenfy.js'
import type { IdentityProvider } from './identity-provider.js'
import { type Instances, restartAfterMs } from './instances.js'
import type { RedisServer } from './redis-server.js'
import type { Fault } from './scenario.js'
import type { VirtualTime } from './virtual-time.js'

/** Replicas that stop for longer are machines that sleep. */
const sleepMs = 60_000

export interface FaultsOptions {
  readonly time: VirtualTime
  readonly idenfy: Idenfy
  readonly provider: IdentityProvider
  readonly redis: RedisServer | undefined
  readonly files: Files
  readonly instances: Instances
  readonly clients: Clients
  /** Called when all machines sleep: what is planned waits. */
  readonly onSleep: (forMs: number) => void
  readonly note: (who: string, text: () => string) => void
}

/** Makes the faults of a scenario happen, except for those of messages. */
export function createFaults(options: FaultsOptions) {
  const { time, idenfy, provider, redis, files, instances, clients, onSleep, note } = options
  let lastEndsAtMs = 0

  /** @param end called when the fault ends, also if another one has begun since */
  function lasts(forMs: number, end: () => void = () => {}): void {
    lastEndsAtMs = Math.max(lastEndsAtMs, time.after(forMs, end).atMs)
  }

  function beginReplicaFault({
    fault,
    replica,
    forMs,
    timersFirst,
  }: Extract<Fault, { kind: 'replica' }>): void {
    if (fault === 'kill') {
      const restartInMs = Math.min(forMs, restartAfterMs)
      const killed = instances.kill(replica, restartInMs)
      if (killed) clients.disconnectFrom(killed)
      lasts(restartInMs)
    } else if (forMs >= sleepMs) {
      onSleep(instances.sleep(forMs, timersFirst))
      lasts(forMs)
    } else {
      instances.stop(instances.at(replica), forMs, fault === 'suspend', timersFirst)
      lasts(forMs)
    }
  }

  function beginRedisFault(
    server: RedisServer,
    { fault, forMs, lostMs }: Extract<Fault, { kind: 'redis' }>,
  ): void {
    server.noteTrouble(forMs)
    switch (fault) {
      case 'gone':
        server.stop()
        break
      case 'slow':
        server.setSlow(40 + (lostMs % 120))
        break
      case 'frozen':
        server.freeze()
        break
      case 'full':
        server.model.setFull(true)
        break
      case 'read-only':
        server.model.setReadOnly(true)
        break
      default:
        server.stop()
        server.loseWrites(fault === 'restart' ? Number.POSITIVE_INFINITY : lostMs)
    }
    lasts(forMs, () => {
      note('fault', () => 'Redis works')
      server.recover()
    })
  }

  return {
    /** When the last one that has begun ends. */
    lastEndsAtMs: (): number => lastEndsAtMs,
    begin(fault: Fault): void {
      if (fault.kind !== 'replica') note('fault', () => JSON.stringify(fault))
      switch (fault.kind) {
        case 'idenfy':
          idenfy.setFault(fault.fault, fault.slowMs)
          lasts(fault.forMs, () => {
            note('fault', () => 'iDenfy works')
            idenfy.setFault(undefined)
          })
          break
        case 'redis':
          if (redis) beginRedisFault(redis, fault)
          break
        case 'replica':
          beginReplicaFault(fault)
          break
        case 'clock':
          instances.at(fault.replica).process.setWallClock(fault.jumpMs)
          break
        case 'keys':
          provider.publish(fault.publish)
          break
        case 'provider':
          provider.setFault(fault.fault)
          lasts(fault.forMs, () => provider.setFault(undefined))
          break
        case 'credentials': {
          const old = files.authorization()
          files.replaceCredentials()
          idenfy.accept(files.authorization())
          lasts(fault.overlapMs, () => idenfy.refuse(old))
          break
        }
        case 'policy':
          if (typeof fault.content === 'number') files.writePolicy(fault.content)
          else {
            files.breakPolicy(fault.content, fault.forMs)
            lasts(fault.forMs, files.restorePolicy)
          }
          break
        default:
      }
    },
  }
}
