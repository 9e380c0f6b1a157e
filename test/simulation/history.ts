import { Problem } from '../../src/problems/problem.js'
import type { IssuedKybToken } from '../../src/services/kyb/token-issuer.js'
import type { KeyId } from './identity-provider.js'
import type { Process } from './process.js'
import type { Replica } from './replica.js'

/** One life of a replica, from its start until it is killed. */
export interface Instance {
  readonly name: string
  readonly process: Process
  /** Undefined while it starts. */
  replica: Replica | undefined
  /** When it was last stopped or suspended, and when it continued. */
  lastFrozenAtMs: number
  lastContinuedAtMs: number
  lastKeyFetchFailedAtMs: number
  readonly attempts: Attempt[]
}

/** One call of iDenfy, whether or not a POST was sent. */
export interface Attempt {
  readonly beganAtMs: number
  /** Whether it was let through by an open circuit breaker. */
  readonly isProbe: boolean
  endedAtMs: number | undefined
  error: unknown
}

/** A request as an instance got it. All times are true ones unless they say otherwise. */
export interface RequestRecord {
  readonly id: string
  readonly instance: Instance
  readonly user: number
  readonly locale: 'lt' | 'en'
  /** Requests of the same session are identical, but for their keys. */
  readonly session: string
  readonly idempotencyKey: string | undefined
  readonly signedWith: KeyId
  readonly hasShortToken: boolean
  readonly beganAtMs: number
  readonly beganMonotonicMs: number
  isAbandoned: boolean
  endedAtMs: number | undefined
}

export type Response =
  | { readonly token: IssuedKybToken; readonly origin: string }
  | { readonly problem: Problem }
  | { readonly fault: unknown }

/** A POST that an instance began to send. */
export interface PostRecord {
  readonly request: RequestRecord
  readonly authorization: string
  readonly lifetimeSeconds: number
  /** Whether it is lost because its connection stood by for too long. */
  readonly isOnDeadConnection: boolean
  readonly sentAtMs: number
  readonly sentMonotonicMs: number
  /** When its instance knew what became of it, by all clocks. */
  settled:
    | {
        readonly atMs: number
        readonly monotonicMs: number
        readonly wallMs: number
        readonly wallAheadMs: number
        readonly outcome: 'created' | 'not-created' | 'unknown'
      }
    | undefined
}

/** What a failed call says about the verification. */
export function outcomeOf(error: unknown): 'not-created' | 'unknown' {
  if (error instanceof Problem) {
    const { outcome } = error.toDetails('')
    return outcome === 'unknown' ? 'unknown' : 'not-created'
  }
  return (error as Error)?.name === 'Abandoned' ? 'not-created' : 'unknown'
}

/** All requests and POSTs of a simulation, in the order in which they began. */
export function createHistory() {
  const requests: RequestRecord[] = []
  const posts: PostRecord[] = []
  return {
    requests: requests as readonly RequestRecord[],
    posts,
    addRequest(request: Omit<RequestRecord, 'id'>): RequestRecord {
      const record = { ...request, id: `r${requests.length}` }
      requests.push(record)
      return record
    },
    request: (id: string): RequestRecord => requests[Number(id.slice(1))] as RequestRecord,
  }
}

export type History = ReturnType<typeof createHistory>
