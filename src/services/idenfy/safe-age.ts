/** How long a connection may be idle before anything is known about the path. */
const firstSafeAgeMs = 800
const minSafeAgeMs = 500
/** Of an idle limit that the server has shown. */
const limitShare = 0.8
/** Less than an age at which the path has kept a connection, because bytes travel at different speeds. */
const marginMs = 200

/**
 * Learns up to which age an unused connection to iDenfy can be used. The path has shown that it keeps one for so long, and
 * the server that it does not close it.
 */
export function createSafeAge(maxAgeMs: number) {
  let safeMs = Math.min(firstSafeAgeMs, maxAgeMs)
  /** The configured age, or less if the server has announced a shorter limit. */
  let longestMs = maxAgeMs
  let wasKept = true

  function lower(ageMs: number): void {
    safeMs = Math.max(Math.min(safeMs, ageMs), minSafeAgeMs)
  }

  return {
    usableMs: (): number => Math.min(safeMs, longestMs),
    /** The age at which to try next whether the path has kept a connection. */
    nextTrialMs: (): number => (wasKept ? Math.min(safeMs * 2, longestMs) : 0),
    /** The path has kept a connection until this age. */
    kept(ageMs: number): void {
      wasKept = true
      safeMs = Math.max(safeMs, Math.min(ageMs, maxAgeMs) - marginMs)
    },
    /** At this age the path had forgotten a connection. */
    forgotten(ageMs: number): void {
      wasKept = false
      if (ageMs - marginMs <= safeMs) lower(ageMs / 2)
    },
    /** The server has closed a connection at this age, or it broke. */
    closed(ageMs: number): void {
      lower(ageMs * limitShare)
    },
    /** The server has announced that it closes idle connections after this time. */
    announced(limitMs: number): void {
      longestMs = Math.min(longestMs, Math.max(limitMs * limitShare, minSafeAgeMs))
    },
  }
}
