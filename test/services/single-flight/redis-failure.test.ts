import t from 'tap'
import { describeRedisFailure } from '../../../src/services/single-flight/redis-failure.js'

t.test('errors of the connection have a cause, too', async (t) => {
  for (const [error, cause] of [
    [{ code: 'EAI_AGAIN' }, 'unknown-host'],
    [{ code: 'ENETUNREACH' }, 'unreachable'],
    [{ code: 'EHOSTUNREACH' }, 'unreachable'],
    [{ code: 'EPIPE' }, 'closed'],
    [{ code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' }, 'certificate'],
    [{ code: 'CERT_HAS_EXPIRED' }, 'certificate'],
    [{ code: 'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED' }, 'certificate'],
    [{ code: 'EMFILE' }, 'other'],
    [{ message: "Socket timeout. Expecting data, but didn't receive any in 2000ms." }, 'timeout'],
    [{ message: "Stream isn't writeable and enableOfflineQueue options is false" }, 'closed'],
    [{ message: 'anything else' }, 'other'],
  ] as const) {
    const { code, ...failure } = describeRedisFailure(Object.assign(new Error(), error))
    t.match(failure, { cause, hint: /\w/ })
    t.equal(code, 'code' in error ? error.code : undefined)
  }
})
