/**
 * Signatures of one host's requests, with WebCrypto alone, so that they run in Node, Deno and Workers alike.
 * Ed25519 (RFC 8032): deterministic, so the same request always has the same bytes.
 */
export type SigningKey = Parameters<typeof crypto.subtle.sign>[1]

export interface SignedRequest {
  host: 'a' | 'b'
  method: string
  /** Below the base address: what stands before it is the affair of whoever forwards the request. */
  path: string
  body: Uint8Array
}

const algorithm = 'Ed25519'
/** No other use of these keys begins like this. */
const purpose = 'understudy-request-1'

/** Base64url, 64 bytes. */
export async function signRequest(key: SigningKey, request: SignedRequest): Promise<string> {
  return toBase64url(new Uint8Array(await crypto.subtle.sign(algorithm, key, await signedBytes(request))))
}

/** False also for a signature that is none. */
export async function verifyRequest(key: SigningKey, request: SignedRequest, signature: string): Promise<boolean> {
  const bytes = fromBase64url(signature)
  if (bytes === null || bytes.length !== 64) return false
  return crypto.subtle.verify(algorithm, key, bytes, await signedBytes(request))
}

/** PKCS #8, DER. */
export const importSigningKey = (pkcs8: Uint8Array<ArrayBuffer>): Promise<SigningKey> =>
  crypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign'])

/** A raw public key in base64url; null when it is none. */
export async function importPublicKey(text: string): Promise<SigningKey | null> {
  const raw = fromBase64url(text)
  if (raw === null || raw.length !== 32) return null
  try {
    return await crypto.subtle.importKey('raw', raw, algorithm, true, ['verify'])
  } catch {
    return null
  }
}

async function signedBytes(request: SignedRequest): Promise<Uint8Array<ArrayBuffer>> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', new Uint8Array(request.body)))
  const { host, method, path } = request
  return new TextEncoder().encode([purpose, host, method, path, toBase64url(digest)].join('\n'))
}

export function toBase64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '')
}

export function fromBase64url(text: string): Uint8Array<ArrayBuffer> | null {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) return null
  try {
    return Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), letter => letter.charCodeAt(0))
  } catch {
    return null
  }
}
