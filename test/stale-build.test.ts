import { mkdirSync, rmSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { spawnNode } from './helper.js'
import { refuseStaleBuild } from './stale-build.js'

const paths = [
  'src/app.ts',
  'src/routes/token.ts',
  'src/routes',
  'src',
  'sandbox/demo/form.html',
  'sandbox/demo',
  'sandbox',
  'dist/server.js',
  'bundle/server.js',
  'dist-sandbox/server.js',
]

/** A repository whose sources are all older than its built files. */
function buildRepository(t: Test): { root: string; touch: (path: string, seconds: number) => void } {
  const root = t.testdir({
    src: { 'app.ts': '', routes: { 'token.ts': '' } },
    sandbox: { demo: { 'form.html': '' } },
    dist: { 'server.js': '' },
    bundle: { 'server.js': '' },
    'dist-sandbox': { 'server.js': '' },
  })
  const touch = (path: string, seconds: number) => utimesSync(join(root, path), seconds, seconds)
  for (const path of paths) touch(path, /^(dist|bundle)/.test(path) ? 2000 : 1000)
  return { root, touch }
}

t.test('a build that is newer than its sources is accepted', async (t) => {
  const { root } = buildRepository(t)
  for (const entry of ['dist/server.js', 'bundle/server.js', 'dist-sandbox/server.js'])
    t.doesNotThrow(() => refuseStaleBuild(entry, root), entry)
})

t.test('a build that is older than one of its sources is refused', async (t) => {
  const rows: [entry: string, changed: string][] = [
    ['dist/server.js', 'src/app.ts'],
    ['bundle/server.js', 'src/routes/token.ts'],
    ['dist-sandbox/server.js', 'src/app.ts'],
    ['dist-sandbox/server.js', 'sandbox/demo/form.html'],
  ]
  for (const [entry, changed] of rows) {
    await t.test(`${entry}, ${changed}`, async (t) => {
      const { root, touch } = buildRepository(t)
      touch(changed, 3000)
      const [output] = entry.split('/')
      const message = `${output} is older than ${changed}; run npm run build`
      t.throws(() => refuseStaleBuild(entry, root), { message })
      t.throws(() => refuseStaleBuild(entry, root), { message }, 'and is refused again')
    })
  }
})

t.test('a build that is older than a file added to or removed from a folder is refused', async (t) => {
  await t.test('removed', async (t) => {
    const { root } = buildRepository(t)
    rmSync(join(root, 'src/routes/token.ts'))
    t.throws(() => refuseStaleBuild('dist/server.js', root), {
      message: 'dist is older than src/routes; run npm run build',
    })
  })
  await t.test('added', async (t) => {
    const { root } = buildRepository(t)
    mkdirSync(join(root, 'src/plugins'))
    utimesSync(join(root, 'src/plugins'), 1000, 1000)
    t.throws(() => refuseStaleBuild('dist/server.js', root), {
      message: 'dist is older than src; run npm run build',
    })
  })
})

t.test('the service does not depend on the sandbox', async (t) => {
  const { root, touch } = buildRepository(t)
  touch('sandbox/demo/form.html', 3000)
  t.doesNotThrow(() => refuseStaleBuild('dist/server.js', root))
  t.doesNotThrow(() => refuseStaleBuild('bundle/server.js', root))
})

t.test('a file that was not built is refused', async (t) => {
  const { root } = buildRepository(t)
  t.throws(() => refuseStaleBuild('dist/other.js', root), {
    message: 'dist/other.js does not exist; run npm run build',
  })
  t.throws(() => spawnNode(t, ['--no-warnings', 'dist/other.js'], {}), {
    message: 'dist/other.js does not exist; run npm run build',
  })
})
