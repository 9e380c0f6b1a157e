import { execFileSync } from 'node:child_process'
import { cpSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'

/** The size that the production image adds to its base. It runs the commands of the Dockerfile, so it needs no Docker. */
export function imageMegabytes(directory) {
  const app = join(directory, 'app')
  for (const file of ['package.json', 'package-lock.json']) cpSync(file, join(app, file))
  execFileSync('npm', ['ci', '--omit=dev', '--ignore-scripts', '--silent'], { cwd: app })
  const [, leftOut] = /find dist-sandbox node_modules (.*-delete)/.exec(readFileSync('Dockerfile', 'utf8'))
  execFileSync('sh', ['-c', `find node_modules ${leftOut}`], { cwd: app })
  cpSync('bundle', join(app, 'dist'), { recursive: true })
  return sizeOf(app) / 1024 / 1024
}

function sizeOf(directory) {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).size, 0)
}
