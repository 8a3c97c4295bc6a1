import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { importSigningKey, type SigningKey } from '../../shared/signing.ts'
import { readSecret, writeSecret } from './secret-file.ts'

/** The Ed25519 key by which a host signs its requests to the witness and the control plane. */
export interface HostKey {
  /** Raw, base64url: what is registered. */
  publicKey: string
  signingKey: SigningKey
}

export function makeHostKeyPem(): string {
  return generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
}

export const writeHostKey = (path: string, pem: string): Promise<void> => writeSecret(path, Buffer.from(pem))

/** The one in use, the one before, and one that is being made known (witness/host-key-change.ts). */
export const hostKeysMax = 3

/** The newest that is in use. */
export const readHostKey = (path: string): Promise<HostKey> => hostKeyOf(readHostKeyText(path))

/** All that a witness may know this host by, the newest in use first. */
export const readHostKeys = (path: string): Promise<HostKey[]> =>
  Promise.all(pemsOf(readHostKeyText(path)).map(hostKeyOf))

export function readHostKeyText(path: string): string {
  const text = readSecret(path)
  if (text !== null) return text.toString()
  throw new Error(
    `${path} does not exist: this host has no key yet. \`understudy pair init\` or \`pair join\` makes one.`,
  )
}

/** One block for each key; a text without any is left to whoever reads it as a key, and says what is wrong. */
export function pemsOf(text: string): string[] {
  const blocks = text.match(/-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----/g)
  return blocks === null ? [text] : blocks.slice(0, hostKeysMax).map(block => `${block}\n`)
}

/** Of the first one of several. */
export async function hostKeyOf(text: string): Promise<HostKey> {
  const key = createPrivateKey(pemsOf(text)[0]!)
  if (key.asymmetricKeyType !== 'ed25519') throw new Error(`a host key is an Ed25519 key, not ${key.asymmetricKeyType}`)
  const { x } = createPublicKey(key).export({ format: 'jwk' })
  const der = key.export({ type: 'pkcs8', format: 'der' })
  return { publicKey: String(x), signingKey: await importSigningKey(new Uint8Array(der)) }
}
