import type { Logger } from 'pino'

const maxPrintedCharacters = 1000

/** Turns what libraries print into log lines. The logger itself does not write through these streams. */
export function captureConsole(logger: Logger): void {
  const redirect = (stream: NodeJS.WriteStream, level: 'info' | 'warn') => {
    stream.write = (text: Uint8Array | string, ...rest: unknown[]) => {
      logger[level]({ text: withoutCredentials(String(text)) }, 'printed')
      const done = rest.at(-1)
      if (typeof done === 'function') done()
      return true
    }
  }
  redirect(process.stdout, 'info')
  redirect(process.stderr, 'warn')
  // Node's own listener writes to stderr.
  process.removeAllListeners('warning').on('warning', ({ name, message }) => {
    logger.warn({ warning: name, text: withoutCredentials(message) }, 'Node warning')
  })
}

function withoutCredentials(text: string): string {
  return text
    .trimEnd()
    .replace(/\/\/[^\s/]*@/g, '//…@')
    .slice(0, maxPrintedCharacters)
}
