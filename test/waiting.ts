import { setImmediate } from 'node:timers/promises'

/** How long a test waits for something that takes a moment when all is well. For a mutant, that is set shorter. */
const waitMs = Number(process.env.TEST_WAIT_MS ?? 30_000)
const expired = Symbol('expired')

/**
 * Settles as the promise does.
 *
 * @throws an error that says what the test waited for, if it takes longer than `milliseconds`
 */
export async function inTime<T>(
  promise: PromiseLike<T>,
  what: string | (() => string),
  milliseconds = waitMs,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const end = new Promise<typeof expired>((resolve) => {
    timer = setTimeout(resolve, milliseconds, expired).unref()
  })
  try {
    const result = await Promise.race([promise, end])
    if (result !== expired) return result
  } finally {
    clearTimeout(timer)
  }
  const text = typeof what === 'string' ? what : what()
  throw new Error(`timed out after ${milliseconds / 1000} s waiting for: ${text}`)
}

/**
 * Resolves when the condition is true. Checks it at each turn of the event loop.
 *
 * @throws an error that says what the test waited for, if it takes longer than `milliseconds`
 */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  milliseconds = waitMs,
): Promise<void> {
  let isOver = false
  const check = async () => {
    while (!isOver && !(await condition())) await setImmediate()
  }
  try {
    await inTime(check(), what, milliseconds)
  } finally {
    isOver = true
  }
}
