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
      hooks: {
        // Without a message pino takes that of the error.
        logMethod(args, method) {
          const [first] = args as unknown as [object]
          if (args.length > 1 || !(first instanceof Error || 'err' in Object(first)))
            return method.apply(this, args)
          method.call(this, first instanceof Error ? { err: first } : first, 'error')
        },
      },
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

/** Messages of V8 that have no value in them. */
const plainMessages =
  /^(Cannot (read|set) properties of (undefined|null) \((reading|setting) '[A-Za-z_$]{1,32}'\)|[A-Za-z_$.]{1,64} is not (a function|iterable|defined|a constructor)|Invalid (array length|time value)|Maximum call stack size exceeded)$/

/** Errors of Node whose messages have a value at the end at most, after "Received" or in brackets. */
const plainCodes =
  /^ERR_(INVALID_(ARG_TYPE|ARG_VALUE|CHAR|HTTP_TOKEN|STATE|THIS)|OUT_OF_RANGE|MISSING_ARGS|HTTP_HEADERS_SENT|STREAM_[A-Z_]+)$/

function describeError(error: unknown): ErrorDescription {
  try {
    return error instanceof Error ? describe(error) : { name: error === null ? 'null' : typeof error }
  } catch {
    return { name: 'an error that cannot be read' }
  }
}

function describe(error: Error): ErrorDescription {
  const { name, code, syscall, message, stack = '', cause } = error as NodeJS.ErrnoException
  const passed = passing(error)
  return {
    name: String(name),
    ...(code !== undefined && { code: String(code) }),
    ...(syscall !== undefined && { syscall: String(syscall) }),
    ...(passed !== undefined && { message: passed }),
    stack: stack.slice(stack.indexOf(message) + message.length).trimStart(),
    ...(cause !== undefined && { cause: describeError(cause) }),
  }
}

/** Only texts that are known to be constant: a parser's or validator's message may quote what it read. */
function passing(error: NodeJS.ErrnoException): string | undefined {
  const { code, syscall, message } = error
  if (error instanceof Problem || syscall !== undefined || plainMessages.test(message)) return message
  return plainCodes.test(String(code)) ? message.replace(/ (Received|\[).*/s, '') : undefined
}
