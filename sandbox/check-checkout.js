// Runs before every build, and says in one line what is missing.
import { accessSync, constants, existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

function findFault() {
  const missing = ['typescript', 'esbuild'].filter((name) => !existsSync(`${root}/node_modules/${name}`))
  if (missing.length > 0) {
    return `packages are missing: ${missing.join(', ')}. Run: npm ci --include=dev`
  }
  for (const folder of ['', '/dist', '/dist-sandbox', '/bundle']) {
    try {
      if (existsSync(root + folder)) accessSync(root + folder, constants.W_OK)
    } catch {
      return `${root}${folder} cannot be written. The build needs a folder that belongs to you.`
    }
  }
  return undefined
}

const fault = findFault()
if (fault) {
  process.stderr.write(`Cannot build: ${fault}\n`)
  process.exit(1)
}
