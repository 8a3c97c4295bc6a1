import { z } from 'zod'
import { importSigningKey } from '../../shared/signing.ts'
import type { HostKey } from './host-key.ts'
import { readSecret } from './secret-file.ts'

/** The Ed25519 key by which this host is enrolled, out of its identity file: it signs the votes of a hosted witness. */
const part = z.object({ key: z.object({ x: z.string(), d: z.string() }) })

/** @throws with a sentence when this host is not enrolled, or the file is damaged */
export async function readEnrolmentKey(path: string): Promise<HostKey> {
  const bytes = readSecret(path)
  if (bytes === null)
    throw new Error(
      `${path} does not exist: this host is enrolled at no control plane, so it can ask no hosted witness; \`understudy enrol\` enrols it`,
    )
  return enrolmentKeyOf(parsed(path, bytes.toString()).key)
}

export async function enrolmentKeyOf(key: { x: string; d: string }): Promise<HostKey> {
  return { publicKey: key.x, signingKey: await importSigningKey(pkcs8Of(key)) }
}

/** RFC 8410: a fixed head, then the 32 bytes of the key. */
export function pkcs8Of({ d }: { d: string }): Uint8Array<ArrayBuffer> {
  const head = Buffer.from('302e020100300506032b657004220420', 'hex')
  return new Uint8Array(Buffer.concat([head, Buffer.from(d, 'base64url')]))
}

function parsed(path: string, text: string): z.output<typeof part> {
  try {
    return part.parse(JSON.parse(text))
  } catch {
    throw new Error(
      `${path} is damaged: restore it from a backup, or enrol this host anew as the replacement of itself`,
    )
  }
}
