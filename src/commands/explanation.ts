import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify from 'fastify'
import { systemClock } from '../clock.js'
import { authenticationSettings } from '../config/authentication-settings.js'
import type { Config } from '../config/config.js'
import { createLogger } from '../observability/logger.js'
import { problemDetails } from '../plugins/problem-details.js'
import { Problem } from '../problems/problem.js'
import { defaultLimits, serverOptions } from '../server-options.js'
import { createAuthenticator } from '../services/auth/authenticator.js'
import { type Caller, toCaller } from '../services/auth/caller.js'
import { KybSession } from '../services/idenfy/schemas.js'
import { createClientIdentity } from '../services/kyb/client-identity.js'
import { createSessionPolicy, parsePolicy } from '../services/kyb/session-policy.js'
import { version } from '../version.js'
import { type KeySetFindings, type TokenCheck, tokenChecks } from './token-checks.js'

/** Stands for the id that a request would have. */
const requestId = '00000000-0000-4000-8000-000000000000'

/** What the service would do, and whether it would send a request to iDenfy. */
export interface Explanation {
  readonly isAccepted: boolean
  readonly explanation: Readonly<Record<string, unknown>> & { readonly token?: readonly TokenCheck[] }
}

/** Verifies an access token as the service does. It fetches the signing keys and calls no other service. */
export async function explainToken(
  config: Config,
  accessToken: string,
  requestedCompanyId: string | undefined,
  body: string,
): Promise<Explanation> {
  const settings = authenticationSettings(config)
  const keySet: KeySetFindings = { ignored: [] }
  const { authenticate, close } = createAuthenticator(settings, {
    userAgent: `onboarding-bff/${version}`,
    onFetchFailed: (error) => {
      keySet.fault = (error as Error).message
    },
    onKeysIgnored: (ignored) => {
      keySet.ignored = ignored
    },
    clock: systemClock,
  })
  try {
    const result = await authenticate(accessToken, requestedCompanyId).catch((error) => {
      if (error instanceof Problem) return error
      /* c8 ignore next -- only a bug of the service */
      throw error
    })
    const refusal = result instanceof Problem ? result : undefined
    const token = tokenChecks(accessToken, settings, refusal, keySet, systemClock.now())
    if (result instanceof Problem) return { isAccepted: false, explanation: { token, ...refusalOf(result) } }
    const { isAccepted, explanation } = await explainRequest(config, result, body)
    return { isAccepted, explanation: { token, caller: result, ...explanation } }
  } finally {
    await close()
  }
}

/** What the service would request from iDenfy for this user of this company. It calls no other service. */
export async function explainRequest(
  config: Config,
  { companyId, userId }: Caller,
  body: string,
): Promise<Explanation> {
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
    return refusalOf(error as Problem)
  }
}

function refusalOf({ code, status, options: { detail, companyIds, diagnosis } }: Problem) {
  return {
    refused: {
      code,
      status,
      ...(detail && { reason: detail }),
      ...(companyIds && { companyIds }),
      ...diagnosis,
    },
  }
}
