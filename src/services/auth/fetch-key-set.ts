import { brotliDecompressSync, gunzipSync, inflateRawSync, inflateSync } from 'node:zlib'
import { type Dispatcher, request } from 'undici'
import { KeySetFault } from './key-set.js'

/** Size limit of a response, before and after decoding. */
export const maxKeySetBytes = 64 * 1024

const limit = { maxOutputLength: maxKeySetBytes }

/** The content codings of RFC 9110, section 8.4.1. */
const decoders: Readonly<Record<string, (bytes: Buffer) => Buffer>> = {
  identity: (bytes) => bytes,
  gzip: (bytes) => gunzipSync(bytes, limit),
  'x-gzip': (bytes) => gunzipSync(bytes, limit),
  br: (bytes) => brotliDecompressSync(bytes, limit),
  // Some servers omit the zlib header.
  deflate: (bytes) => (Number(bytes[0]) % 16 === 8 ? inflateSync : inflateRawSync)(bytes, limit),
}

export interface KeySetSource {
  readonly url: string
  /** Limits the size of a response to {@link maxKeySetBytes}. */
  readonly dispatcher: Dispatcher
  readonly userAgent: string
}

/**
 * Fetches the text of a key set (JWKS). Redirects are not followed.
 *
 * @throws KeySetFault `jwks-status` or `jwks-encoding`, or what undici throws
 */
export async function fetchKeySet(
  { url, dispatcher, userAgent }: KeySetSource,
  signal: AbortSignal,
): Promise<string> {
  const headers = { 'user-agent': userAgent }
  const { statusCode, headers: fields, body } = await request(url, { dispatcher, headers, signal })
  if (statusCode !== 200) {
    body.on('error', () => {}).destroy()
    throw new KeySetFault('jwks-status', `status ${statusCode}`)
  }
  const bytes = Buffer.from(await body.arrayBuffer())
  // Some servers compress although the request did not ask for it.
  return new TextDecoder().decode(decode(bytes, String(fields['content-encoding'] ?? 'identity')))
}

function decode(bytes: Buffer, contentEncoding: string): Buffer {
  try {
    const codings = contentEncoding.toLowerCase().split(',').reverse()
    return codings.reduce(
      (encoded, coding) => (decoders[coding.trim()] as (b: Buffer) => Buffer)(encoded),
      bytes,
    )
  } catch (cause) {
    // Also for an unknown coding, and for a result that is too long.
    throw new KeySetFault('jwks-encoding', 'an encoding that cannot be read, or too much', { cause })
  }
}
