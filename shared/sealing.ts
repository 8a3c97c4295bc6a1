/**
 * A secret for one host, through hands that may keep it: X25519 with a key of one use (RFC 7748), HKDF-SHA-256
 * (RFC 5869), AES-256-GCM, by WebCrypto alone, so that every runtime has it. `purpose` is part of what is authenticated:
 * sealed for one pair, it opens for no other.
 */
import { concatBytes } from './bytes.ts'
import { fromBase64url, toBase64url } from './signing.ts'

export interface SealingKey {
  kty: 'OKP'
  crv: 'X25519'
  x: string
  d: string
}

type Bytes = Uint8Array<ArrayBuffer>
type Key = Awaited<ReturnType<typeof crypto.subtle.importKey>>
interface KeyPair {
  privateKey: Key
  publicKey: Key
}

const prefix = 'understudy-sealed-1.'
const publicBytes = 32
const nonceBytes = 12
const tagBytes = 16
const curve = { name: 'X25519' }
const info = new TextEncoder().encode('understudy-seal-1')

/** @param to raw X25519 public key, base64url */
export async function seal(text: string, { to, purpose }: { to: string; purpose: string }): Promise<string> {
  const once = (await crypto.subtle.generateKey(curve, true, ['deriveBits'])) as KeyPair
  const own = new Uint8Array(await crypto.subtle.exportKey('raw', once.publicKey))
  const theirs = fromBase64url(to)
  if (theirs?.length !== publicBytes) throw new Error('the key to seal for is no X25519 key')
  const key = await keyOf({ privateKey: once.privateKey, theirs, salt: concatBytes(own, theirs), use: 'encrypt' })
  const nonce = crypto.getRandomValues(new Uint8Array(nonceBytes))
  const sealed = new Uint8Array(
    await crypto.subtle.encrypt(cipher(nonce, purpose), key, new TextEncoder().encode(text)),
  )
  // WebCrypto puts the tag behind; here it stands before.
  const [body, tag] = [sealed.subarray(0, -tagBytes), sealed.subarray(-tagBytes)]
  return prefix + toBase64url(concatBytes(own, nonce, tag, body))
}

/** null: it is nothing of ours, was sealed for another key or purpose, or was changed. */
export async function unseal(
  sealed: string,
  { key: own, purpose }: { key: SealingKey; purpose: string },
): Promise<string | null> {
  const bytes = sealed.startsWith(prefix) ? fromBase64url(sealed.slice(prefix.length)) : null
  if (bytes === null || bytes.length < publicBytes + nonceBytes + tagBytes) return null
  try {
    const theirs = bytes.slice(0, publicBytes)
    const nonce = bytes.slice(publicBytes, publicBytes + nonceBytes)
    const tag = bytes.slice(publicBytes + nonceBytes, publicBytes + nonceBytes + tagBytes)
    const body = bytes.slice(publicBytes + nonceBytes + tagBytes)
    const privateKey = await crypto.subtle.importKey('jwk', { ...own }, curve, false, ['deriveBits'])
    const salt = concatBytes(theirs, fromBase64url(own.x) ?? new Uint8Array())
    const key = await keyOf({ privateKey, theirs, salt, use: 'decrypt' })
    const text = await crypto.subtle.decrypt(cipher(nonce, purpose), key, concatBytes(body, tag))
    return new TextDecoder('utf-8', { fatal: true }).decode(text)
  } catch {
    return null
  }
}

async function keyOf(part: {
  privateKey: Key
  theirs: Uint8Array
  salt: Bytes
  use: 'encrypt' | 'decrypt'
}): Promise<Key> {
  const theirs = await crypto.subtle.importKey('raw', concatBytes(part.theirs), curve, false, [])
  const shared = await crypto.subtle.deriveBits({ ...curve, public: theirs }, part.privateKey, 256)
  const material = await crypto.subtle.importKey('raw', shared, 'HKDF', false, ['deriveKey'])
  const derivation = { name: 'HKDF', hash: 'SHA-256', salt: part.salt, info }
  return crypto.subtle.deriveKey(derivation, material, { name: 'AES-GCM', length: 256 }, false, [part.use])
}

const cipher = (iv: Bytes, purpose: string) => ({
  name: 'AES-GCM',
  iv,
  additionalData: new TextEncoder().encode(purpose),
  tagLength: tagBytes * 8,
})
