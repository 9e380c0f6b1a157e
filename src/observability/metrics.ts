import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { problems } from '../problems/catalog.js'

/** All label values come from closed lists and never from a request. See docs/operations.md. */
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
  /** Adds a counter with all its series. `labels` lists every value of each label. */
  counter<L extends string = never>(
    name: string,
    help: string,
    labels?: Readonly<Record<L, readonly string[]>>,
  ): Counter<L>
  /** Adds a gauge whose value is read when the metrics are collected. */
  gauge(name: string, help: string, read: () => number | Promise<number>): void
  /** Adds a gauge with a label and a series for each of its values. */
  gaugeByLabel(name: string, help: string, label: string, reads: Readonly<Record<string, () => number>>): void
}

/** Up to the default deadline of a call to iDenfy. */
const secondsBuckets = [0.01, 0.1, 0.5, 2, 8]

/** The default metrics that an operator acts on. The others are left out. */
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

export interface MetricLabels {
  /** Every reason for which an access token is refused. */
  readonly invalidTokenReasons: readonly string[]
  /** Every reason for which a response is no usable key set. */
  readonly keySetFaultCodes: readonly string[]
}

/** Creates the metrics of the service. They are served by the management listener. */
export function createMetrics({ invalidTokenReasons, keySetFaultCodes }: MetricLabels): Metrics {
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

  return {
    registry,
    requests: counter('http_requests_total', 'Finished requests, by outcome', {
      outcome: ['success', 'preflight', 'client-closed', ...problemCodes],
    }),
    requestSeconds: histogram(
      'http_request_duration_seconds',
      'Time from the first byte of a request to the last byte of its response',
    ),
    failedAuthentications: counter(
      'authentication_failures_total',
      'Requests whose authentication failed, by reason',
      { reason: ['unauthenticated', ...invalidTokenReasons] },
    ),
    failedKeyFetches: counter(
      'signing_key_fetch_failures_total',
      'Fetches of the signing keys without a usable result, by reason',
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
      'Duration of POSTs to iDenfy, from the first byte to the last',
    ),
    idenfyRetries: counter(
      'idenfy_retries_total',
      'Retries of a POST to iDenfy, by reason, and whether the budget allowed them',
      { reason: ['not-sent', 'rate-limited', 'new-credentials'], granted: ['true', 'false'] },
    ),
    idenfyDrifts: counter(
      'idenfy_contract_drifts_total',
      "Tokens whose response differed from iDenfy's documentation",
    ),
    kybTokens: counter(
      'kyb_tokens_total',
      'Tokens handed out: minted for the request, shared with one in flight, replayed, or stored under the idempotency key',
      { origin: ['minted', 'shared', 'replayed', 'idempotent'] },
    ),
    reloads: counter('reloads_total', 'Files that changed: taken, or refused because they are not usable', {
      what: reloaded,
      outcome: ['taken', 'refused'],
    }),
    counter,
    gauge(name, help, read) {
      new Gauge({
        name,
        help,
        registers,
        async collect() {
          this.set(await read())
        },
      })
    },
    gaugeByLabel(name, help, label, reads) {
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
  }
}

function combinations<L extends string>(labels: Readonly<Record<L, readonly string[]>>) {
  let all: Partial<Record<L, string>>[] = [{}]
  for (const [name, values] of Object.entries<readonly string[]>(labels)) {
    all = all.flatMap((chosen) => values.map((value) => ({ ...chosen, [name]: value })))
  }
  return all
}
