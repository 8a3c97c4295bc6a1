import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hkdfSync,
  randomBytes,
} from 'node:crypto'

/**
 * A secret for one host, through hands that may keep it: X25519 with a key of one use (RFC 7748), HKDF-SHA-256
 * (RFC 5869), AES-256-GCM. `purpose` is part of what is authenticated: sealed for one pair, it opens for no other.
 */
export interface SealingKey {
  kty: 'OKP'
  crv: 'X25519'
  x: string
  d: string
}

const prefix = 'understudy-sealed-1.'
const publicBytes = 32
const nonceBytes = 12
const tagBytes = 16
const cipher = 'aes-256-gcm'

/** @param to raw X25519 public key, base64url */
export function seal(text: string, { to, purpose }: { to: string; purpose: string }): string {
  const once = generateKeyPairSync('x25519')
  const own = Buffer.from(String(once.publicKey.export({ format: 'jwk' }).x), 'base64url')
  const key = keyOf({ shared: diffieHellman({ privateKey: once.privateKey, publicKey: publicKeyOf(to) }), own, to })
  const nonce = randomBytes(nonceBytes)
  const cipherer = createCipheriv(cipher, key, nonce).setAAD(Buffer.from(purpose))
  const sealed = Buffer.concat([cipherer.update(text, 'utf8'), cipherer.final()])
  return prefix + Buffer.concat([own, nonce, cipherer.getAuthTag(), sealed]).toString('base64url')
}

/** null: it is nothing of ours, was sealed for another key or purpose, or was changed. */
export function unseal(sealed: string, { key, purpose }: { key: SealingKey; purpose: string }): string | null {
  if (!sealed.startsWith(prefix)) return null
  const bytes = Buffer.from(sealed.slice(prefix.length), 'base64url')
  if (bytes.length < publicBytes + nonceBytes + tagBytes) return null
  try {
    const own = bytes.subarray(0, publicBytes)
    const nonce = bytes.subarray(publicBytes, publicBytes + nonceBytes)
    const tag = bytes.subarray(publicBytes + nonceBytes, publicBytes + nonceBytes + tagBytes)
    const privateKey = createPrivateKey({ key: { ...key }, format: 'jwk' })
    const shared = diffieHellman({ privateKey, publicKey: publicKeyOf(own.toString('base64url')) })
    const opener = createDecipheriv(cipher, keyOf({ shared, own, to: key.x }), nonce, { authTagLength: tagBytes })
    opener.setAAD(Buffer.from(purpose)).setAuthTag(tag)
    const text = bytes.subarray(publicBytes + nonceBytes + tagBytes)
    return Buffer.concat([opener.update(text), opener.final()]).toString('utf8')
  } catch {
    return null
  }
}

function keyOf({ shared, own, to }: { shared: Buffer; own: Buffer; to: string }): Buffer {
  const salt = Buffer.concat([own, Buffer.from(to, 'base64url')])
  return Buffer.from(hkdfSync('sha256', shared, salt, 'understudy-seal-1', 32))
}

const publicKeyOf = (x: string) => createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x }, format: 'jwk' })
