import { monitorEventLoopDelay } from 'node:perf_hooks'
import fp from 'fastify-plugin'
import { Problem } from '../problems/problem.js'

export interface OverloadOptions {
  readonly maxEventLoopDelayMs: number
}

const resolutionMs = 10
const sampleMs = 1_000

/**
 * Sheds load while the event loop is late. The management listener has no such plugin and continues to respond.
 *
 * Not by @fastify/under-pressure: it reads the memory of the process every second, which throws when there are no file
 * descriptors left, and ends the process.
 */
export const overload = fp<OverloadOptions>(
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
  { name: 'overload', fastify: '5.x', dependencies: ['problem-details'] },
)
