import { exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from 'jose'

/** A signing key of the sandbox's identity provider. Every start generates a new one. */
export interface TokenSigner {
  readonly publicJwk: JWK
  /** Signs any claims and adds any header parameters, even invalid ones. */
  sign(claims: JWTPayload, header?: Readonly<Record<string, unknown>>): Promise<string>
}

export async function createTokenSigner(alg = 'RS256', kid = `sandbox-${alg}`): Promise<TokenSigner> {
  const { publicKey, privateKey } = await generateKeyPair(alg)
  return {
    publicJwk: { ...(await exportJWK(publicKey)), kid, alg, use: 'sig' },
    sign: (claims, header) =>
      new SignJWT(claims).setProtectedHeader({ alg, kid, typ: 'at+jwt', ...header }).sign(privateKey),
  }
}
