import { writeSync } from 'node:fs'

const shutdownSignals = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT'] as const
// Process 1 of a container ignores signals without a handler. Loading the other modules takes some time.
const stop = () => process.exit(0)
for (const signal of shutdownSignals) process.once(signal, stop)
// SIGUSR1 would open Node's inspector, SIGUSR2 would end the process.
for (const signal of ['SIGUSR1', 'SIGUSR2']) process.on(signal, () => {})

const { createLogOutput } = await import('./observability/log-output.js')
const logOutput = createLogOutput()

/** Writes one JSON line to stdout and a text to stderr, at every log level. */
function cannotStart(error: Error & { faults?: readonly string[] }): never {
  const { name, stack = '', message } = error
  // The message of another error may quote anything.
  const { faults = [`unexpected ${name}`, ...stack.replace(message, '').split('\n').slice(1)] } = error
  const line = { level: 'fatal', time: new Date().toISOString(), msg: 'cannot start', faults }
  logOutput.write(`${JSON.stringify(line)}\n`)
  try {
    writeSync(2, `onboarding-bff cannot start. ${error.faults ? message : faults.join('\n')}\n`)
  } catch {
    // stderr has no reader.
  }
  process.exit(1)
}
process.once('uncaughtException', cannotStart)

try {
  const { createLogger } = await import('./observability/logger.js')
  const logger = createLogger('info', logOutput)
  const { captureConsole } = await import('./observability/capture-console.js')
  captureConsole(logger)
  const { parseArguments } = await import('./config/command-line.js')
  const { checkOnly } = parseArguments(process.argv.slice(2))
  const { forgetDebug, loadConfig } = await import('./config/load-config.js')
  forgetDebug()
  const config = loadConfig()
  if (checkOnly) {
    writeSync(1, `${JSON.stringify(config.settings, undefined, 2)}\n`)
    process.exit(0)
  }

  logger.level = config.LOG_LEVEL
  const { default: closeWithGrace } = await import('close-with-grace')
  const { buildApp, buildManagementApp } = await import('./app.js')
  const { listenOn } = await import('./listen.js')
  const app = await buildApp(config, { logger, logOutput })
  const management = await buildManagementApp(app, { logger })
  process.once('exit', () => {
    // Node would wait for the thread that hangs in a read or a lookup. Only SIGKILL ends the process then.
    /* c8 ignore next -- a process that is killed reports no coverage */
    if (app.isReadingHung() || app.idenfyConnections.isLookupHung()) process.kill(process.pid, 'SIGKILL')
  })

  const skip = ['SIGILL', 'SIGTRAP', 'SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGSEGV', 'SIGUSR2'] as const
  closeWithGrace({ delay: config.SHUTDOWN_TIMEOUT_MS, logger, skip: [...skip] }, async ({ err, signal }) => {
    logger[signal ? 'info' : 'fatal']({ err, signal }, 'shutting down')
    await app.drain(config.DRAIN_DELAY_MS)
    await app.close()
    await management.close()
    // A rejection without a reason is an error too.
    if (!signal && !err) process.exit(1)
  })
  for (const signal of shutdownSignals) process.off(signal, stop)
  process.off('uncaughtException', cannotStart)

  await listenOn(app, config, '')
  await listenOn(management, config, 'MANAGEMENT_')
  logger.info(
    {
      addresses: app.addresses(),
      managementAddresses: management.addresses(),
      idenfyEnvironment: config.IDENFY_ENVIRONMENT,
      settings: config.settings,
    },
    'started',
  )
} catch (error) {
  cannotStart(error as Error)
}
