import underPressure from '@fastify/under-pressure'
import fp from 'fastify-plugin'
import { Problem } from '../problems.js'

export interface OverloadOptions {
  readonly maxEventLoopDelayMs: number
}

/** Sheds load while the event loop is late. The management listener has no such plugin and goes on answering. */
export const overload = fp<OverloadOptions>(
  async (app, { maxEventLoopDelayMs }) => {
    await app.register(underPressure, {
      maxEventLoopDelay: maxEventLoopDelayMs,
      pressureHandler: () => {
        throw new Problem('overloaded')
      },
    })
  },
  { name: 'overload', fastify: '5.x', dependencies: ['problem-details'] },
)
