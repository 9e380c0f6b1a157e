// Builds the simulation and runs it, see `--help`. With `--revert <name>` it first takes back a fix of the service: the
// simulation must find the defect again.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('../..', import.meta.url))
const args = process.argv.slice(2)
const at = args.indexOf('--revert')
const [, name] = at < 0 ? [] : args.splice(at, 2)
const fixes = JSON.parse(readFileSync(new URL('reverted-fixes.json', import.meta.url), 'utf8'))
const fix = fixes.find((fix) => fix.name === name)
if (at >= 0 && !fix) {
  process.stderr.write(`--revert needs one of: ${fixes.map((fix) => fix.name).join(', ')}\n`)
  process.exit(1)
}

/** Changes the source text of the service while it is built. */
function takeBack(edits) {
  return {
    name: 'take-back',
    setup({ onLoad }) {
      onLoad({ filter: /\/src\/.*\.ts$/ }, ({ path }) => {
        const ofFile = edits.filter(({ file }) => path.endsWith(`/${file}`))
        if (ofFile.length === 0) return undefined
        let contents = readFileSync(path, 'utf8')
        for (const { find, replace } of ofFile) {
          const parts = contents.split(find)
          if (parts.length !== 2)
            throw new Error(`${path} has "${find}" ${parts.length - 1} times, and not once`)
          contents = parts.join(replace)
        }
        return { contents, loader: 'ts' }
      })
    },
  }
}

const outfile = `${root}dist-simulation/${name ?? 'main'}.js`
await build({
  entryPoints: [`${root}test/simulation/main.ts`],
  outfile,
  bundle: true,
  packages: 'external',
  platform: 'node',
  target: 'node20',
  format: 'esm',
  sourcemap: true,
  logLevel: 'warning',
  plugins: fix ? [takeBack(fix.edits)] : [],
})
const { status } = spawnSync(process.execPath, ['--enable-source-maps', outfile, ...args], {
  stdio: 'inherit',
})
process.exitCode = status ?? 1
