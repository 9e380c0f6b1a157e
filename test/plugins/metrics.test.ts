import { readFileSync } from 'node:fs'
import t from 'tap'
import { build, createClock, send } from '../helper.js'

t.test('the metrics show requests, calls to iDenfy and the build', async (t) => {
  const service = await build(t, { env: { IDENFY_ENVIRONMENT: 'sandbox' } })
  await service.mint()
  await service.setFault({ status: 503, times: 1 })
  await service.mint({ token: await service.token({ sub: 'u-2' }) })
  const { text } = await send(`${service.managementUrl}/metrics`)
  const { version } = JSON.parse(readFileSync('package.json', 'utf8'))
  for (const line of [
    'http_requests_total{outcome="success"} 1',
    'http_requests_total{outcome="provider-outcome-unknown"} 1',
    'http_request_duration_seconds_count 2',
    'idenfy_requests_total{outcome="success"} 1',
    'idenfy_requests_total{outcome="provider-outcome-unknown"} 1',
    'idenfy_request_duration_seconds_count 2',
    'idenfy_circuit_open 0',
    'idenfy_in_flight 0',
    'idenfy_waiting 0',
    'idenfy_credentials_generation 1',
    'kyb_tokens_total{origin="minted"} 1',
    `build_info{version="${version}",node="${process.version}",idenfy_environment="sandbox"} 1`,
  ]) {
    t.ok(text.split('\n').includes(line), line)
  }
  for (const name of [
    'signing_keys_age_seconds',
    'process_cpu_user_seconds_total',
    'process_resident_memory_bytes',
    'process_open_fds',
    'nodejs_eventloop_lag_p99_seconds',
    'nodejs_heap_size_used_bytes',
  ]) {
    t.match(text, new RegExp(`^${name} [0-9.e+-]+$`, 'm'), name)
  }
})

t.test('the age of signing keys that are not there counts from the start', async (t) => {
  const { clocks, pass } = createClock()
  const service = await build(t, { ...clocks, env: { AUTH_JWKS_URL: 'http://127.0.0.1:1/jwks' } })
  pass(900)
  t.match(await service.metrics(), /^signing_keys_age_seconds 900$/m)
})
