import { randomBytes, X509Certificate } from 'node:crypto'
import { hostname } from 'node:os'
import { join } from 'node:path'
import {
  fingerprintOf,
  type KeyAndCertificate,
  makeWitnessCertificate,
  writeKeyAndCertificate,
} from '../keys/certificates.ts'
import { readSecret, writeSecret } from '../keys/secret-file.ts'

/** What a witness is known by: its certificate, and the two secrets that open its door. */
export interface WitnessIdentity {
  tls: KeyAndCertificate
  fingerprint: string
  /** Whoever has it may register a new pair. */
  enrolmentToken: string
  /** Whoever has it may list and retire pairs: the operator of this witness. */
  operatorToken: string
}

export const enrolmentTokenName = 'enrolment-token'
export const operatorTokenName = 'operator-token'

/** Makes what is missing; a key that is there is kept, since clients pin its certificate. */
export async function witnessIdentity(part: {
  folder: string
  addresses: readonly string[]
  /** The operator's own certificate, instead of a self-signed one. */
  given: KeyAndCertificate | null
}): Promise<WitnessIdentity> {
  const tls = part.given ?? (await ownCertificate(part))
  return {
    tls,
    fingerprint: fingerprintOf(new X509Certificate(tls.certificatePem)),
    enrolmentToken: await tokenIn(join(part.folder, enrolmentTokenName)),
    operatorToken: await tokenIn(join(part.folder, operatorTokenName)),
  }
}

async function ownCertificate(part: { folder: string; addresses: readonly string[] }): Promise<KeyAndCertificate> {
  const paths = { key: join(part.folder, 'tls-key.pem'), certificate: join(part.folder, 'tls-cert.pem') }
  const [key, certificate] = [readSecret(paths.key), readSecret(paths.certificate)]
  if (key !== null && certificate !== null) return { keyPem: key.toString(), certificatePem: certificate.toString() }
  const name = { commonName: `understudy witness ${hostname()}`.slice(0, 63), addresses: part.addresses }
  const made = await makeWitnessCertificate(part.folder, name)
  await writeKeyAndCertificate(paths, made)
  return made
}

async function tokenIn(path: string): Promise<string> {
  const present = readSecret(path)?.toString().trim()
  if (present !== undefined && present.length >= 20) return present
  const made = randomBytes(24).toString('base64url')
  await writeSecret(path, Buffer.from(`${made}\n`))
  return made
}
