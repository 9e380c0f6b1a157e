import fp from 'fastify-plugin'
import { Counter, Gauge } from 'prom-client'
import { createMetrics, type Metrics } from '../observability/metrics.js'
import { invalidTokenReasons } from '../services/auth/access-token.js'
import { keySetFaultCodes } from '../services/auth/key-set.js'
import { version } from '../version.js'

declare module 'fastify' {
  interface FastifyInstance {
    metrics: Metrics
  }
}

export interface MetricsOptions {
  readonly logOutput: { droppedLines(): number; isFailing(): boolean }
}

/** The metrics of the service, and those of the process, its log and its listener. */
export const metrics = fp<MetricsOptions>(
  async (app, { logOutput }) => {
    app.decorate('metrics', createMetrics({ invalidTokenReasons, keySetFaultCodes }))
    const { counter, gauge, registry } = app.metrics
    const registers = [registry]
    const droppedConnections = counter(
      'http_connections_dropped_total',
      'Connections that were closed at once because there were too many',
    )
    app.server.on('drop', () => droppedConnections.inc())
    new Counter({
      name: 'log_lines_dropped_total',
      help: 'Log lines that were dropped because they could not be written',
      registers,
      collect() {
        this.reset()
        this.inc(logOutput.droppedLines())
      },
    })
    gauge('log_output_failing', 'Whether the last write of the log failed', () =>
      Number(logOutput.isFailing()),
    )
    new Gauge({
      name: 'build_info',
      help: 'Version of the service and of Node',
      labelNames: ['version', 'node', 'idenfy_environment'],
      registers,
    }).set({ version, node: process.version, idenfy_environment: app.config.IDENFY_ENVIRONMENT }, 1)
  },
  { name: 'metrics', fastify: '5.x' },
)
