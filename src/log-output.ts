import type { DestinationStream } from 'pino'
import sonicBoom from 'sonic-boom'

/** For so long lines are gathered before they are written. */
const gatherMs = 5
/** What waits for a reader who does not keep up: the lines of some 1,500 requests. */
const maxBacklogBytes = 1024 * 1024
/** For a reader who does not keep up when the process ends. */
const lastReadMs = 1000

export interface LogOutput extends DestinationStream {
  /** How many lines were given up, because nobody took those before them. */
  droppedLines(): number
}

/**
 * Standard output for a logger. Who reads it may be slow, stop or leave, and the disk may be full: requests do not wait
 * for that, and memory does not grow.
 *
 * Lines that come within a few milliseconds are written together. Under load that saves a sixth of the CPU of a request.
 */
export function createLogOutput(): LogOutput {
  let lines = ''
  let dropped = 0
  let giveUpAtMs = Number.POSITIVE_INFINITY
  const stdout = new sonicBoom.SonicBoom({
    fd: 1,
    maxLength: maxBacklogBytes,
    retryEAGAIN: () => performance.now() < giveUpAtMs,
  })
  stdout.on('drop', (text: string) => {
    dropped += text.split('\n').length - 1
  })
  // What could not be written is tried again with the next lines. Without a listener an error would end the process.
  stdout.on('error', () => {})

  function flush(): void {
    stdout.write(lines)
    lines = ''
  }
  process.once('exit', () => {
    giveUpAtMs = performance.now() + lastReadMs
    flush()
    try {
      stdout.flushSync()
    } catch {
      // Nobody reads.
    }
  })

  return {
    write(line) {
      if (lines === '') setTimeout(flush, gatherMs)
      lines += line
    },
    droppedLines() {
      // Those that are still gathered are decided upon too.
      flush()
      return dropped
    },
  }
}
