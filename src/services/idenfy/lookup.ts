import dns from 'node:dns'
import type { LookupFunction } from 'node:net'
import { type Clock, startStopwatch } from '../../clock.js'

/** A lookup that takes longer than this hangs. */
const maxLookupMs = 1_000

/**
 * Resolves names as Node does, but each one only once at a time. A lookup cannot be cancelled. If the resolver hangs, each
 * attempt to connect would occupy one of the few threads that Node has for lookups, until no name could be resolved.
 */
export function createLookup(clock: Clock) {
  const pending = new Map<string, { callbacks: Parameters<LookupFunction>[2][]; ageMs: () => number }>()

  const lookup: LookupFunction = (hostname, options, callback) => {
    const key = JSON.stringify([hostname, options])
    const waiting = pending.get(key)
    if (waiting) {
      waiting.callbacks.push(callback)
      return
    }
    const callbacks = [callback]
    pending.set(key, { callbacks, ageMs: startStopwatch(clock) })
    dns.lookup(hostname, options, (...result) => {
      pending.delete(key)
      for (const settle of callbacks) settle(...(result as Parameters<typeof settle>))
    })
  }

  return {
    lookup,
    /** Whether the process would wait for a thread before it could exit. */
    isHung: (): boolean => [...pending.values()].some(({ ageMs }) => ageMs() > maxLookupMs),
  }
}
