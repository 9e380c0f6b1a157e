import { Type } from '@sinclair/typebox'
import { Check } from '@sinclair/typebox/value'
import { parsePolicy } from '../services/kyb/session-policy.js'
import { checkSettings, type GivenValues, jwksUrlOf } from './check-settings.js'
import { checkText } from './check-values.js'
import type { Config } from './config.js'
import {
  type Environment,
  type EnvironmentVariable,
  environmentSchema,
  secretNames,
  variableNames,
} from './environment-schema.js'
import { ConfigError, createFaults, type Faults } from './faults.js'
import { parseEnvironment } from './parse-environment.js'
import { printableValue } from './printable-value.js'
import {
  maxFileBytes,
  maxSecretFileBytes,
  readCertificates,
  readText,
  readTextSync,
  toSecret,
} from './read-files.js'
import { describeSettings } from './settings.js'
import { isInjected, unknownVariables } from './unknown-variables.js'

/** A page that loads three times, with retries, requests more often than it opens verifications. */
const requestsPerVerification = 12

type Environ = Readonly<NodeJS.ProcessEnv>

/** Reads where the management listener is, and nothing else: for the health check. */
export function loadManagementAddress(environment: Environ = process.env) {
  const { MANAGEMENT_HOST, MANAGEMENT_PORT } = environmentSchema.properties
  const schema = Type.Object({ MANAGEMENT_HOST, MANAGEMENT_PORT })
  return parseEnvironment(schema, withoutInjected(environment)).values
}

/**
 * Reads and checks the whole configuration, files included.
 *
 * @throws ConfigError with every fault
 */
export function loadConfig(processEnvironment: Environ = process.env): Config {
  const environment = withoutInjected(processEnvironment)
  const faults = createFaults()
  const given = readGivenValues(environment, faults)
  const { values, faults: wrongValues } = parseEnvironment(environmentSchema, given)
  for (const [name, fault] of wrongValues) faults.add(name, fault)
  for (const [name, fault] of unknownVariables(environment, variableNames, secretNames)) {
    faults.add(name, fault)
  }
  checkSettings(given, values, faults)
  checkNode(environment, faults)

  const { IDENFY_CA_FILE: idenfyCaFile, REDIS_CA_FILE: redisCaFile, KYB_POLICY_FILE: policyFile } = given
  const idenfyCa = faults.check('IDENFY_CA_FILE', () => idenfyCaFile && readCertificates(idenfyCaFile))
  const redisCa = faults.check('REDIS_CA_FILE', () => redisCaFile && readCertificates(redisCaFile))
  faults.check('KYB_POLICY_FILE', () => policyFile && parsePolicy(readTextSync(policyFile, maxFileBytes)))

  if (faults.all.size > 0) {
    throw new ConfigError([...faults.all].map(([name, fault]) => `${name} ${fault}${received(name)}`))
  }
  const complete = withDerivedValues(values, given)
  const config = Object.defineProperties(
    { ...complete, idenfyCa, redisCa },
    {
      readSecret: { value: secretReader(environment, given) },
      readPolicy: {
        value: async () => (policyFile === undefined ? '{}' : readText(policyFile, maxFileBytes)),
      },
      settings: { value: describeSettings(complete, environment) },
    },
  ) as Config
  for (const name of secretNames) Object.defineProperty(config, name, { enumerable: false })
  return config

  function received(name: string): string {
    if (!isVariableName(name) || secretNames.has(name) || environment[name] === undefined) return ''
    const text = printableValue(environment[name])
    return text === undefined ? '' : `; got ${JSON.stringify(text)}`
  }
}

/** Removes `DEBUG`: libraries that follow it print what they send, passwords included. Call it before they are loaded. */
export function forgetDebug(): void {
  delete process.env.DEBUG
}

function readGivenValues(environment: Environ, faults: Faults): GivenValues {
  const given: GivenValues = {}
  for (const name of variableNames) {
    const value = faults.check(name, () => readVariable(name, environment))
    if (value !== undefined) given[name] = value
  }
  return given
}

function readVariable(name: EnvironmentVariable, environment: Environ): string | undefined {
  const value = environment[name]
  if (value !== undefined) checkText(value)
  const path = secretNames.has(name) ? environment[`${name}_FILE`] : undefined
  if (path === undefined) return value
  if (value !== undefined) throw new Error(`is given twice, also as ${name}_FILE`)
  try {
    return toSecret(readTextSync(path, maxSecretFileBytes))
  } catch (error) {
    throw new Error(`${(error as Error).message}, given by ${name}_FILE`)
  }
}

function secretReader(environment: Environ, given: GivenValues): Config['readSecret'] {
  return async (name) => {
    const path = environment[`${name}_FILE`]
    if (path === undefined) return given[name] as string
    const value = await readText(path, maxSecretFileBytes)
      .then(toSecret)
      .catch(({ message }) => {
        throw new Error(`${name} ${message}, given by ${name}_FILE`)
      })
    const schema = environmentSchema.properties[name]
    if (!Check(schema, value)) throw new Error(`${name} must be ${schema.expected}`)
    return value
  }
}

/** Checks settings of Node that would make calls insecure. */
function checkNode({ NODE_TLS_REJECT_UNAUTHORIZED, NODE_OPTIONS }: Environ, { add }: Faults): void {
  if (NODE_TLS_REJECT_UNAUTHORIZED === '0') {
    add(
      'NODE_TLS_REJECT_UNAUTHORIZED',
      'must not be 0: any server could pretend to be iDenfy; see IDENFY_CA_FILE',
    )
  }
  if (NODE_OPTIONS?.includes('--insecure-http-parser')) {
    add('NODE_OPTIONS', 'must not have --insecure-http-parser')
  }
}

/** Adds the defaults that depend on other settings. */
function withDerivedValues(values: Environment, given: GivenValues) {
  return {
    ...values,
    AUTH_JWKS_URL: jwksUrlOf(given),
    // A connection that is ready later is too late for its request.
    IDENFY_CONNECT_TIMEOUT_MS: Math.min(values.IDENFY_CONNECT_TIMEOUT_MS, values.IDENFY_TIMEOUT_MS),
    RATE_LIMIT_REQUESTS_PER_MINUTE:
      values.RATE_LIMIT_REQUESTS_PER_MINUTE ?? values.RATE_LIMIT_USER_PER_MINUTE * requestsPerVerification,
  }
}

function isVariableName(name: string): name is EnvironmentVariable {
  return Object.hasOwn(environmentSchema.properties, name)
}

function withoutInjected(environment: Environ): Environ {
  return Object.fromEntries(
    Object.entries(environment).filter(([name, value = '']) => !isInjected(name, value)),
  )
}
