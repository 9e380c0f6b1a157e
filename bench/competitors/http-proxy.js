// A proxy made with a library. It adds the credentials and checks nothing: node http-proxy.js PORT UPSTREAM AUTHORIZATION
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
