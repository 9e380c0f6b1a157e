import fp from 'fastify-plugin'
import { Counter, Gauge, Registry } from 'prom-client'

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
  /** By `success` or problem code. */
  readonly idenfyRequests: Counter<'outcome'>
  /** By reason, and whether the budget let it through. */
  readonly idenfyRetries: Counter<'reason' | 'granted'>
  readonly idenfyDrifts: Counter
  /** By origin: `minted`, `shared`, `replayed`, `idempotent`. */
  readonly kybTokens: Counter<'origin'>
  /** Adds a gauge whose value is read when it is asked for. */
  observe(name: string, help: string, read: () => number): void
}

/** Counters of this application, for the management listener. No label takes a value from a request. */
export const metrics = fp(
  async (app) => {
    const registry = new Registry()
    const counter = <L extends string = never>(name: string, help: string, ...labelNames: L[]) =>
      new Counter<L>({ name, help, labelNames, registers: [registry] })

    app.decorate('metrics', {
      registry,
      failedAuthentications: counter(
        'authentication_failures_total',
        'Requests whose authentication failed, by reason',
        'reason',
      ),
      failedKeyFetches: counter(
        'signing_key_fetch_failures_total',
        'Fetches of the signing keys that brought no usable set, by reason',
        'reason',
      ),
      idenfyRequests: counter('idenfy_requests_total', 'POSTs to iDenfy, by outcome', 'outcome'),
      idenfyRetries: counter(
        'idenfy_retries_total',
        'Repetitions of a POST to iDenfy, by reason, and those that the budget held back',
        'reason',
        'granted',
      ),
      idenfyDrifts: counter(
        'idenfy_contract_drifts_total',
        "Tokens that came in another way than iDenfy's document says",
      ),
      kybTokens: counter(
        'kyb_tokens_total',
        'Tokens handed out: minted for the request, shared with one in flight, replayed, or stored under its key',
        'origin',
      ),
      observe(name, help, read) {
        new Gauge({
          name,
          help,
          registers: [registry],
          collect() {
            this.set(read())
          },
        })
      },
    })
  },
  { name: 'metrics', fastify: '5.x' },
)
