// A proxy off the shelf that injects the credentials: nothing is checked. node http-proxy.js PORT UPSTREAM AUTHORIZATION
import httpProxy from '@fastify/http-proxy'
import Fastify from 'fastify'

const [port, upstream, authorization] = process.argv.slice(2)
const app = Fastify()
await app.register(httpProxy, {
  upstream,
  prefix: '/onboarding/kyb-token',
  rewritePrefix: '/kyb/tokens/',
  httpMethods: ['POST'],
  undici: { connections: 100, pipelining: 1 },
  replyOptions: { rewriteRequestHeaders: (_request, headers) => ({ ...headers, authorization }) },
})
await app.listen({ port: Number(port) })
