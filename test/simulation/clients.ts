import { Abandoned } from '../../src/problems/abandoned.js'
import { Problem } from '../../src/problems/problem.js'
import type { History, Instance, RequestRecord, Response } from './history.js'
import { accessToken, type KeyId } from './identity-provider.js'
import type { Instances } from './instances.js'
import type { Network } from './network.js'
import type { Replica } from './replica.js'
import type { Click } from './scenario.js'
import type { VirtualTime } from './virtual-time.js'

/** What a client gets. `lost`: nothing, or a broken connection. */
export type Outcome = { readonly response: Response } | 'lost'

/** Who clicks, and with which token. */
export interface Clicker {
  readonly click: Click
  readonly user: number
  readonly signedWith: KeyId
}

export interface ClientsOptions {
  readonly time: VirtualTime
  readonly network: Network
  readonly instances: Instances
  readonly history: History
  /** How long a client waits for a response. */
  readonly patienceMs: number
  readonly onResponse: (request: RequestRecord, response: Response) => void
  readonly note: (who: string, text: () => string) => void
}

const maxRetries = 2
const secondClickMs = 80

/** Browsers, phones and service meshes, and the load balancer that they share. */
export function createClients(options: ClientsOptions) {
  const { time, network, instances, history, patienceMs, onResponse, note } = options
  /** Requests that an instance works on, and what to do if it dies. */
  const open = new Map<RequestRecord, () => void>()

  const pause = (milliseconds: number) =>
    new Promise<void>((resolve) => {
      time.after(milliseconds, () => time.run(resolve))
    })

  /** An instance works on a request. @param answer called with the response, and never for a client that is gone */
  function serve(replica: Replica, request: RequestRecord, answer: (response: Response) => void): void {
    const { id, instance, user, idempotencyKey, signedWith } = request
    const key = idempotencyKey === undefined ? '' : ` with key ${idempotencyKey}`
    note(instance.name, () => `gets ${id} for session ${request.session}${key}`)
    const end = (response: Response) => {
      request.endedAtMs = time.now()
      open.delete(request)
      note(instance.name, () => `ends ${id}: ${describe(response)}`)
      const isAbandoned = 'fault' in response && response.fault instanceof Abandoned && request.isAbandoned
      if (isAbandoned) return
      onResponse(request, response)
      answer(response)
    }
    replica
      .handle({
        id,
        accessToken: accessToken(signedWith, user, request.hasShortToken),
        locale: request.locale,
        idempotencyKey,
        isAbandoned: () => request.isAbandoned,
      })
      .then(end, (error) => end(error instanceof Problem ? { problem: error } : { fault: error }))
  }

  /** Sends a request to a replica. */
  function send({ click, user, signedWith }: Clicker, replicaIndex: number): Promise<Outcome> {
    return new Promise((resolve) => {
      let isDone = false
      const served: RequestRecord[] = []
      const settle = (outcome: Outcome) => {
        if (isDone) return
        isDone = true
        giveUp.isCancelled = true
        for (const request of served) open.delete(request)
        time.run(() => resolve(outcome))
      }
      const lose = () => settle('lost')
      const disconnect = () => {
        for (const request of served) {
          const { process } = request.instance
          time.after(1, () =>
            process.deliver(() => {
              request.isAbandoned = true
            }),
          )
        }
        lose()
      }
      const giveUp = time.after(patienceMs, disconnect)
      if (click.disconnectAfterMs !== undefined) time.after(click.disconnectAfterMs, disconnect)

      const arrive = () => {
        const instance = instances.at(replicaIndex)
        const { process, replica } = instance
        if (!process.isAlive() || !replica) {
          network.send('response', lose, lose)
          return
        }
        process.deliver(() => {
          const request = history.addRequest({
            instance,
            user,
            locale: click.locale,
            session: `${user}/${click.locale}`,
            idempotencyKey: click.key === undefined ? undefined : `${user}/${click.key}`,
            signedWith,
            hasShortToken: click.hasShortToken,
            beganAtMs: time.now(),
            beganMonotonicMs: process.clock.monotonicNow(),
            isAbandoned: isDone,
            endedAtMs: undefined,
          })
          served.push(request)
          open.set(request, lose)
          serve(replica, request, (response) => network.send('response', () => settle({ response }), lose))
        })
      }
      network.send('click', arrive, lose)
    })
  }

  return {
    send,
    /** A click, and all that the client makes of it. */
    async click(clicker: Clicker): Promise<void> {
      const { click } = clicker
      const second =
        click.client === 'double-click'
          ? pause(secondClickMs).then(() => send(clicker, click.replica + 1))
          : undefined
      for (let retries = 0; retries <= maxRetries; retries++) {
        const outcome = await send(clicker, click.replica + retries)
        const waitMs = retryAfterMs(click, outcome)
        if (waitMs === undefined) break
        await pause(waitMs)
      }
      await second
    },
    /** The connections of an instance end. */
    disconnectFrom(instance: Instance): void {
      for (const [request, lose] of open) {
        if (request.instance === instance) time.after(2, lose)
      }
    },
  }
}

export type Clients = ReturnType<typeof createClients>

/** How long a client waits before it sends the same again; undefined if it does not. */
function retryAfterMs({ client, key }: Click, outcome: Outcome): number | undefined {
  if (outcome === 'lost') {
    if (client === 'phone') return 300
    return key === undefined ? undefined : 1_000
  }
  if (!('problem' in outcome.response)) return undefined
  const { status, headers } = outcome.response.problem
  if (client === 'mesh') return status === 503 ? 25 : undefined
  const seconds = headers['retry-after']
  return seconds === undefined ? undefined : Number(seconds) * 1000
}

export function describe(response: Response): string {
  if ('token' in response) return `201 ${response.token.tokenString}, ${response.origin}`
  if ('problem' in response) {
    const { status, code, options } = response.problem
    return `${status} ${code} ${options.diagnosis?.reason ?? ''}`
  }
  return String((response.fault as Error)?.name)
}
