import { runExplain } from '../src/commands/explain-command.js'
import { loadSandboxConfig, loadServiceConfig, urlHostOf } from './config.js'

/** `explain` with the configuration of the service in the sandbox, which must run for `--token-file`. */
process.exitCode = await runExplain(process.argv.slice(2), 'npm run sandbox:explain --', () => {
  const config = loadSandboxConfig()
  const urlAt = (port: number) => `http://${urlHostOf(config)}:${port}`
  const { serviceConfig, ignored } = loadServiceConfig(config, {
    idenfyUrl: urlAt(config.SANDBOX_IDENFY_PORT),
    identityUrl: urlAt(config.SANDBOX_IDENTITY_PORT),
    demoUrl: urlAt(config.SANDBOX_DEMO_PORT),
  })
  if (ignored.length > 0) {
    process.stderr.write(`Ignored, because the sandbox sets them itself: ${ignored.join(', ')}\n`)
  }
  return serviceConfig
})
