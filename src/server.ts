// Process 1 of a container loses a signal that it has no handler for, and loading the rest takes a while.
const stop = () => process.exit(0)
process.once('SIGTERM', stop).once('SIGINT', stop)
const { default: closeWithGrace } = await import('close-with-grace')
const { buildApp, buildManagementApp, listen } = await import('./app.js')
const { loadConfig } = await import('./config.js')
const { createLogOutput } = await import('./log-output.js')
const { createLogger } = await import('./logger.js')

try {
  const config = loadConfig()
  const logOutput = createLogOutput()
  const logger = createLogger(config.LOG_LEVEL, logOutput)
  const app = await buildApp(config, { logger, droppedLogLines: logOutput.droppedLines })
  const management = await buildManagementApp(app, { logger })

  closeWithGrace({ delay: config.SHUTDOWN_TIMEOUT_MS, logger }, async ({ err, signal }) => {
    logger[signal ? 'info' : 'fatal']({ err, signal }, 'shutting down')
    await app.drain(config.DRAIN_DELAY_MS)
    await app.close()
    await management.close()
    // A rejection without a reason is no normal end.
    if (!signal && !err) process.exit(1)
  })
  process.off('SIGTERM', stop).off('SIGINT', stop)

  await listen(app, config.HOST, config.PORT)
  await listen(management, config.MANAGEMENT_HOST, config.MANAGEMENT_PORT)
  logger.info(
    {
      addresses: app.addresses(),
      managementAddresses: management.addresses(),
      idenfyEnvironment: config.IDENFY_ENVIRONMENT,
    },
    'started',
  )
} catch (error) {
  process.stderr.write(`onboarding-bff cannot start. ${(error as Error).message}\n`)
  process.exit(1)
}
