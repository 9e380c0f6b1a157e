import { closeSync, openSync, readSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { Config } from '../config/config.js'
import { type Explanation, explainRequest, explainToken } from './explanation.js'

const usageOf = (command: string) => `Usage:
  ${command} --company ID --user ID [--body JSON]
  ${command} --token-file FILE [--company ID] [--body JSON]

Shows what the service would do with a request under its current settings. It never calls iDenfy.

  --company ID       the company; with --token-file, the X-Company-Id of the request
  --user ID          the user
  --token-file FILE  a file with an access token: shows every check of it, what was expected and what was received.
                     It fetches the signing keys from AUTH_JWKS_URL. It does not print the token.
  --body JSON        the body of the request
  --help             shows this text

Exit codes: 0 the service would send a request to iDenfy, 1 it would refuse the request, 2 wrong arguments or settings
`

/** The largest request header that the service accepts is smaller. */
const maxTokenFileBytes = 64 * 1024

/**
 * The program `explain`. It writes to stdout and stderr.
 *
 * @param command how the user starts it, for the usage text
 * @param load reads the configuration
 * @returns the exit code
 */
export async function runExplain(args: string[], command: string, load: () => Config): Promise<number> {
  try {
    const values = parse(args)
    if (values.help) {
      process.stdout.write(usageOf(command))
      return 0
    }
    const { isAccepted, explanation } = await explain(values, load)
    process.stdout.write(format(explanation))
    return isAccepted ? 0 : 1
  } catch (error) {
    const usage = error instanceof ArgumentError ? `\n${usageOf(command)}` : ''
    process.stderr.write(`${(error as Error).message}\n${usage}`)
    return 2
  }
}

class ArgumentError extends Error {}

function parse(args: string[]) {
  try {
    const { values } = parseArgs({
      args,
      options: {
        company: { type: 'string' },
        user: { type: 'string' },
        body: { type: 'string', default: '{}' },
        'token-file': { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    })
    return values
  } catch {
    // The message of Node quotes the argument, which may be a token.
    throw new ArgumentError('There is an unknown argument, or one without its value.')
  }
}

interface Arguments {
  readonly company?: string | undefined
  readonly user?: string | undefined
  readonly body: string
  readonly 'token-file'?: string | undefined
}

async function explain(
  { company, user, body, 'token-file': tokenFile }: Arguments,
  load: () => Config,
): Promise<Explanation> {
  if (tokenFile !== undefined) {
    if (user !== undefined)
      throw new ArgumentError('--user cannot be used with --token-file: the token names the user.')
    const token = readToken(tokenFile)
    return explainToken(load(), token, company, body)
  }
  if (company === undefined || user === undefined) {
    throw new ArgumentError('--company and --user are required, or --token-file.')
  }
  return explainRequest(load(), { companyId: company, userId: user }, body)
}

/** The token in a file, which may have been copied with the `Bearer` in front of it. */
function readToken(path: string): string {
  const text = readStart(path, maxTokenFileBytes + 1)
  const token = text
    .replace(/^\ufeff/, '')
    .trim()
    .replace(/^(authorization: *)?bearer +/i, '')
  if (token === '') throw new ArgumentError('--token-file is empty.')
  if (text.length > maxTokenFileBytes) throw new ArgumentError('--token-file is larger than 64 KiB.')
  return token
}

/** At most so many bytes of a file, which may be a pipe or a device. */
function readStart(path: string, maxBytes: number): string {
  try {
    const file = openSync(path, 'r')
    const bytes = Buffer.alloc(maxBytes)
    let length = 0
    for (let read = -1; read !== 0 && length < maxBytes; length += read) {
      read = readSync(file, bytes, length, maxBytes - length, null)
    }
    closeSync(file)
    return bytes.toString('utf8', 0, length)
  } catch (error) {
    throw new ArgumentError(`--token-file cannot be read: ${(error as NodeJS.ErrnoException).code}.`)
  }
}

/** JSON, with each check of a token on its own line, and without characters that change what a terminal shows. */
function format({ token, ...explanation }: Explanation['explanation']): string {
  const lines = token?.map((check) => `    ${JSON.stringify(check)}`)
  const rest = JSON.stringify(explanation, undefined, 2)
  const text = lines === undefined ? rest : `{\n  "token": [\n${lines.join(',\n')}\n  ],${rest.slice(1)}`
  return `${text.replace(/[^\P{C}\n]|\p{Zl}|\p{Zp}/gu, escapeCharacter)}\n`
}

/** As JSON does with control characters. */
function escapeCharacter(character: string): string {
  return character
    .split('')
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
    .join('')
}
