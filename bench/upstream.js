// Simulates iDenfy and the key set of the identity provider: node upstream.js PORT JWKS_FILE [KEY_FILE CERTIFICATE_FILE]
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'

const [port, jwksFile, keyFile, certificateFile] = process.argv.slice(2)
const jwks = readFileSync(jwksFile)
let delayMs = 0
let calls = 0
let inFlight = 0
let mostInFlight = 0

function createToken(body) {
  const { clientId = 'company-0', externalRef = null } = JSON.parse(body || '{}')
  return JSON.stringify({
    tokenType: 'FORM',
    tokenString: `${calls}`.padStart(40, '0'),
    clientId,
    externalRef,
    companyId: '167e5025-3fe6-4442-bf50-6c9c6502c51a',
    expiration: new Date(Date.now() + 3_600_000).toISOString(),
    isActive: true,
    isValid: true,
    locale: null,
    flow: null,
    theme: null,
    tags: [],
    scanRefs: [],
  })
}

function respondToPost(body, response) {
  calls += 1
  inFlight += 1
  mostInFlight = Math.max(mostInFlight, inFlight)
  const text = createToken(body)
  const respond = () => {
    inFlight -= 1
    response.writeHead(201, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) })
    response.end(text)
  }
  if (delayMs === 0) respond()
  else setTimeout(respond, delayMs)
}

function receive(request, response) {
  const { method, url } = request
  let body = ''
  request.setEncoding('utf8')
  request.on('data', (chunk) => {
    body += chunk
  })
  request.on('end', () => {
    // At any path, because some proxies cannot forward to a path that ends with a slash.
    if (method === 'POST') return respondToPost(body, response)
    if (method === 'PUT') delayMs = JSON.parse(body).delayMs
    if (url === '/jwks.json') return response.end(jwks)
    response.end(JSON.stringify({ calls, mostInFlight }))
    mostInFlight = inFlight
  })
}

/** With TLS, it keeps idle connections open and does not tell how long. */
function createUpstream() {
  if (!keyFile) return createServer(receive)
  const tls = { key: readFileSync(keyFile), cert: readFileSync(certificateFile) }
  return createTlsServer({ ...tls, keepAliveTimeout: 0, headersTimeout: 0, requestTimeout: 0 }, receive)
}

createUpstream()
  .on('connection', (socket) => socket.setNoDelay(true))
  .listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 })
