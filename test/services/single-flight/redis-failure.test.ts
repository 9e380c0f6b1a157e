import t from 'tap'
import {
  describeRedisFailure,
  isReply,
  type RedisFailureCause,
  redisFailureCauses,
} from '../../../src/services/single-flight/redis-failure.js'

/** A reply as ioredis makes it. */
const reply = (message: string, command = 'GET') =>
  Object.assign(new Error(message), { name: 'ReplyError', command: { name: command, args: [] } })
const broken = (code: string) => Object.assign(new Error('lost'), { code })

t.test('errors of the connection have a cause', async (t) => {
  const rows: [code: string, cause: RedisFailureCause][] = [
    ['ENOTFOUND', 'unknown-host'],
    ['EAI_AGAIN', 'unknown-host'],
    ['ECONNREFUSED', 'refused'],
    ['ENETUNREACH', 'unreachable'],
    ['EHOSTUNREACH', 'unreachable'],
    ['ETIMEDOUT', 'timeout'],
    ['REDIS_TIMEOUT', 'timeout'],
    ['ECONNRESET', 'closed'],
    ['EPIPE', 'closed'],
    ['REDIS_CLOSED', 'closed'],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'certificate'],
    ['CERT_HAS_EXPIRED', 'certificate'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'certificate'],
    ['ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED', 'certificate'],
    ['INVALID_CA', 'certificate'],
    ['INVALID_PURPOSE', 'certificate'],
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'protocol'],
    ['EPROTO', 'protocol'],
    ['EMFILE', 'other'],
  ]
  for (const [code, cause] of rows) {
    const failure = describeRedisFailure(broken(code))
    t.match(failure, { cause, code, hint: /\w/ })
    t.strictSame(Object.keys(failure), ['cause', 'code', 'hint'])
  }
  for (const code of rows.map(([code]) => code).filter((code) => !/CERT|UNABLE|INVALID/.test(code))) {
    t.equal(describeRedisFailure(broken(`X${code}`)).cause, 'other', `not X${code}`)
    const isPrefix = code.startsWith('ERR_SSL') || code.startsWith('EAI_')
    if (!isPrefix) t.equal(describeRedisFailure(broken(`${code}-X`)).cause, 'other', `not ${code}-X`)
  }
  t.equal(describeRedisFailure(broken('EAI_')).cause, 'other')
  t.equal(describeRedisFailure(broken('EAI_AGAIN-X')).cause, 'other')
})

t.test('errors of ioredis without a code have a cause', async (t) => {
  const rows: [message: string, cause: RedisFailureCause][] = [
    ["Socket timeout. Expecting data, but didn't receive any in 2000ms.", 'timeout'],
    ["Stream isn't writeable and enableOfflineQueue options is false", 'closed'],
    ['Connection is closed.', 'closed'],
    ['Reached the max retries per request limit (which is 0).', 'closed'],
    ['Unknown RESP type: H', 'protocol'],
  ]
  for (const [message, cause] of rows) {
    t.strictSame(Object.keys(describeRedisFailure(new Error(message))), ['cause', 'hint'])
    t.equal(describeRedisFailure(new Error(message)).cause, cause)
    t.equal(describeRedisFailure(new Error(`No ${message}`)).cause, 'other', 'only at the beginning')
    t.equal(describeRedisFailure(Object.assign(new Error(message), { code: 'EMFILE' })).cause, 'other')
  }
})

t.test('replies of Redis have a cause, a code and what is denied', async (t) => {
  const rows: [message: string, command: string, cause: RedisFailureCause, more?: object][] = [
    ["ERR unknown command 'EVAL', with args", 'EVAL', 'unknown-command', { code: 'ERR' }],
    ["ERR Unknown command 'AUTH'", 'AUTH', 'unknown-command', { code: 'ERR' }],
    ['No ERR unknown command', 'GET', 'other'],
    ['LOADING Redis is loading the dataset in memory', 'GET', 'loading', { code: 'LOADING' }],
    ['LOADING Redis is loading the dataset in memory', 'AUTH', 'loading', { code: 'LOADING' }],
    ["MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", 'GET', 'loading'],
    ['BUSY Redis is busy running a script.', 'SELECT', 'loading', { code: 'BUSY' }],
    ['BUSYKEY Target key name already exists.', 'GET', 'other', { code: 'BUSYKEY' }],
    ['No LOADING', 'GET', 'other'],
    ['MOVED 3999 127.0.0.1:6381', 'GET', 'cluster', { code: 'MOVED' }],
    ['ASK 3999 127.0.0.1:6381', 'GET', 'cluster'],
    ['CLUSTERDOWN Hash slot not served', 'GET', 'cluster'],
    ["CROSSSLOT Keys in request don't hash to the same slot", 'GET', 'cluster'],
    ['TRYAGAIN Multiple keys request during rehashing of slot', 'GET', 'cluster'],
    ['ASKING for trouble', 'GET', 'other', { code: 'ASKING' }],
    ['No MOVED', 'GET', 'other'],
    ['WRONGPASS invalid username-password pair', 'AUTH', 'authentication', { code: 'WRONGPASS' }],
    ['NOAUTH Authentication required.', 'GET', 'authentication', { code: 'NOAUTH' }],
    ['NOAUTHORITY here', 'GET', 'other'],
    ['No NOAUTH', 'GET', 'other'],
    ['ERR Client sent AUTH, but no password is set', 'AUTH', 'authentication', { code: 'ERR' }],
    ['ERR invalid password', 'auth', 'authentication'],
    ['ERR DB index is out of range', 'SELECT', 'database', { code: 'ERR' }],
    [
      "NOPERM this user has no permissions to run the 'select' command",
      'SELECT',
      'database',
      { denied: 'select' },
    ],
    [
      "NOPERM this user has no permissions to run the 'eval' command",
      'EVAL',
      'permission',
      { denied: 'eval' },
    ],
    [
      'NOPERM this user has no permissions to access one of the keys used as arguments',
      'INCR',
      'permission',
      { denied: 'keys' },
    ],
    ['NOPERM No permissions to access a key', 'GET', 'permission', { code: 'NOPERM', denied: 'keys' }],
    [
      "ERR The user executing the script can't run this command or subcommand",
      'EVAL',
      'permission',
      { code: 'ERR' },
    ],
    ['ERR ACL failure in script: No permissions to access a key', 'EVAL', 'permission', { code: 'ERR' }],
    ['NOPERMIT here', 'GET', 'other', { denied: 'get' }],
    ['No NOPERM', 'GET', 'other'],
    ["READONLY You can't write against a read only replica.", 'SET', 'read-only', { code: 'READONLY' }],
    [
      "ERR Error running script: @user_script:1: -READONLY You can't write",
      'EVAL',
      'read-only',
      { code: 'ERR' },
    ],
    ['NOREPLICAS Not enough good replicas to write.', 'SET', 'read-only'],
    ['MISCONF Redis is configured to save RDB snapshots', 'SET', 'read-only'],
    ['ERR NOTREADONLY', 'SET', 'other'],
    ['ERR READONLYNESS', 'SET', 'other'],
    ["OOM command not allowed when used memory > 'maxmemory'.", 'SET', 'out-of-memory', { code: 'OOM' }],
    ['ERR Error running script: -OOM command not allowed', 'EVAL', 'out-of-memory'],
    ['ERR no ROOM', 'SET', 'other'],
    ['ERR OOMPH', 'SET', 'other'],
    ['ERR value is not an integer', 'INCR', 'other', { code: 'ERR' }],
  ]
  for (const [message, command, cause, more = {}] of rows) {
    const { hint, ...failure } = describeRedisFailure(reply(message, command))
    t.match(failure, { cause, ...more }, message)
    t.match(hint, /\w/)
    if (!('denied' in more)) t.notOk('denied' in failure, message)
  }
  const tested = new Set([...rows.map(([, , cause]) => cause)])
  for (const cause of ['cluster', 'read-only', 'out-of-memory', 'loading'] as const) t.ok(tested.has(cause))
})

t.test('no more of a reply is told than its first word, and only if that is a code', async (t) => {
  const codeOf = (message: string) => describeRedisFailure(reply(message)).code
  t.equal(codeOf('ERR the password is canary'), 'ERR')
  t.equal(codeOf('A reply'), undefined)
  t.equal(codeOf('AB reply'), 'AB')
  t.equal(codeOf('A'.repeat(20)), 'A'.repeat(20))
  t.equal(codeOf('A'.repeat(21)), undefined)
  for (const message of ['', 'Err x', 'err x', ' ERR x', 'ERR5 x', 'x ERR']) {
    const failure = describeRedisFailure(reply(message))
    t.notOk('code' in failure, message)
  }
})

t.test('each cause has a hint of its own', async (t) => {
  const hints = new Set<string>()
  const errors = [
    ...['ENOTFOUND', 'ECONNREFUSED', 'ENETUNREACH', 'ETIMEDOUT', 'EPIPE', 'CERT', 'EPROTO', 'EMFILE'].map(
      broken,
    ),
    ...['NOAUTH x', 'NOPERM x', 'MOVED x', 'READONLY x', 'OOM x', 'LOADING x', 'ERR unknown command'].map(
      (text) => reply(text),
    ),
    reply('ERR x', 'SELECT'),
  ]
  for (const error of errors) hints.add(describeRedisFailure(error).hint)
  t.equal(hints.size, redisFailureCauses.length)
})

t.test('a reply is told from a broken connection', async (t) => {
  t.equal(isReply(reply('ERR x')), true)
  t.equal(isReply(new Error('ReplyError')), false)
})
