/**
 * The folders of `src/services` whose tests are tested, smallest first, with those of their tests that take no longer
 * than a second or two. A mutant meets them in this order until one fails, so the quickest come first.
 */
export const folders = {
  resilience: ['retry-budget', 'fixed-window-counter', 'bulkhead', 'circuit-breaker'],
  kyb: ['client-identity', 'session-policy', 'token-issuer'],
  'single-flight': ['encryption', 'memory', 'redis-failure', 'redis-connection', 'redis'],
  idenfy: ['error-mapping', 'schemas', 'exchange', 'create-token', 'retries', 'connector', 'connections'],
  auth: [
    'with-timeout',
    'access-token',
    'caller',
    'fetch-key-set',
    'signing-keys',
    'access-token-verifier',
    'key-set',
  ],
}
