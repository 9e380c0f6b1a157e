// The usual integration with Express, without logs, limits or metrics.
// node express.js PORT UPSTREAM KEY SECRET PEM_FILE ISSUER AUDIENCE
import { readFileSync } from 'node:fs'
import axios from 'axios'
import express from 'express'
import jwt from 'jsonwebtoken'

const [port, upstream, username, password, pemFile, issuer, audience] = process.argv.slice(2)
const publicKey = readFileSync(pemFile)
const app = express()
app.use(express.json())

app.use((request, response, next) => {
  try {
    const token = request.headers.authorization.replace(/^Bearer /, '')
    request.claims = jwt.verify(token, publicKey, { algorithms: ['RS256'], issuer, audience })
    next()
  } catch {
    response.status(401).json({ error: 'unauthorized' })
  }
})

app.post('/onboarding/kyb-token', async (request, response) => {
  const { data, status } = await axios.post(
    `${upstream}/kyb/tokens/`,
    {
      tokenType: 'FORM',
      clientId: request.claims.company_id,
      externalRef: request.claims.sub,
      lifetime: request.body.lifetime,
    },
    { auth: { username, password }, timeout: 8000 },
  )
  response.status(status).json(data)
})

app.listen(Number(port), '127.0.0.1')
