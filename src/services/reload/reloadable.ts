import { setTimeout as delay } from 'node:timers/promises'

/** Between two readings that must agree, when it is urgent. */
const settleMs = 50
/** How long a caller in a hurry waits for one reading. */
const maxReadMs = 500

export interface ReloadingOptions<Source, Value> {
  /** Reads the source as it is now, every time it is checked; throws when it is not usable. */
  readonly read: () => Promise<Source>
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
export async function createReloading<Source, Value>(options: ReloadingOptions<Source, Value>) {
  const { read, make, onChange, onFault } = options
  const first = await read()
  let current = JSON.stringify(first)
  let value = make(first)
  let candidate = current
  let fault: string | undefined
  /** What the reading before this one failed with. */
  let lastReadFault: string | undefined
  let generation = 1
  let checking: Promise<void> | undefined

  function report(error: unknown): void {
    const { message } = error as Error
    if (message !== fault) onFault(error as Error)
    fault = message
  }

  async function readAndTake(): Promise<void> {
    let source: Source
    try {
      source = await read()
      lastReadFault = undefined
    } catch (error) {
      candidate = current
      const { message } = error as Error
      // A file that is just being written may be empty or away for a moment.
      if (message === lastReadFault) report(error)
      lastReadFault = message
      return
    }
    const text = JSON.stringify(source)
    const isSettled = text === candidate
    candidate = text
    if (!isSettled) return
    if (text !== current) {
      try {
        value = make(source)
      } catch (error) {
        return report(error)
      }
      current = text
      generation += 1
      onChange()
    }
    fault = undefined
  }

  /** Reads once. */
  function check(): Promise<void> {
    checking ??= readAndTake().finally(() => {
      checking = undefined
    })
    return checking
  }

  return {
    value: (): Value => value,
    /** Whether the source, as it is now, cannot be used. */
    isFailing: (): boolean => fault !== undefined,
    /** 1 for the first value, one more for each that followed. */
    generation: (): number => generation,
    check,
    /** Reads until it is sure, without waiting for the next time, unless the file system hangs. */
    async checkNow(): Promise<void> {
      await Promise.race([check(), delay(maxReadMs)])
      await delay(settleMs)
      await Promise.race([check(), delay(maxReadMs)])
    },
  }
}

export type Reloading<Value> = Awaited<ReturnType<typeof createReloading<unknown, Value>>>
