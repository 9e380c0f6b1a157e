import fp from 'fastify-plugin'
import { Counter, Registry } from 'prom-client'

declare module 'fastify' {
  interface FastifyInstance {
    metrics: Metrics
  }
}

export interface Metrics {
  readonly registry: Registry
  /** By reason, out of a closed list. */
  readonly failedAuthentications: Counter<'reason'>
  /** By reason, out of a closed list. */
  readonly failedKeyFetches: Counter<'reason'>
}

/** Counters of this application, for the management listener. No label takes a value from a request. */
export const metrics = fp(
  async (app) => {
    const registry = new Registry()
    const registers = [registry]
    app.decorate('metrics', {
      registry,
      failedAuthentications: new Counter({
        name: 'authentication_failures_total',
        help: 'Requests whose authentication failed, by reason',
        labelNames: ['reason'],
        registers,
      }),
      failedKeyFetches: new Counter({
        name: 'signing_key_fetch_failures_total',
        help: 'Fetches of the signing keys that brought no usable set, by reason',
        labelNames: ['reason'],
        registers,
      }),
    })
  },
  { name: 'metrics', fastify: '5.x' },
)
