/** Why Redis cannot be used, and what the operator can do about it. A closed list: it labels a metric. */
const hints = {
  'unknown-host': 'check the host name in REDIS_URL, and DNS',
  refused: 'check the host and the port in REDIS_URL, and whether Redis runs',
  unreachable: 'check the host and the port in REDIS_URL, routes and firewalls',
  timeout: 'check the load of Redis and the network; if Redis has no TLS, REDIS_URL must begin with redis:',
  closed:
    'check whether Redis runs and has connections left; if it expects TLS, REDIS_URL must begin with rediss:',
  certificate:
    'set REDIS_CA_FILE to the CA of Redis, and name Redis in REDIS_URL as its certificate does; it may also ask for the certificate of a client, which this service does not have',
  protocol:
    'check the host and the port in REDIS_URL, which must begin with rediss: if Redis expects TLS, else with redis:',
  authentication: 'check the user name and the password in REDIS_URL, and that Redis has both',
  permission:
    'allow the user of REDIS_URL the commands eval, evalsha, get, set, incr, pexpire and pttl on the keys onboarding-bff:*',
  database:
    'check that Redis has the database at the end of REDIS_URL, and that the user may use the command select',
  cluster: 'name a Redis in REDIS_URL that has all keys: redirections to other nodes are not followed',
  'read-only': 'name the primary in REDIS_URL, or check why it takes no writes',
  'out-of-memory': 'give Redis more memory (maxmemory)',
  loading: 'wait until Redis has loaded its data, synchronized or ended its script',
  'unknown-command': 'name a Redis in REDIS_URL that runs scripts; this may be a Sentinel',
  other: 'look for the code in the documentation of Redis',
} as const

export type RedisFailureCause = keyof typeof hints

export const redisFailureCauses = Object.keys(hints) as RedisFailureCause[]

export interface RedisFailure {
  readonly cause: RedisFailureCause
  /** Of Node, or the first word of what Redis replied; the rest may quote arguments, and a password is one. */
  readonly code?: string
  /** What the user of Redis may not do: a command, or "keys". */
  readonly denied?: string
  readonly hint: string
}

/** Before the others: a command is not the reason for these. */
const replies: readonly (readonly [RegExp, RedisFailureCause])[] = [
  [/^ERR unknown command/i, 'unknown-command'],
  [/^(LOADING|MASTERDOWN|BUSY)\b/, 'loading'],
  [/^(MOVED|ASK|CLUSTERDOWN|CROSSSLOT|TRYAGAIN)\b/, 'cluster'],
  [/^(WRONGPASS|NOAUTH)\b/, 'authentication'],
]

/** Within scripts Redis 6 puts its own words before the code. */
const repliesToCommands: readonly (readonly [RegExp, RedisFailureCause])[] = [
  [/^NOPERM\b|can't run this command|ACL failure/, 'permission'],
  [/\b(READONLY|NOREPLICAS|MISCONF)\b/, 'read-only'],
  [/\bOOM\b/, 'out-of-memory'],
]

const codes: readonly (readonly [RegExp, RedisFailureCause])[] = [
  [/^(ENOTFOUND|EAI_\w+)$/, 'unknown-host'],
  [/^ECONNREFUSED$/, 'refused'],
  [/^E(HOST|NET)UNREACH$/, 'unreachable'],
  [/^(ETIMEDOUT|REDIS_TIMEOUT)$/, 'timeout'],
  [/^(ECONNRESET|EPIPE|REDIS_CLOSED)$/, 'closed'],
  [/CERT|UNABLE_TO_|INVALID_CA|INVALID_PURPOSE/, 'certificate'],
  [/^(ERR_SSL_|EPROTO$)/, 'protocol'],
]

/** Errors of ioredis that have no code. */
const messages: readonly (readonly [RegExp, RedisFailureCause])[] = [
  [/^Socket timeout/, 'timeout'],
  [/^(Connection is closed|Stream isn't writeable|Reached the max retries)/, 'closed'],
  [/^Unknown RESP type/, 'protocol'],
]

/** As ioredis makes it: with the command that it is the reply to. */
interface ErrorReply extends Error {
  readonly command: { readonly name: string }
}

const find = (table: readonly (readonly [RegExp, RedisFailureCause])[], text: string) =>
  table.find(([pattern]) => pattern.test(text))?.[1]

export const isReply = (error: unknown): boolean => (error as Error).name === 'ReplyError'

export function describeRedisFailure(error: unknown): RedisFailure {
  return isReply(error)
    ? describeReply(error as ErrorReply)
    : describeConnection(error as NodeJS.ErrnoException)
}

function describeReply({ message, command }: ErrorReply): RedisFailure {
  const name = command.name.toLowerCase()
  const byCommand = { auth: 'authentication', select: 'database' } as const
  const cause =
    find(replies, message) ??
    byCommand[name as keyof typeof byCommand] ??
    find(repliesToCommands, message) ??
    'other'
  const code = /^[A-Z]{2,20}\b/.exec(message)?.[0]
  const denied = /access (a|one of the) key/.test(message) ? 'keys' : name
  return {
    cause,
    ...(code && { code }),
    ...(message.startsWith('NOPERM') && { denied }),
    hint: hints[cause],
  }
}

function describeConnection({ code, message }: NodeJS.ErrnoException): RedisFailure {
  const cause = (code === undefined ? find(messages, message) : find(codes, code)) ?? 'other'
  return { cause, ...(code !== undefined && { code }), hint: hints[cause] }
}
