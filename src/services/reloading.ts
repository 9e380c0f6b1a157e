import { setTimeout as delay } from 'node:timers/promises'

/** Between two readings that must agree, when it is urgent. */
const settleMs = 50

export interface ReloadingOptions<Source, Value> {
  /** Reads the source as it is now, every time it is checked; throws when it is not usable. */
  readonly read: () => Source
  /** Makes of it what is used, once it has changed; throws when it is not usable. */
  readonly make: (source: Source) => Value
  readonly onChange: () => void
  /** Told once of every fault; the old value stays. */
  readonly onFault: (error: Error) => void
}

/**
 * A value whose source may change while the process runs. Content is compared, not watched for: that is the same for
 * a rename, a switched link and a write in place, and on file systems that tell nothing. A change is taken when two
 * readings in a row agree, so that of two files that change together one alone is not used.
 *
 * @throws what `read` throws the first time
 */
export function createReloading<Source, Value>(options: ReloadingOptions<Source, Value>) {
  const { read, make, onChange, onFault } = options
  const first = read()
  let current = JSON.stringify(first)
  let value = make(first)
  let candidate = current
  let fault: string | undefined
  let generation = 1

  function take(source: Source): void {
    const text = JSON.stringify(source)
    const isSettled = text === candidate
    candidate = text
    if (!isSettled || text === current) return
    current = text
    value = make(source)
    generation += 1
    onChange()
  }

  /** Reads once. */
  function check(): void {
    try {
      take(read())
      fault = undefined
    } catch (error) {
      const { message } = error as Error
      if (message !== fault) onFault(error as Error)
      fault = message
      candidate = current
    }
  }

  return {
    value: (): Value => value,
    /** Whether the source, as it is now, cannot be used. */
    isFailing: (): boolean => fault !== undefined,
    /** 1 for the first value, one more for each that followed. */
    generation: (): number => generation,
    check,
    /** Reads until it is sure, without waiting for the next time. */
    async checkNow(): Promise<void> {
      check()
      await delay(settleMs)
      check()
    },
  }
}

export type Reloading<Value> = ReturnType<typeof createReloading<unknown, Value>>
