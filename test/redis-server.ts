import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { Redis, type RedisOptions } from 'ioredis'
import type { Test } from 'tap'
import { freePort } from './ports.js'
import { inTime, until } from './waiting.js'

const isInstalled = spawnSync('redis-server', ['--version']).status === 0

/**
 * For tests that need a Redis: an option that skips them where there is none, saying how to get one. In CI they fail
 * instead.
 */
export const needsRedis =
  isInstalled || process.env.CI
    ? {}
    : { skip: 'redis-server is not installed; on Debian: apt-get install redis-server' }

export const stateKey = Buffer.alloc(32, 'k').toString('base64')

/** A Redis of its own on a free port, without files. Of each setting the last counts. */
export async function startRedis(
  t: Test,
  settings: (port: string) => readonly string[] = () => [],
  configFile: readonly string[] = [],
) {
  const port = await freePort(t)
  const start = async () => {
    const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
    const child = spawn('redis-server', [...configFile, ...args, ...settings(String(port))], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    // For a process that ends before its teardown. A frozen Redis would outlive it.
    const kill = () => child.kill('SIGKILL')
    process.once('exit', kill)
    child.once('exit', () => process.off('exit', kill))
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (text) => {
      output += text
    })
    const isStarted = async () => {
      if (child.exitCode !== null) throw new Error(`redis-server ended: ${output}`)
      return /Ready to accept connections|Sentinel ID is/.test(output)
    }
    await until(isStarted, 'redis-server to accept connections')
    return child
  }
  let child = await start()
  const stop = async () => {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null)
      await inTime(once(child, 'exit'), 'redis-server to end')
  }
  t.teardown(stop)
  return {
    env: { REDIS_URL: `redis://127.0.0.1:${port}`, STATE_ENCRYPTION_KEY: stateKey },
    /** The process is gone, with all it knew. */
    stop,
    restart: async () => {
      child = await start()
    },
    /** The process is there and does not response. */
    freeze: () => child.kill('SIGSTOP'),
    thaw: () => child.kill('SIGCONT'),
  }
}

/** A client that looks into Redis. Its commands fail if they take too long. */
export function connectRedis(t: Test, url: string, options: RedisOptions = {}): Redis {
  const client = new Redis(url, { commandTimeout: 30_000, ...options })
  client.on('error', () => {})
  t.teardown(() => client.disconnect())
  return client
}
