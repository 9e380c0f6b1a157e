import { execFile, spawnSync } from 'node:child_process'
import { join, resolve } from 'node:path'
import type { Test } from 'tap'
import { build, createClock, type Overrides, signer } from './helper.js'

const isInstalled = spawnSync('promtool', ['--version']).status === 0

/**
 * For tests that need promtool: an option that skips them where there is none, saying how to get it. In CI they fail
 * instead.
 */
export const needsPromtool =
  isInstalled || process.env.CI
    ? {}
    : { skip: 'promtool is not installed; on Debian: apt-get install prometheus' }

export const rulesFile = 'deploy/prometheus-rules.yaml'

interface Target {
  readonly metrics: () => Promise<string>
  readonly startedAt: number
}

export interface PrometheusOptions {
  /** Between two scrapes. */
  readonly everySeconds?: number
  /** Moves the clocks of what is scraped. */
  readonly pass?: (seconds: number) => void
}

/**
 * A Prometheus with the rules of deploy/: it collects what services really say, and promtool evaluates it. Its time
 * begins at 0 and goes on with {@link wait} alone.
 */
export function createPrometheus({ everySeconds = 60, pass = () => {} }: PrometheusOptions = {}) {
  const targets = new Map<string, Target>()
  /** Values of each series, by the number of the scrape. */
  const collected = new Map<string, string[]>()
  const checks: { readonly scrapes: number; readonly expr: string; readonly alerts: readonly string[] }[] = []
  let scrapes = 0

  async function scrape(): Promise<void> {
    for (const [instance, { metrics, startedAt }] of targets) {
      for (const [, name, labels = '', value] of (await metrics()).matchAll(samplePattern)) {
        const series = `${name}{${labels}${labels && ','}instance="${instance}"}`
        const values = collected.get(series) ?? []
        collected.set(series, values)
        // The rest of the process is younger or older than the time of this Prometheus.
        values[scrapes] = name === 'process_start_time_seconds' ? String(startedAt) : String(value)
      }
    }
    scrapes += 1
  }

  return {
    /** From now on scrapes what has just started; under the name of an instance that was there, it takes its place. */
    add(instance: string, metrics: () => Promise<string>): void {
      targets.set(instance, { metrics, startedAt: scrapes * everySeconds })
    },
    /** The instance is gone, or is being restarted. */
    remove(instance: string): void {
      targets.delete(instance)
    },
    /** Lets time pass, with all its scrapes. */
    async wait(minutes: number): Promise<void> {
      for (let seconds = 0; seconds < minutes * 60; seconds += everySeconds) {
        pass(everySeconds)
        await scrape()
      }
    },
    /** That these alerts fire at the last scrape, and no others: by name, and reason where the alert has one. */
    expect(...alerts: string[]): void {
      checks.push({ scrapes, expr: 'group by (alertname, reason) (ALERTS{alertstate="firing"})', alerts })
    },
    /** That no alert has fired at any scrape. */
    expectNoneSoFar(): void {
      const window = `${scrapes * everySeconds}s`
      const fired = `count_over_time(ALERTS{alertstate="firing"}[${window}])`
      checks.push({ scrapes, expr: `group by (alertname, reason) (${fired})`, alerts: [] })
    },
    /** Lets promtool evaluate the rules. */
    async check(t: Test): Promise<void> {
      const document = {
        rule_files: [resolve(rulesFile)],
        evaluation_interval: `${everySeconds}s`,
        tests: [
          {
            interval: `${everySeconds}s`,
            input_series: [...collected].map(([series, values]) => ({
              series,
              values: describeValues(values, scrapes),
            })),
            promql_expr_test: checks.map(({ scrapes, expr, alerts }) => ({
              expr,
              eval_time: `${(scrapes - 1) * everySeconds}s`,
              exp_samples: alerts.map((alert) => {
                const [alertname, reason] = alert.split(' ')
                return {
                  labels: `{alertname="${alertname}"${reason ? `,reason="${reason}"` : ''}}`,
                  value: 1,
                }
              }),
            })),
          },
        ],
      }
      // JSON is YAML.
      const directory = t.testdir({ 'test.yaml': JSON.stringify(document) })
      const { failed, output } = await promtool('test', 'rules', join(directory, 'test.yaml'))
      t.not(checks.length, 0, 'the scenario expects something')
      t.notOk(failed, `alerts as expected at ${checks.length} moments\n${output}`)
    },
  }
}

export type Prometheus = ReturnType<typeof createPrometheus>

/** A service on which a test's clocks run, scraped as the instance `a`. */
export async function startMonitored(t: Test, overrides: Overrides = {}, everySeconds = 60) {
  const { clocks, pass } = createClock()
  const prometheus = createPrometheus({ pass, everySeconds })
  /** Another instance. */
  const start = async (name: string, more: Overrides = {}) => {
    const service = await build(t, { ...clocks, ...overrides, ...more })
    prometheus.add(name, service.metrics)
    return service
  }
  const service = await start('a')
  let users = 0
  return {
    ...service,
    ...prometheus,
    start,
    /** So many requests, each by another user, one after the other. */
    async mintFor(count: number, claims: object = {}, header: Record<string, unknown> = {}, by = signer) {
      for (let i = 0; i < count; i++) {
        users += 1
        await service.mint({ token: await service.token({ sub: `u-${users}`, ...claims }, header, by) })
      }
    },
  }
}

export async function promtool(...args: string[]): Promise<{ failed: boolean; output: string }> {
  const timeout = 100_000
  return new Promise((resolve) =>
    execFile('promtool', args, { timeout }, (error, stdout, stderr) => {
      const end = error?.killed ? `\npromtool did not end within ${timeout / 1000} s` : ''
      resolve({ failed: error !== null, output: stdout + stderr + end })
    }),
  )
}

const samplePattern = /^([a-z0-9_]+)(?:\{(.*)\})? (\S+)$/gm

/** In promtool's notation: `_` is a scrape without the series, `stale` says that it has ended. */
function describeValues(values: readonly string[], scrapes: number): string {
  const described: string[] = []
  for (let scrape = 0; scrape < scrapes; scrape++) {
    const value = values[scrape]
    const isEnd = value === undefined && values[scrape - 1] !== undefined
    described.push(value ?? (isEnd ? 'stale' : '_'))
  }
  return described.join(' ')
}
