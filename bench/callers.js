import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { exportJWK, exportSPKI, generateKeyPair, SignJWT } from 'jose'

export const issuer = 'https://idp.example'
export const audience = 'onboarding'
export const algorithms = ['RS256', 'ES256', 'EdDSA']
const callers = 500
/** More tokens than the service remembers: when one comes again it has been forgotten. */
const manyTokens = 6000

/**
 * Makes, for each algorithm, a key and access tokens for 500 users of 500 companies, of the size that identity
 * providers make them: one for each, and under `<alg>, new tokens` so many that each is new to the service.
 *
 * @returns the files: a JWK set, the RSA key as PEM, and lists of tokens by algorithm
 */
export async function makeCallers(directory) {
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
