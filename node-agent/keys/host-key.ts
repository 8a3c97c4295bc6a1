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

export async function readHostKey(path: string): Promise<HostKey> {
  const pem = readSecret(path)
  if (pem === null)
    throw new Error(
      `${path} does not exist: this host has no key yet. \`understudy pair init\` or \`pair join\` makes one.`,
    )
  return hostKeyOf(pem.toString())
}

export async function hostKeyOf(pem: string): Promise<HostKey> {
  const key = createPrivateKey(pem)
  if (key.asymmetricKeyType !== 'ed25519') throw new Error(`a host key is an Ed25519 key, not ${key.asymmetricKeyType}`)
  const { x } = createPublicKey(key).export({ format: 'jwk' })
  const der = key.export({ type: 'pkcs8', format: 'der' })
  return { publicKey: String(x), signingKey: await importSigningKey(new Uint8Array(der)) }
}
