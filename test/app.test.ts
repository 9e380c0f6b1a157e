import t from 'tap'
import { build } from './helper.js'

t.test('the service has these routes and no others', async (t) => {
  const service = await build(t)
  t.equal(service.app.printRoutes({ commonPrefix: false }).trim(), '└── /onboarding/kyb-token (POST)')
  const management = service.management.printRoutes({ commonPrefix: false }).trim()
  t.strictSame(management.match(/\/\w+ \(.*\)/g), [
    '/livez (GET, HEAD)',
    '/readyz (GET, HEAD)',
    '/metrics (GET)',
  ])
})
