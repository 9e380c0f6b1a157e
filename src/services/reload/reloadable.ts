import { type Clock, inTime, sleep } from '../../clock.js'

/** Time between the two readings of `checkNow`. */
const settleMs = 50
/** How long `checkNow` waits for one reading. */
const maxReadMs = 500

export interface ReloadableOptions<Source, Value> {
  /** Reads the current source. Called at every check. Throws if the source is not usable. */
  readonly read: () => Promise<Source>
  /** Creates the value from a source that has changed. Throws if the source is not usable. */
  readonly make: (source: Source) => Value
  readonly onChange: () => void
  /** Called once for every fault. The old value stays in use. */
  readonly onFault: (error: Error) => void
  readonly clock: Clock
}

/**
 * A value whose source may change while the process runs. It reads and compares contents instead of watching files. This
 * works for a rename, a switched link and a write in place, and on file systems without events. A change is used when two
 * readings in a row are the same, so that two files that change together are used together.
 *
 * @throws what `read` throws the first time
 */
export async function createReloadable<Source, Value>(options: ReloadableOptions<Source, Value>) {
  const { read, make, onChange, onFault, clock } = options
  const first = await read()
  let current = JSON.stringify(first)
  let value = make(first)
  let candidate = current
  let fault: string | undefined
  /** The error of the previous reading. */
  let lastReadFault: string | undefined
  let generation = 1
  let checking: Promise<void> | undefined

  function report(error: unknown): void {
    const { message } = error as Error
    if (message !== fault) onFault(error as Error)
    fault = message
  }

  async function readAndUse(): Promise<void> {
    let source: Source
    try {
      source = await read()
      lastReadFault = undefined
    } catch (error) {
      candidate = current
      const { message } = error as Error
      // A file that is being replaced may be empty or missing for a moment.
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
    checking ??= readAndUse().finally(() => {
      checking = undefined
    })
    return checking
  }

  return {
    value: (): Value => value,
    /** Whether the current source cannot be used. */
    isFailing: (): boolean => fault !== undefined,
    /** 1 for the first value, and one more for each later value. */
    generation: (): number => generation,
    check,
    /** Reads twice, without waiting for the next regular check. Does not wait for a file system that hangs. */
    async checkNow(): Promise<void> {
      await inTime(clock, check(), maxReadMs, undefined)
      await sleep(clock, settleMs)
      await inTime(clock, check(), maxReadMs, undefined)
    },
  }
}

export type Reloadable<Value> = Awaited<ReturnType<typeof createReloadable<unknown, Value>>>
