import { type Static, Type } from '@sinclair/typebox'

const asymmetricAlgorithms = 'RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA Ed25519'.split(' ')
export const networks = 'a comma-separated list of addresses and CIDRs'

/** A comma-separated list. A fault shows `expected` instead of the pattern. */
const list = (item: string, options: { expected: string; default?: string; description: string }) =>
  Type.Unsafe<string[]>(Type.String({ separator: ',', pattern: `^(${item})(,(${item}))*$`, ...options }))

const choice = (values: readonly string[], options: { default: string; description: string }) =>
  Type.String({ pattern: `^(${values.join('|')})$`, expected: `one of ${values.join(', ')}`, ...options })

const port = (number: number, description: string) =>
  Type.Integer({ minimum: 0, maximum: 65_535, default: number, description })

const limit = (perMinute: number | undefined, description: string) =>
  Type.Integer({
    minimum: 1,
    maximum: 1_000_000,
    ...(perMinute !== undefined && { default: perMinute }),
    description,
  })

/** Set as `X`, or as `X_FILE` with the path of a file that contains the value. */
const secret = (options: { pattern: string; expected: string; description: string; minLength?: number }) =>
  Type.String({ secret: true, maxLength: 512, ...options })

const url = (options: { description: string; default?: string }) => Type.String(options)

/** Every environment variable of the service. The table in docs/configuration.md is generated from this schema. */
export const environmentSchema = Type.Object({
  HOST: Type.String({
    default: '127.0.0.1',
    description:
      'Address of the public listener. `::` means all IPv6 and IPv4 addresses; the container image sets it',
  }),
  PORT: port(3000, 'Port of the public listener. `0` selects a free port'),
  MANAGEMENT_HOST: Type.String({
    default: '127.0.0.1',
    description: 'Address of the management listener; the container image sets `::`',
  }),
  MANAGEMENT_PORT: port(9000, 'Port of the management listener. Never expose it to other networks'),
  LOG_LEVEL: choice(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], {
    default: 'info',
    description: 'Lowest level that is logged',
  }),
  AUTH_ISSUER: Type.String({ description: 'Expected `iss` of access tokens, exactly as in the token' }),
  AUTH_AUDIENCE: Type.String({
    description: 'Expected `aud` of access tokens. If `aud` is a list, it must contain this value',
  }),
  AUTH_JWKS_URL: Type.Optional(
    url({
      description: "URL of the issuer's signing keys (JWKS). Default: `<AUTH_ISSUER>/.well-known/jwks.json`",
    }),
  ),
  AUTH_ALGORITHMS: list(asymmetricAlgorithms.join('|'), {
    expected: `a comma-separated list out of ${asymmetricAlgorithms.join(', ')}`,
    default: 'RS256,PS256,ES256,EdDSA',
    description: 'Accepted signature algorithms. Only asymmetric ones are possible',
  }),
  AUTH_TOKEN_TYPES: list('[A-Za-z0-9.+/-]+', {
    expected: 'a comma-separated list of token types',
    default: 'at+jwt,JWT',
    description:
      'Accepted `typ` values. A token without `typ` counts as `JWT`. `at+jwt` alone is strict RFC 9068',
  }),
  AUTH_USER_CLAIM: Type.String({
    default: 'sub',
    description: 'Claim with the user id. A name that begins with `/` is a JSON Pointer',
  }),
  AUTH_COMPANY_CLAIM: Type.String({
    default: 'company_id',
    description: 'Claim with the company id, or with a list of them. The name works like `AUTH_USER_CLAIM`',
  }),
  AUTH_REQUIRED_SCOPE: Type.Optional(
    Type.String({
      pattern: '^[!#-\\[\\]-~]+$',
      expected: 'one scope',
      description: 'Scope that `scope` or `scp` must contain',
    }),
  ),
  AUTH_CLOCK_TOLERANCE_SECONDS: Type.Integer({
    minimum: 0,
    maximum: 60,
    default: 5,
    description: 'Accepted clock difference for the times in tokens',
  }),
  AUTH_MAX_TOKEN_LIFETIME_SECONDS: Type.Integer({
    minimum: 60,
    maximum: 31_536_000,
    default: 86_400,
    description: 'Longest accepted time between `iat` and `exp`',
  }),
  IDENFY_API_KEY: secret({
    pattern: '^[!-9;-~]+$',
    expected: 'printable ASCII without spaces and colons',
    description: 'iDenfy API key',
  }),
  IDENFY_API_SECRET: secret({
    pattern: '^[!-~]+$',
    expected: 'printable ASCII without spaces',
    description: 'iDenfy API secret',
  }),
  IDENFY_BASE_URL: url({
    default: 'https://ivs.idenfy.com',
    description: 'Origin of the iDenfy API. It is the same for sandbox and production keys',
  }),
  IDENFY_UI_URL: url({
    default: 'https://kyb.ui.idenfy.com/welcome',
    description: 'Page that `redirectUrl` points to',
  }),
  IDENFY_CA_FILE: Type.Optional(
    Type.String({ description: 'PEM file with an additional CA to trust for iDenfy' }),
  ),
  IDENFY_PROXY_URL: Type.Optional(
    secret({
      pattern: '^https?://',
      expected: 'an http: or https: URL',
      description: 'Egress proxy for calls to iDenfy. It may contain credentials',
    }),
  ),
  IDENFY_ENVIRONMENT: choice(['production', 'sandbox'], {
    default: 'production',
    description: 'Label for log and metrics. It does not select the environment: the API key does',
  }),
  IDENFY_TIMEOUT_MS: Type.Integer({
    minimum: 100,
    maximum: 60_000,
    default: 8000,
    description: 'Time limit of a request, including all waiting and a retry',
  }),
  IDENFY_CONNECT_TIMEOUT_MS: Type.Integer({
    minimum: 100,
    maximum: 60_000,
    default: 2000,
    description: 'Time limit for connecting to iDenfy, including TLS. At most `IDENFY_TIMEOUT_MS`',
  }),
  IDENFY_STANDBY_MAX_AGE_MS: Type.Integer({
    minimum: 0,
    maximum: 600_000,
    default: 45_000,
    description:
      'How long an unused connection to iDenfy stands by for the next request, at most half of `IDENFY_CONNECTION_MAX_AGE_MS`. It costs one TLS handshake per age and instance. `0`: no connection stands by',
  }),
  IDENFY_CONNECTION_MAX_AGE_MS: Type.Integer({
    minimum: 10_000,
    maximum: 3_600_000,
    default: 120_000,
    description:
      "No connection to iDenfy gets a request when it is older. New connections resolve iDenfy's name again",
  }),
  IDENFY_MAX_IN_FLIGHT: Type.Integer({
    minimum: 1,
    maximum: 10_000,
    default: 50,
    description: 'Calls to iDenfy at the same time. As many again may wait, for half a second',
  }),
  KYB_CLIENT_ID: Type.String({
    default: '{companyId}',
    description:
      'Template of `clientId`: a text with one or more of `{companyId}`, `{userId}`, `{companyHash}`, `{userHash}`, `{requestId}`',
  }),
  KYB_EXTERNAL_REF: Type.String({
    default: '{userId}',
    description: 'Template of `externalRef`. iDenfy limits it to 40 characters',
  }),
  KYB_IDENTITY_KEY: Type.Optional(
    secret({
      pattern: '^[!-~]+$',
      minLength: 32,
      expected: 'at least 32 characters of printable ASCII without spaces',
      description:
        'HMAC key of `{companyHash}` and `{userHash}`: 32 to 512 characters, for example from `openssl rand -base64 32`. Back it up',
    }),
  ),
  KYB_POLICY_FILE: Type.Optional(
    Type.String({ description: 'JSON file with the session policy, at most 1 MiB' }),
  ),
  KYB_REPLAY_SECONDS: Type.Integer({
    minimum: 0,
    maximum: 3600,
    default: 30,
    description: 'How long an identical request gets the same token. `0` disables it',
  }),
  RATE_LIMIT_USER_PER_MINUTE: limit(10, 'New verifications per user and minute'),
  RATE_LIMIT_COMPANY_PER_MINUTE: limit(60, 'New verifications per company and minute'),
  RATE_LIMIT_REQUESTS_PER_MINUTE: Type.Optional(
    limit(
      undefined,
      'Authenticated requests per user and minute, with any outcome. Default: twelve times `RATE_LIMIT_USER_PER_MINUTE`',
    ),
  ),
  RATE_LIMIT_IP_PER_MINUTE: limit(
    300,
    'Failed authentications per address and minute (IPv6: per /64 network)',
  ),
  REDIS_URL: Type.Optional(
    secret({
      pattern: '^rediss?://',
      expected: 'a redis: or rediss: URL',
      description:
        'Redis that the replicas share. It may contain credentials. Without it each replica works alone',
    }),
  ),
  REDIS_CA_FILE: Type.Optional(
    Type.String({ description: 'PEM file with an additional CA to trust for Redis (`rediss:`)' }),
  ),
  REDIS_REQUIRED: choice(['false', 'keys', 'true'], {
    default: 'keys',
    description:
      'Requests to refuse while Redis is unavailable, because they could open a second verification. `keys`: those with an `Idempotency-Key`. `true`: all. `false`: none',
  }),
  STATE_ENCRYPTION_KEY: Type.Optional(
    secret({
      pattern: '^[A-Za-z0-9+/]{43}=(,[A-Za-z0-9+/]{43}=){0,2}$',
      expected: '32 bytes in base64, or up to three such keys, comma separated',
      description:
        'Encrypts the tokens in Redis: 32 bytes in base64. Required with `REDIS_URL`. Up to three keys, comma separated: the first one encrypts, all decrypt',
    }),
  ),
  CORS_ORIGINS: Type.Optional(
    list('[^,]+', {
      expected: 'a comma-separated list of origins',
      description:
        'Origins whose pages may call the service, comma separated: `https://app.example.com`, `capacitor://localhost`, or `https://*.example.com`, where `*` stands for one label',
    }),
  ),
  TRUST_PROXY: Type.Optional(
    list('[0-9A-Fa-f.:]+(/[0-9]+)?', {
      expected: networks,
      description:
        'Addresses or CIDRs of trusted proxies. Their `X-Forwarded-For` and `X-Request-Id` are used',
    }),
  ),
  DOCS: Type.Boolean({
    default: false,
    description: 'Serve the OpenAPI document at `/docs`, and a page for each problem at its `type`',
  }),
  KEEP_ALIVE_TIMEOUT_MS: Type.Integer({
    minimum: 1000,
    maximum: 7_200_000,
    default: 72_000,
    description:
      'How long an idle connection stays open, 1000 to 7200000. Set it above the idle timeout of your load balancer',
  }),
  DRAIN_DELAY_MS: Type.Integer({
    minimum: 0,
    maximum: 300_000,
    default: 0,
    description: 'How long requests are accepted after SIGTERM, while `/readyz` is 503: `0`, or at least 100',
  }),
  SHUTDOWN_TIMEOUT_MS: Type.Integer({
    minimum: 100,
    maximum: 600_000,
    default: 25_000,
    description:
      'Time limit for the shutdown after SIGTERM. At least `DRAIN_DELAY_MS` and `IDENFY_TIMEOUT_MS` together. When it is over, the process exits with code 1',
  }),
  ALLOW_INSECURE_URLS: Type.Boolean({
    default: false,
    description: 'Accept `http:` URLs of hosts that are not loopback. Only for test networks',
  }),
})

export type EnvironmentVariable = keyof typeof environmentSchema.properties
export type Environment = Static<typeof environmentSchema>

export const variableNames = Object.keys(environmentSchema.properties) as EnvironmentVariable[]

/** Their values are never shown. Each may also be given as a file, by `<NAME>_FILE`. */
export const secretNames: ReadonlySet<string> = new Set(
  variableNames.filter((name) => environmentSchema.properties[name].secret),
)
