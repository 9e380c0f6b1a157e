import { isUtf8 } from 'node:buffer'
import type { IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { Problem } from '../problems/problem.js'

/** Headers that may occur only once, so that a proxy and this service cannot read them differently. */
const singularFields = new Set(['host', 'authorization', 'content-type', 'content-encoding', 'x-company-id'])
const maxFields = 64
const acceptedContentType = /^application\/json[\t ]*(;[\t ]*charset=("utf-8"|utf-8)[\t ]*)?;?$/i
const longNumber = /(?:\d\.?){16}/

/** Refuses ambiguous requests, and features that no client of this service needs. */
export const strictRequests = fp(
  async (app) => {
    app.addHook('onRequest', (request, _reply, done) => {
      checkRequest(request)
      done()
    })

    // Fastify's own parser replaces invalid UTF-8, and iDenfy would get a text that the client did not send.
    const parseJson = app.getDefaultJsonParser('error', 'error')
    app.removeContentTypeParser(['application/json', 'text/plain'])
    app.addContentTypeParser<Buffer>('application/json', { parseAs: 'buffer' }, (request, bytes, done) => {
      const text = bytes.toString()
      if (!isUtf8(bytes)) return done(new Problem('malformed-request', { detail: 'not-utf8' }))
      if (hasLongNumber(text)) return done(new Problem('malformed-request', { detail: 'long-number' }))
      parseJson(request, text, done)
    })

    // Node would refuse these without a problem document. The hook above refuses them instead.
    app.server.on('checkExpectation', (request, response) => app.server.emit('request', request, response))
  },
  { name: 'strict-requests', fastify: '5.x', dependencies: ['problem-details'] },
)

/** Whether the JSON text has a number with more digits than a double can store. */
function hasLongNumber(text: string): boolean {
  return longNumber.test(text) && longNumber.test(text.replace(/"(?:[^"\\]|\\.)*"/g, ''))
}

function checkRequest({ raw, headers, is404 }: FastifyRequest): void {
  checkFields(raw)
  if (raw.httpVersion === '1.1' && headers.host === undefined) {
    throw new Problem('malformed-request', { detail: 'no-host' })
  }
  if ((headers.expect ?? '100-continue').toLowerCase() !== '100-continue')
    throw new Problem('expectation-failed')
  if (is404) return
  if (raw.url?.includes('?')) throw new Problem('malformed-request', { detail: 'query-string' })
  const contentType = headers['content-type']
  if (contentType !== undefined && !acceptedContentType.test(contentType)) {
    throw new Problem('unsupported-media-type', { detail: 'content-type' })
  }
  if (headers['content-encoding'] !== undefined) {
    throw new Problem('unsupported-media-type', { detail: 'content-encoding' })
  }
}

function checkFields({ rawHeaders }: IncomingMessage): void {
  if (rawHeaders.length > maxFields * 2) throw new Problem('header-too-large', { detail: 'header-count' })
  const seen: string[] = []
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = String(rawHeaders[index]).toLowerCase()
    if (!singularFields.has(name)) continue
    if (seen.includes(name)) throw new Problem('malformed-request', { detail: 'repeated-field' })
    seen.push(name)
  }
}
