import { CompactSign, compactVerify, FlattenedSign, flattenedVerify, importJWK } from 'jose'
import { toBase64url } from '../signing.ts'

/**
 * Signatures over documents that pass through hands nobody trusts: JWS with Ed25519 (RFC 7515, RFC 8037). The payload
 * is signed as the bytes it is, so that no canonical JSON is needed. `typ` separates the purposes: a desired document
 * can never act as a command, whatever key signed it.
 */
export const documentTypes = {
  trust: 'understudy-trust-1+jws',
  desired: 'understudy-desired-1+jws',
  fresh: 'understudy-fresh-1+jws',
  command: 'understudy-command-1+jws',
  ack: 'understudy-ack-1+jws',
  report: 'understudy-report-2+jws',
  events: 'understudy-events-2+jws',
  request: 'understudy-request-1+jws',
  auditHead: 'understudy-audit-head-1+jws',
  /** From one host of a pair to the other. */
  pairKey: 'understudy-pair-key-1+jws',
} as const
export type DocumentType = keyof typeof documentTypes

const algorithm = 'EdDSA'
type Key = Awaited<ReturnType<typeof importJWK>>

export interface DocumentSigner {
  kid: string
  /** Raw Ed25519, base64url. */
  publicKey: string
  sign(type: DocumentType, payload: unknown): Promise<string>
}

/** An Ed25519 key as JWK (RFC 8037), with the private part. */
export interface PrivateJwk {
  kty: 'OKP'
  crv: 'Ed25519'
  x: string
  d: string
}

export async function documentSigner(kid: string, jwk: PrivateJwk): Promise<DocumentSigner> {
  const key = await importJWK(jwk, algorithm)
  return {
    kid,
    publicKey: jwk.x,
    sign: async (type, payload) => {
      const bytes = new TextEncoder().encode(JSON.stringify(payload))
      const header = { alg: algorithm, kid, typ: documentTypes[type] }
      return JSON.stringify(await new FlattenedSign(bytes).setProtectedHeader(header).sign(key))
    },
  }
}

/** Keys as text (raw, base64url) by their id. */
export type KeyRing = (kid: string) => string | null

export type Verified = { ok: true; kid: string; payload: unknown } | { ok: false; why: string }

/** Never throws; `payload` is only JSON yet and wants its schema. */
export async function verifyDocument(text: string, type: DocumentType, ring: KeyRing): Promise<Verified> {
  try {
    const jws = JSON.parse(text) as { protected: string; payload: string; signature: string }
    const result = await flattenedVerify(
      { protected: String(jws.protected), payload: String(jws.payload), signature: String(jws.signature) },
      header => keyOf(ring, header?.kid),
      { algorithms: [algorithm] },
    )
    return verified(result.protectedHeader, result.payload, type)
  } catch (error) {
    return { ok: false, why: error instanceof Error ? error.message : String(error) }
  }
}

/** A short JWS for a header: who asks, for what, and when. */
export async function signCompact(signer: { kid: string; jwk: PrivateJwk }, payload: unknown): Promise<string> {
  const key = await importJWK(signer.jwk, algorithm)
  const header = { alg: algorithm, kid: signer.kid, typ: documentTypes.request }
  return new CompactSign(new TextEncoder().encode(JSON.stringify(payload))).setProtectedHeader(header).sign(key)
}

export async function verifyCompact(text: string, publicKey: string): Promise<Verified> {
  try {
    const result = await compactVerify(text, header => keyOf(() => publicKey, header.kid), { algorithms: [algorithm] })
    return verified(result.protectedHeader, result.payload, 'request')
  } catch (error) {
    return { ok: false, why: error instanceof Error ? error.message : String(error) }
  }
}

function verified(
  header: { kid?: string; typ?: string } | undefined,
  payload: Uint8Array,
  type: DocumentType,
): Verified {
  if (header?.typ !== documentTypes[type])
    return { ok: false, why: `it is a ${header?.typ ?? 'document without a type'}, not a ${documentTypes[type]}` }
  return { ok: true, kid: header.kid ?? '', payload: JSON.parse(new TextDecoder().decode(payload)) as unknown }
}

async function keyOf(ring: KeyRing, kid: string | undefined): Promise<Key> {
  const x = kid === undefined ? null : ring(kid)
  if (x === null) throw new Error(`no key ${JSON.stringify(kid ?? null)} is trusted for this`)
  return importJWK({ kty: 'OKP', crv: 'Ed25519', x }, algorithm)
}

export async function sha256Hex(text: string | Uint8Array): Promise<string> {
  const bytes = typeof text === 'string' ? new TextEncoder().encode(text) : new Uint8Array(text)
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
  return [...digest].map(byte => byte.toString(16).padStart(2, '0')).join('')
}

export async function sha256Base64url(bytes: Uint8Array): Promise<string> {
  return toBase64url(new Uint8Array(await crypto.subtle.digest('SHA-256', new Uint8Array(bytes))))
}

/** What the trust root is known by: SHA-256 of its raw public key, base64url. */
export async function fingerprintOfKey(publicKey: string): Promise<string> {
  return sha256Base64url(new TextEncoder().encode(`understudy-root-1\n${publicKey}`))
}
