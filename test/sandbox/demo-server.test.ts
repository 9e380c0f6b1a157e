import t from 'tap'
import { buildDemo } from '../../sandbox/demo-server.js'
import { send } from '../helper.js'
import { refuseStaleBuild } from '../stale-build.js'

const settings = {
  serviceUrl: 'http://127.0.0.1:1',
  identityUrl: 'http://127.0.0.1:2',
  idenfyUrl: 'http://127.0.0.1:3',
}

// The page is served as it was built.
refuseStaleBuild('dist-sandbox/demo/app.js')

t.test('the demo page and its files have a strict content security policy', async (t) => {
  const app = buildDemo(() => settings)
  const url = await app.listen({ port: 0 })
  t.teardown(() => app.close())
  const rows: [string, RegExp][] = [
    ['/', /^text\/html/],
    ['/style.css', /^text\/css/],
    ['/app.js', /^text\/javascript/],
  ]
  for (const [path, type] of rows) {
    const { status, headers, text } = await send(url + path)
    t.equal(status, 200, path)
    t.match(headers['content-type'], type)
    t.equal(headers['x-content-type-options'], 'nosniff')
    const policy = String(headers['content-security-policy'])
    t.match(
      policy,
      `connect-src 'self' ${Object.values(settings).join(' ')}; frame-src ${settings.idenfyUrl}; `,
    )
    t.notMatch(policy, /unsafe|\*/)
    t.notMatch(text, /^import /m, `${path} is complete`)
    t.notMatch(text, /<style| style=|<script>| on[a-z]+="/, 'nothing inline')
  }
  t.strictSame((await send(`${url}/settings.json`)).json, settings)
  t.equal((await send(`${url}/favicon.ico`)).status, 204)
  t.equal((await send(`${url}/app.ts`)).status, 404)
})

t.test('the page gets the scope and whether a simulated problem can be for one user', async (t) => {
  const withPolicy = { ...settings, scope: 'kyb:create', faultsByCaller: false }
  const app = buildDemo(() => withPolicy)
  t.teardown(() => app.close())
  t.strictSame((await app.inject('/settings.json')).json(), withPolicy)
})
