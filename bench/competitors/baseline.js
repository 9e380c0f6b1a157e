// The least work that a proxy in Node can do, without any checks: node baseline.js PORT UPSTREAM AUTHORIZATION
import { createServer } from 'node:http'
import { Pool } from 'undici'

const [port, upstream, authorization] = process.argv.slice(2)
const pool = new Pool(upstream, { connections: 10_000 })

async function forward(requestBody, response) {
  const { statusCode, body } = await pool.request({
    method: 'POST',
    path: '/kyb/tokens/',
    headers: { authorization, 'content-type': 'application/json' },
    body: requestBody,
  })
  const text = await body.text()
  response.writeHead(statusCode, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
  })
  response.end(text)
}

createServer((request, response) => {
  const chunks = []
  request.on('data', (chunk) => chunks.push(chunk))
  request.on('end', () => forward(Buffer.concat(chunks), response))
}).listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 })
