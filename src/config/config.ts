import type { Environment, EnvironmentVariable } from './environment-schema.js'

/** The checked configuration. Secrets are not enumerable, so that nothing prints them along with the rest. */
export interface Config extends Readonly<Environment> {
  readonly AUTH_JWKS_URL: string
  readonly RATE_LIMIT_REQUESTS_PER_MINUTE: number
  /** The certificates of `IDENFY_CA_FILE`, PEM. */
  readonly idenfyCa?: string | undefined
  /** The certificates of `REDIS_CA_FILE`, PEM. */
  readonly redisCa?: string | undefined
  /**
   * Reads the text of `KYB_POLICY_FILE`, or of an empty policy if there is none. The file may have been replaced by one
   * that cannot be parsed.
   *
   * @throws Error when it cannot be read
   */
  readPolicy(): Promise<string>
  /**
   * Reads a secret again. A file may have been replaced since the start.
   *
   * @throws Error when the new value is not usable
   */
  readSecret(name: EnvironmentVariable): Promise<string>
  /** Every setting in force, by the name of its variable, for the operator to read. It holds no secrets. */
  readonly settings: Readonly<Record<string, unknown>>
}
