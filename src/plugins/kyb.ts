import { rootCertificates } from 'node:tls'
import fp from 'fastify-plugin'
import { Pool } from 'undici'
import type { Config } from '../config.js'
import { createClientIdentity } from '../services/client-identity.js'
import { createIdenfyClient } from '../services/idenfy/client.js'
import { createKybTokens, type KybTokens } from '../services/kyb-tokens.js'
import { createSessionPolicy } from '../services/session-policy.js'

declare module 'fastify' {
  interface FastifyInstance {
    kybTokens: KybTokens
  }
}

export interface KybOptions {
  readonly config: Config
  readonly now: () => number
}

const maxAnswerBytes = 64 * 1024

/** Builds the KYB services and owns the connections to iDenfy. */
export const kyb = fp<KybOptions>(
  async (app, { config, now }) => {
    const pool = new Pool(config.IDENFY_BASE_URL, {
      connect: {
        timeout: config.IDENFY_CONNECT_TIMEOUT_MS,
        minVersion: 'TLSv1.2',
        ...(config.idenfyCa && { ca: [...rootCertificates, config.idenfyCa] }),
      },
      maxResponseSize: maxAnswerBytes,
    })
    app.addHook('onClose', async () => pool.close())

    const templates = { clientId: config.KYB_CLIENT_ID, externalRef: config.KYB_EXTERNAL_REF }
    app.decorate(
      'kybTokens',
      createKybTokens({
        policy: createSessionPolicy(config.sessionPolicy),
        identify: createClientIdentity(templates, config.KYB_IDENTITY_KEY),
        idenfy: createIdenfyClient({
          dispatcher: pool,
          apiKey: config.IDENFY_API_KEY,
          apiSecret: config.IDENFY_API_SECRET,
          timeoutMs: config.IDENFY_TIMEOUT_MS,
          now,
          logger: app.log,
        }),
        uiUrl: config.IDENFY_UI_URL,
        now,
      }),
    )
  },
  { name: 'kyb', fastify: '5.x' },
)
