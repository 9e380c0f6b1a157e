import { loadConfig } from '../config/load-config.js'
import { runExplain } from './explain-command.js'

process.exitCode = await runExplain(process.argv.slice(2), 'node dist/commands/explain.js', loadConfig)
