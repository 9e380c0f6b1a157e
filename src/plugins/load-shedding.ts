import { monitorEventLoopDelay } from 'node:perf_hooks'
import fp from 'fastify-plugin'
import { Problem } from '../problems/problem.js'

export interface LoadSheddingOptions {
  readonly maxEventLoopDelayMs: number
}

const resolutionMs = 10
const sampleMs = 1_000

/**
 * Load shedding: refuses requests while the event loop is late. The management listener has no such plugin and continues
 * to respond.
 *
 * Not @fastify/under-pressure: it reads the process memory every second. That throws when there are no file descriptors
 * left, and ends the process.
 */
export const loadShedding = fp<LoadSheddingOptions>(
  async (app, { maxEventLoopDelayMs }) => {
    const delay = monitorEventLoopDelay({ resolution: resolutionMs })
    delay.enable()
    let isLate = false
    const timer = setInterval(() => {
      isLate = delay.mean / 1e6 - resolutionMs > maxEventLoopDelayMs
      delay.reset()
    }, sampleMs).unref()

    app.addHook('onRequest', (_request, _reply, done) => {
      done(isLate ? new Problem('overloaded') : undefined)
    })
    app.addHook('onClose', async () => {
      clearInterval(timer)
      delay.disable()
    })
  },
  { name: 'load-shedding', fastify: '5.x', dependencies: ['problem-details'] },
)
