import type { VirtualTime } from './virtual-time.js'

/** Where messages travel, one direction each. */
export const channels = [
  'click',
  'response',
  'redis-command',
  'redis-reply',
  'idenfy-request',
  'idenfy-response',
  'keys-request',
  'keys-response',
  // Of connections that no request uses.
  'standby-request',
  'standby-response',
] as const
export type Channel = (typeof channels)[number]

/**
 * What can become of a message. `lost`: it never arrives, and no one is told. `cut`: the connection is reset instead.
 * `doubled`: it arrives twice; only clicks do, because the others travel in one TCP connection from end to end.
 */
export const messageEffects = ['lost', 'cut', 'delayed', 'doubled'] as const
export type MessageEffect = (typeof messageEffects)[number]

export interface MessageFault {
  readonly channel: Channel
  /** Which message of the channel, counted from 0. */
  readonly index: number
  readonly effect: MessageEffect
  readonly delayMs: number
}

export interface NetworkOptions {
  readonly time: VirtualTime
  readonly seed: number
  readonly faults: readonly MessageFault[]
  /** Called when a message is sent, with how many were sent before it. */
  readonly onSend: (channel: Channel, index: number) => void
  /** Called for what happens to a message, for the timeline. */
  readonly onFault: (fault: MessageFault) => void
}

/** Carries messages between processes. How long each takes depends on the seed and its place in its channel only. */
export function createNetwork({ time, seed, faults, onSend, onFault }: NetworkOptions) {
  const sent = new Map<Channel, number>(channels.map((channel) => [channel, 0]))
  const byMessage = new Map(faults.map((fault) => [`${fault.channel} ${fault.index}`, fault]))

  return {
    /** From now on every message arrives. */
    heal: (): void => byMessage.clear(),
    /**
     * Sends a message.
     *
     * @param arrive called when it arrives
     * @param reset called instead if its connection is reset
     * @param notBeforeMs when the message before it in the same connection arrives
     * @returns when it arrives
     */
    send(channel: Channel, arrive: () => void, reset: () => void, notBeforeMs = 0): number {
      const index = sent.get(channel) ?? 0
      sent.set(channel, index + 1)
      onSend(channel, index)
      const fault = byMessage.size > 0 ? byMessage.get(`${channel} ${index}`) : undefined
      const travelMs = 0.3 + 4 * randomOf(seed, channels.indexOf(channel), index)
      const delayMs = Math.max(travelMs, notBeforeMs - time.now())
      if (fault) onFault(fault)
      switch (fault?.effect) {
        case 'lost':
          return Number.POSITIVE_INFINITY
        case 'cut':
          time.after(delayMs, reset)
          return Number.POSITIVE_INFINITY
        case 'doubled':
          if (channel === 'click') time.after(delayMs + fault.delayMs, arrive)
          break
        case 'delayed':
          return time.after(delayMs + fault.delayMs, arrive).atMs
        default:
      }
      return time.after(delayMs, arrive).atMs
    },
  }
}

export type Network = ReturnType<typeof createNetwork>

/** A number from 0 to 1 that depends on the parts only: leaving out one message changes no other. */
export function randomOf(...parts: readonly number[]): number {
  let state = 0x9e3779b9
  for (const part of parts) {
    state = Math.imul(state ^ part, 0x85ebca6b)
    state = Math.imul(state ^ (state >>> 13), 0xc2b2ae35)
    state ^= state >>> 16
  }
  return (state >>> 0) / 2 ** 32
}
