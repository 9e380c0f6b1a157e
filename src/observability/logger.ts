import pino, { type DestinationStream, type Logger } from 'pino'
import { Problem } from '../problems/problem.js'

/**
 * The JSON logger of the process. Every serializer lists what may be logged: never the headers or the URL of a request,
 * and never an error message that could quote a token.
 */
export function createLogger(level: string, destination: DestinationStream = pino.destination(1)): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      hooks: {
        // Without a message pino would use that of the error.
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

/** Messages of V8 that contain names of the code, but no values. */
const messagesWithoutValues = new RegExp(
  `^(${[
    String.raw`Cannot (read|set) properties of (undefined|null) \((reading|setting) '[\w$]{1,32}'\)`,
    String.raw`Cannot destructure property '[\w$]{1,32}' of '[\w$.()]{1,64}' as it is (undefined|null)\.`,
    String.raw`[\w$.()]{1,64} is not (a function|iterable|defined|a constructor)`,
    String.raw`[\w$.()]{1,64} is not a function or its return value is not (async )?iterable`,
    String.raw`Cannot access '[\w$]{1,32}' before initialization`,
    'Assignment to constant variable\\.',
    'Cannot convert undefined or null to object',
    'Converting circular structure to JSON',
    'Do not know how to serialize a BigInt',
    'Invalid (array length|string length|time value|count value)',
    'Maximum call stack size exceeded',
    'Reduce of empty array with no initial value',
    'Unexpected end of JSON input',
  ].join('|')})$`,
)

/** The part of a message of V8's JSON parser before the quoted text. */
const jsonFault = /^(Unexpected (token|non-whitespace character)|Expected [a-z ]+|Bad [a-z ]+ in JSON)/

/** Errors of Node, OpenSSL, undici, the HTTP parser, Fastify and jose. */
const knownCodes = /^(ERR_|UND_ERR_|HPE_|FST_ERR_|UNABLE_TO_|CERT_|DEPTH_ZERO_|SELF_SIGNED_)/

/** Errors of this service that are not a Problem. */
const ownNames = new Set(['EgressProxyError', 'KeySetFault', 'RedisUnavailable', 'TimeoutError'])

function describeError(error: unknown): ErrorDescription {
  try {
    return error instanceof Error ? describe(error) : { name: error === null ? 'null' : typeof error }
  } catch {
    return { name: 'unreadable error' }
  }
}

function describe(error: Error): ErrorDescription {
  const { name, code, syscall, message, stack = '', cause } = error as NodeJS.ErrnoException
  const safeMessage = safeMessageOf(error)
  return {
    name: String(name),
    ...(code !== undefined && { code: String(code) }),
    ...(syscall !== undefined && { syscall: String(syscall) }),
    ...(safeMessage !== undefined && { message: safeMessage }),
    stack: stack.slice(stack.indexOf(message) + message.length).trimStart(),
    ...(cause !== undefined && { cause: describeError(cause) }),
  }
}

/** A message only if it is known to contain no values. A message of a parser or validator may quote its input. */
function safeMessageOf(error: NodeJS.ErrnoException): string | undefined {
  const { name, code, syscall, message } = error
  if (error instanceof Problem || ownNames.has(name) || syscall !== undefined) return message
  // In these messages values come last: "… Received 'x'", "… ["x"]", "Unknown encoding: x".
  if (knownCodes.test(String(code))) return message.replace(/( Received|: | \[).*/s, '')
  const [line = ''] = message.split('\n', 1)
  if (messagesWithoutValues.test(line)) return line
  return name === 'SyntaxError' ? jsonFault.exec(message)?.[0] : undefined
}
