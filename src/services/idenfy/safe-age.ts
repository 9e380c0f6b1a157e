import { type Clock, startStopwatch } from '../../clock.js'

/** How long a connection may be idle before anything is known about the path. */
const firstSafeAgeMs = 800
/** A shorter age is of no use. */
export const minSafeAgeMs = 500
/** Of an idle limit that the server has shown. */
const limitShare = 0.8
/** Less than an age at which the path has kept a connection, because bytes travel at different speeds. */
const marginMs = 200
/** How long no connection gets older than one that was lost. Each time twice as long. */
const firstCeilingForMs = 10 * 60_000
const maxCeilingForMs = 24 * 60 * 60_000

/**
 * Learns up to which age an unused connection to iDenfy can be used. The path has kept another one
 * until that age, and the server has not closed it. Several paths and servers may differ: one connection that is lost counts more than
 * many that are kept.
 */
export function createSafeAge(maxAgeMs: number, clock: Clock) {
  let safeMs = Math.min(firstSafeAgeMs, maxAgeMs)
  /** The configured age, or less if the server has announced a shorter limit. */
  let longestMs = maxAgeMs
  let wasKept = true
  let ceiling = {
    ageMs: Number.POSITIVE_INFINITY,
    forMs: firstCeilingForMs / 2,
    sinceMs: startStopwatch(clock),
  }

  function lower(ageMs: number): void {
    safeMs = Math.max(Math.min(safeMs, ageMs), minSafeAgeMs)
    const forMs = Math.min(ceiling.forMs * 2, maxCeilingForMs)
    // What is lost during that time belongs to the same event.
    if (isCeilingOver()) ceiling = { ageMs: safeMs, forMs, sinceMs: startStopwatch(clock) }
    else ceiling.ageMs = Math.min(ceiling.ageMs, safeMs)
  }
  const isCeilingOver = () => ceiling.sinceMs() >= ceiling.forMs || ceiling.ageMs >= maxAgeMs
  const highestMs = () => Math.min(longestMs, isCeilingOver() ? maxAgeMs : ceiling.ageMs)

  return {
    usableMs: (): number => Math.min(safeMs, longestMs),
    /** The age at which to try next whether the path has kept a connection. */
    nextTrialMs: (): number => (wasKept ? Math.min(safeMs * 2, highestMs()) : 0),
    /** The path has kept a connection until this age. */
    kept(ageMs: number): void {
      wasKept = true
      safeMs = Math.max(safeMs, Math.min(ageMs - marginMs, highestMs()))
      if (safeMs >= maxAgeMs - marginMs) ceiling.forMs = firstCeilingForMs / 2
    },
    /** At this age the path had forgotten a connection. */
    forgotten(ageMs: number): void {
      wasKept = false
      lower(ageMs - marginMs <= safeMs ? ageMs / 2 : safeMs)
    },
    /** The server has closed a connection at this age, or it broke. */
    closed(ageMs: number): void {
      lower(ageMs * limitShare)
    },
    /** The server has announced that it closes idle connections after this time. A longer time counts little by little. */
    announced(limitMs: number): void {
      const usableMs = Math.min(Math.max(limitMs * limitShare, minSafeAgeMs), maxAgeMs)
      longestMs = Math.min(usableMs, longestMs + (usableMs - longestMs) / 100)
    },
  }
}
