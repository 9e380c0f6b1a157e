import pino, { type DestinationStream, type Logger } from 'pino'
import { Problem } from './problems.js'

/**
 * The JSON logger of the whole process. Every serializer names what may pass: a request never brings its
 * headers or its URL, an error never a message that could quote a token.
 */
export function createLogger(level: string, destination: DestinationStream = pino.destination(1)): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      serializers: {
        err: describeError,
        req: ({ method }: { method: string }) => ({ method }),
        res: ({ statusCode }: { statusCode: number }) => ({ statusCode }),
      },
    },
    destination,
  )
}

interface ErrorDescription {
  name: string
  code?: string
  syscall?: string
  message?: string
  stack?: string
  cause?: ErrorDescription
}

function describeError(error: unknown): ErrorDescription {
  if (!(error instanceof Error)) return { name: typeof error }
  const { code, syscall, message, stack = '', cause } = error as NodeJS.ErrnoException
  return {
    name: error.name,
    ...(code !== undefined && { code: String(code) }),
    ...(syscall !== undefined && { syscall }),
    // Only texts that are known to be constant: a parser's or validator's message may quote what it read.
    ...((error instanceof Problem || syscall !== undefined) && { message }),
    stack: stack.slice(stack.indexOf(message) + message.length).trimStart(),
    ...(cause !== undefined && { cause: describeError(cause) }),
  }
}
