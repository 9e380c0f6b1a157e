const perWindow = 10
const windowMs = 10_000

export interface FloodGateOptions {
  /** Milliseconds of a clock that never goes back. */
  readonly monotonicNow: () => number
}

/** Lets ten of a kind through in ten seconds, and says afterwards how many were held back. */
export function createFloodGate({ monotonicNow }: FloodGateOptions) {
  const kinds = new Map<string, { windowEnd: number; passed: number; held: number }>()

  return {
    /** @param kind out of a closed list: each is remembered */
    pass(kind: string): { isOpen: boolean; held: number } {
      const now = monotonicNow()
      const last = kinds.get(kind)
      if (last && now < last.windowEnd) {
        const isOpen = last.passed < perWindow
        if (isOpen) last.passed += 1
        else last.held += 1
        return { isOpen, held: 0 }
      }
      kinds.set(kind, { windowEnd: now + windowMs, passed: 1, held: 0 })
      return { isOpen: true, held: last?.held ?? 0 }
    },
  }
}
