import fp from 'fastify-plugin'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Config } from '../config/config.js'
import { problems } from '../problems/catalog.js'
import { invalidTokenReasons } from '../services/auth/access-token.js'
import { keySetFaultCodes } from '../services/auth/key-set.js'
import { version } from '../version.js'

declare module 'fastify' {
  interface FastifyInstance {
    metrics: Metrics
  }
}

/** Every label takes its values from a closed list, none from a request: see docs/operations.md. */
export interface Metrics {
  readonly registry: Registry
  /** By `success`, `client-closed` or problem code. */
  readonly requests: Counter<'outcome'>
  readonly requestSeconds: Histogram
  readonly failedAuthentications: Counter<'reason'>
  readonly failedKeyFetches: Counter<'reason'>
  /** By `success` or problem code. */
  readonly idenfyRequests: Counter<'outcome'>
  /** By the class of the failure, as in the log. */
  readonly idenfyFailures: Counter<'class'>
  readonly idenfySeconds: Histogram
  readonly idenfyRetries: Counter<'reason' | 'granted'>
  readonly idenfyDrifts: Counter
  readonly kybTokens: Counter<'origin'>
  readonly reloads: Counter<'what' | 'outcome'>
  /** Adds a counter with all its series, by label: every value that the label can have. */
  counter<L extends string = never>(
    name: string,
    help: string,
    labels?: Readonly<Record<L, readonly string[]>>,
  ): Counter<L>
  /** Adds a gauge whose value is read when it is asked for. */
  observe(name: string, help: string, read: () => number | Promise<number>): void
  /** The same with a label, for each of its values. */
  observeEach(name: string, help: string, label: string, reads: Readonly<Record<string, () => number>>): void
}

export interface MetricsOptions {
  readonly config: Config
  readonly logOutput: { droppedLines(): number; isFailing(): boolean }
}

/** Up to the default deadline of a call to iDenfy. */
const secondsBuckets = [0.01, 0.1, 0.5, 2, 8]

/** Of the default metrics those that somebody acts on; the others are many. */
const nodeMetrics = new Set([
  'process_cpu_user_seconds_total',
  'process_cpu_system_seconds_total',
  'process_start_time_seconds',
  'process_resident_memory_bytes',
  'process_open_fds',
  'process_max_fds',
  'nodejs_eventloop_lag_seconds',
  'nodejs_eventloop_lag_p99_seconds',
  'nodejs_heap_size_total_bytes',
  'nodejs_heap_size_used_bytes',
])

const problemCodes = Object.keys(problems)
const providerCodes = problemCodes.filter((code) => code.startsWith('provider-'))
const failureClasses = [
  'request',
  'credentials',
  'funds',
  'contract',
  'endpoint',
  'tls',
  'connection',
  'egress-proxy',
]
const reloaded = ['credentials', 'identity-key', 'policy', 'state-key']

/** What this application counts, for the management listener. */
export const metrics = fp<MetricsOptions>(
  async (app, { config, logOutput }) => {
    const registry = new Registry()
    const registers = [registry]
    collectDefaultMetrics({ register: registry })
    for (const { name } of registry.getMetricsAsArray()) {
      if (!nodeMetrics.has(name)) registry.removeSingleMetric(name)
    }
    /** Every series is there from the start, at 0: `increase` does not see a series that begins at 1. */
    function counter<L extends string = never>(
      name: string,
      help: string,
      labels = {} as Readonly<Record<L, readonly string[]>>,
    ) {
      const created = new Counter<L>({ name, help, labelNames: Object.keys(labels) as L[], registers })
      for (const values of combinations(labels)) created.inc(values, 0)
      return created
    }
    const histogram = (name: string, help: string) =>
      new Histogram({ name, help, buckets: secondsBuckets, registers })

    app.decorate('metrics', {
      registry,
      requests: counter('http_requests_total', 'Finished requests, by outcome', {
        outcome: ['success', 'preflight', 'client-closed', ...problemCodes],
      }),
      requestSeconds: histogram(
        'http_request_duration_seconds',
        'From the first byte of a request to the last of its response',
      ),
      failedAuthentications: counter(
        'authentication_failures_total',
        'Requests whose authentication failed, by reason',
        { reason: ['unauthenticated', ...invalidTokenReasons] },
      ),
      failedKeyFetches: counter(
        'signing_key_fetch_failures_total',
        'Fetches of the signing keys that brought no usable set, by reason',
        { reason: ['unreachable', ...keySetFaultCodes] },
      ),
      idenfyRequests: counter('idenfy_requests_total', 'POSTs to iDenfy, by outcome', {
        outcome: ['success', 'internal-error', 'kyb-session-conflict', ...providerCodes],
      }),
      idenfyFailures: counter(
        'idenfy_failures_total',
        'POSTs to iDenfy that it refused or that could not be sent, by class',
        { class: failureClasses },
      ),
      idenfySeconds: histogram(
        'idenfy_request_duration_seconds',
        'POSTs to iDenfy, from the first byte to the last',
      ),
      idenfyRetries: counter(
        'idenfy_retries_total',
        'Retries of a POST to iDenfy, by reason, and those that the budget held back',
        { reason: ['not-sent', 'rate-limited', 'new-credentials'], granted: ['true', 'false'] },
      ),
      idenfyDrifts: counter(
        'idenfy_contract_drifts_total',
        "Tokens that came in another way than iDenfy's document says",
      ),
      kybTokens: counter(
        'kyb_tokens_total',
        'Tokens handed out: minted for the request, shared with one in flight, replayed, or stored under its key',
        { origin: ['minted', 'shared', 'replayed', 'idempotent'] },
      ),
      reloads: counter('reloads_total', 'Files that changed: taken, or not usable and the old value kept', {
        what: reloaded,
        outcome: ['taken', 'refused'],
      }),
      counter,
      observe(name, help, read) {
        new Gauge({
          name,
          help,
          registers,
          async collect() {
            this.set(await read())
          },
        })
      },
      observeEach(name, help, label, reads) {
        new Gauge({
          name,
          help,
          labelNames: [label],
          registers,
          collect() {
            for (const [value, read] of Object.entries(reads)) this.set({ [label]: value }, read())
          },
        })
      },
    })
    const droppedConnections = counter(
      'http_connections_dropped_total',
      'Connections that were closed at once, because there were too many',
    )
    app.server.on('drop', () => droppedConnections.inc())
    new Counter({
      name: 'log_lines_dropped_total',
      help: 'Lines that nobody read, or that could not be written',
      registers,
      collect() {
        this.reset()
        this.inc(logOutput.droppedLines())
      },
    })
    app.metrics.observe('log_output_failing', 'Whether the last write of the log failed', () =>
      Number(logOutput.isFailing()),
    )
    new Gauge({
      name: 'build_info',
      help: 'What runs here',
      labelNames: ['version', 'node', 'idenfy_environment'],
      registers,
    }).set({ version, node: process.version, idenfy_environment: config.IDENFY_ENVIRONMENT }, 1)
  },
  { name: 'metrics', fastify: '5.x' },
)

function combinations<L extends string>(labels: Readonly<Record<L, readonly string[]>>) {
  let all: Partial<Record<L, string>>[] = [{}]
  for (const [name, values] of Object.entries<readonly string[]>(labels)) {
    all = all.flatMap((chosen) => values.map((value) => ({ ...chosen, [name]: value })))
  }
  return all
}
