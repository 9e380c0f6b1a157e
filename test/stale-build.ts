import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'

/** The folders of source code that each folder of built code is made from. */
const sourcesOf: Readonly<Record<string, readonly string[]>> = {
  dist: ['src'],
  bundle: ['src'],
  'dist-sandbox': ['src', 'sandbox'],
}

interface Change {
  readonly path: string
  readonly atMs: number
}

const lastChanges = new Map<string, Change>()

/** The last change in a folder, read once per process. A folder changes when a file in it is added or removed. */
function lastChangeIn(root: string, folder: string): Change {
  const known = lastChanges.get(join(root, folder))
  if (known) return known
  const inside = readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
  const changes = [folder, ...inside.map((path) => join(folder, path))].map((path) => ({
    path,
    atMs: statSync(join(root, path)).mtimeMs,
  }))
  const last = changes.reduce((a, b) => (b.atMs > a.atMs ? b : a))
  lastChanges.set(join(root, folder), last)
  return last
}

/**
 * Makes sure that a test does not run old code.
 *
 * @throws an error if the built file is missing, or older than its sources
 */
export function refuseStaleBuild(entry: string, root = '.'): void {
  const [output = ''] = entry.split('/')
  const built = statSync(join(root, entry), { throwIfNoEntry: false })
  if (!built) throw new Error(`${entry} does not exist; run npm run build`)
  for (const folder of sourcesOf[output] ?? []) {
    const { path, atMs } = lastChangeIn(root, folder)
    if (atMs > built.mtimeMs) throw new Error(`${output} is older than ${path}; run npm run build`)
  }
}
