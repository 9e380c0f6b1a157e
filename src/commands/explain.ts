import { parseArgs } from 'node:util'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify from 'fastify'
import type { Config } from '../config/config.js'
import { loadConfig } from '../config/load-config.js'
import { createLogger } from '../observability/logger.js'
import { problemDetails } from '../plugins/problem-details.js'
import type { Problem } from '../problems/problem.js'
import { defaultLimits, serverOptions } from '../server-options.js'
import { toCaller } from '../services/auth/caller.js'
import { KybSession } from '../services/idenfy/schemas.js'
import { createClientIdentity } from '../services/kyb/client-identity.js'
import { createSessionPolicy, parsePolicy } from '../services/kyb/session-policy.js'

// For support, and for the author of the policy: shows what the service would request from iDenfy with this configuration.
// It calls no other service. Exit code 0: the request would be sent; 1: it would be refused; 2: wrong use.
const usage = 'Usage: node dist/commands/explain.js --company ID --user ID [--body JSON]'

/** Stands for the id that a request would have. */
const requestId = '00000000-0000-4000-8000-000000000000'

async function explain(config: Config, companyId: string, userId: string, body: string) {
  const policy = createSessionPolicy(parsePolicy(await config.readPolicy()))
  const templates = { clientId: config.KYB_CLIENT_ID, externalRef: config.KYB_EXTERNAL_REF }
  const identify = createClientIdentity(templates, config.KYB_IDENTITY_KEY)

  // Uses the parser, the validator and the problems of the service.
  const app = Fastify(
    serverOptions(createLogger('silent'), defaultLimits),
  ).withTypeProvider<TypeBoxTypeProvider>()
  await app.register(problemDetails)
  app.post('/', { schema: { body: KybSession } }, async ({ body }) => policy.sessionFor(companyId, body))
  const headers = { 'content-type': 'application/json' }
  const response = await app.inject({ method: 'POST', url: '/', headers, payload: body })

  const { code, status, errors } = response.json()
  const identity = identityOf(() => identify(toCaller(userId, companyId), requestId))
  return {
    isAccepted: response.statusCode === 200 && !('refused' in identity),
    explanation: {
      ...identity,
      callerMaySet: policy.permissionsOf(companyId),
      session: response.statusCode === 200 ? response.json() : { refused: { code, status, errors } },
    },
  }
}

function identityOf(identify: () => object): object {
  try {
    return identify()
  } catch (error) {
    const { code, status, options } = error as Problem
    return { refused: { code, status, ...options.diagnosis } }
  }
}

try {
  const { values } = parseArgs({
    options: { company: { type: 'string' }, user: { type: 'string' }, body: { type: 'string' } },
  })
  const { company, user, body = '{}' } = values
  if (company === undefined || user === undefined) throw new Error('--company and --user are required.')
  const { isAccepted, explanation } = await explain(loadConfig(), company, user, body)
  process.stdout.write(`${JSON.stringify(explanation, undefined, 2)}\n`)
  process.exitCode = isAccepted ? 0 : 1
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n${usage}\n`)
  process.exitCode = 2
}
