import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync } from 'node:fs'
import t, { type Test } from 'tap'

/** Root may write anywhere, unless it runs without that capability. */
const asUser = process.getuid?.() === 0 ? ['setpriv', '--bounding-set', '-dac_override'] : []
const missing = asUser.length > 0 && spawnSync('setpriv', ['--version']).error && 'there is no setpriv'

/** Runs the check in a folder that has only it and these packages. */
function check(t: Test, packages: readonly string[], mode = 0o755) {
  const root = t.testdir({ sandbox: {}, node_modules: {}, 'package.json': '{"type":"module"}' })
  copyFileSync('sandbox/check-checkout.js', `${root}/sandbox/check-checkout.js`)
  for (const name of packages) mkdirSync(`${root}/node_modules/${name}`)
  chmodSync(root, mode)
  // `env -i` also removes the coverage, which writes files.
  const [command = '', ...args] = [
    ...asUser,
    'env',
    '-i',
    process.execPath,
    `${root}/sandbox/check-checkout.js`,
  ]
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' })
  chmodSync(root, 0o755)
  return { root, status, output: stdout + stderr }
}

t.test('one line says which packages are missing', { skip: missing }, async (t) => {
  const { status, output } = check(t, ['typescript'])
  t.equal(status, 1)
  t.equal(output, 'Cannot build: packages are missing: esbuild. Run: npm ci --include=dev\n')
})

t.test('one line says that the folder cannot be written', { skip: missing }, async (t) => {
  const { root, status, output } = check(t, ['typescript', 'esbuild'], 0o555)
  t.equal(status, 1)
  t.equal(output, `Cannot build: ${root} cannot be written. The build needs a folder that belongs to you.\n`)
})

t.test('a complete checkout passes', { skip: missing }, async (t) => {
  t.match(check(t, ['typescript', 'esbuild']), { status: 0, output: '' })
})
