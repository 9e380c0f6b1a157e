/** Something that happens at a moment. */
export interface Event {
  readonly atMs: number
  /** Events of the same moment happen in the order in which they were scheduled. */
  readonly order: number
  readonly happen: () => void
  isCancelled: boolean
}

/**
 * The time of a simulation. It stands still while code runs, and jumps from one event to the next. After each event all
 * promises that can settle have settled, so one run is like the next.
 */
export function createVirtualTime() {
  /** Sorted, the next event last. */
  const events: Event[] = []
  let nowMs = 0
  let count = 0
  /** Whether code with promises has run since they were settled. */
  let hasRun = true

  function isBefore(a: Event, b: Event): boolean {
    return a.atMs === b.atMs ? a.order < b.order : a.atMs < b.atMs
  }

  return {
    /** True time: milliseconds since the simulation began. */
    now: (): number => nowMs,
    /** Call it before code that uses promises. What happens on a server does not. */
    run(code: () => void): void {
      hasRun = true
      code()
    },
    after(delayMs: number, happen: () => void): Event {
      const event = { atMs: nowMs + Math.max(delayMs, 0), order: count, happen, isCancelled: false }
      count += 1
      let [low, high] = [0, events.length]
      while (low < high) {
        const middle = (low + high) >>> 1
        if (isBefore(events[middle] as Event, event)) high = middle
        else low = middle + 1
      }
      events.splice(low, 0, event)
      return event
    },
    /** Lets everything happen until a moment. */
    async runUntil(endMs: number): Promise<void> {
      // Within the handler of a worker's message, ticks run before microtasks. After this they run as described below.
      await new Promise((resolve) => setImmediate(resolve))
      for (;;) {
        const event = events.at(-1)
        if (!event || event.atMs > endMs) break
        events.pop()
        if (event.isCancelled) continue
        nowMs = event.atMs
        event.happen()
        if (!hasRun) continue
        hasRun = false
        await settled()
      }
      nowMs = endMs
    },
  }
}

export type VirtualTime = ReturnType<typeof createVirtualTime>

/**
 * Resolves when all promises that can settle have settled: Node runs a tick when no microtask is left. It is faster than
 * `setImmediate`, and nothing in a simulation waits for input or output.
 */
function settled(): Promise<void> {
  return new Promise((resolve) => process.nextTick(resolve))
}
