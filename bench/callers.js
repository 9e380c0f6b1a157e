import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { exportJWK, exportSPKI, generateKeyPair, SignJWT } from 'jose'

export const issuer = 'https://idp.example'
export const audience = 'onboarding'
export const algorithms = ['RS256', 'ES256', 'EdDSA']
const callers = 500
/** More tokens than the service caches, so that a token is no longer cached when it is used again. */
const manyTokens = 6000

/**
 * Creates a key for each algorithm, and access tokens of realistic size for 500 users of 500 companies. The list `<alg>`
 * has one token for each user. The list `<alg>, new tokens` has so many that the next one is never in the service's cache.
 *
 * @returns paths of the JWK set and of the token lists, and the public RSA key as PEM
 */
export async function createCallers(directory) {
  const keys = []
  const tokenFiles = {}
  let rsaPem
  for (const alg of algorithms) {
    const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true })
    const kid = `bench-${alg}`
    keys.push({ ...(await exportJWK(publicKey)), kid, alg, use: 'sig' })
    if (alg === 'RS256') rsaPem = await exportSPKI(publicKey)
    const tokens = await signTokens(privateKey, { alg, kid })
    tokenFiles[alg] = write(directory, `${alg}.json`, tokens.slice(0, callers))
    tokenFiles[`${alg}, new tokens`] = write(directory, `${alg}-new.json`, tokens)
  }
  return {
    tokenFiles,
    jwksFile: write(directory, 'jwks.json', { keys }),
    rsaPem,
  }
}

function signTokens(privateKey, { alg, kid }) {
  const iat = Math.floor(Date.now() / 1000)
  return Promise.all(
    Array.from({ length: manyTokens }, (_, index) =>
      new SignJWT({
        iss: issuer,
        aud: audience,
        sub: `user-${index % callers}`,
        company_id: `company-${index % callers}`,
        client_id: 'portal',
        scope: 'openid profile onboarding:write',
        jti: crypto.randomUUID(),
        iat,
        exp: iat + 6 * 3600,
      })
        .setProtectedHeader({ alg, kid, typ: 'at+jwt' })
        .sign(privateKey),
    ),
  )
}

function write(directory, name, value) {
  const path = join(directory, name)
  writeFileSync(path, JSON.stringify(value))
  return path
}
