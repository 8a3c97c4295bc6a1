import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { PrivateJwk } from '../../../shared/contract/signing.ts'
import { makePrivateJwk, makeSigningSecrets, type SigningSecrets, signingSecrets } from '../../auth/signing-keys.ts'
import { type AuthoritySecrets, makeAuthority } from '../../auth/x509.ts'

/** Keys that were made here at the first start; enrolled hosts know this control plane by them, so they are kept. */
export async function localSecrets(folder: string): Promise<SigningSecrets> {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const path = join(folder, 'signing.json')
  if (existsSync(path)) {
    const parsed = signingSecrets.safeParse(readSecret(path, enrolAnew))
    if (parsed.success) return parsed.data
    throw new Error(`${path} is damaged: restore it from a backup; without it ${enrolAnew}`)
  }
  const root = await rootKey(folder)
  const made = await makeSigningSecrets(root, { version: 1, now: new Date() })
  writeSecret(path, JSON.stringify(made, null, 2))
  return made
}

async function rootKey(folder: string): Promise<PrivateJwk> {
  const path = join(folder, 'root.json')
  if (existsSync(path)) return readSecret(path, enrolAnew) as PrivateJwk
  const made = await makePrivateJwk()
  writeSecret(path, JSON.stringify(made, null, 2))
  return made
}

export async function localAuthority(folder: string): Promise<AuthoritySecrets> {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const path = join(folder, 'broker-authority.json')
  if (existsSync(path)) return readSecret(path, 'no certificate of the broker is known any more') as AuthoritySecrets
  const made = await makeAuthority('understudy broker authority', new Date())
  writeSecret(path, JSON.stringify(made, null, 2))
  return made
}

/** Whole or not at all, also after a loss of power: hosts that enrolled know nobody else than these keys. */
export function writeSecret(path: string, text: string): void {
  writeFileSync(`${path}.new`, text, { mode: 0o600, flush: true })
  renameSync(`${path}.new`, path)
  const folder = openSync(dirname(path), 'r')
  fsyncSync(folder)
  closeSync(folder)
}

/** @param without what is lost with it @throws with the file, when it is no JSON */
export function readSecret(path: string, without: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    throw new Error(`${path} is damaged: restore it from a backup; without it ${without}`)
  }
}
const enrolAnew = 'every host has to enrol anew'
