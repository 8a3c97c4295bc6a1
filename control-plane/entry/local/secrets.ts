import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { PrivateJwk } from '../../../shared/contract/signing.ts'
import { makePrivateJwk, makeSigningSecrets, type SigningSecrets, signingSecrets } from '../../auth/signing-keys.ts'
import { type AuthoritySecrets, makeAuthority } from '../../auth/x509.ts'

/** Keys that were made here at the first start; enrolled hosts know this control plane by them, so they are kept. */
export async function localSecrets(folder: string): Promise<SigningSecrets> {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const path = join(folder, 'signing.json')
  if (existsSync(path)) {
    const parsed = signingSecrets.safeParse(JSON.parse(readFileSync(path, 'utf8')))
    if (parsed.success) return parsed.data
    throw new Error(`${path} is damaged: restore it from a backup; without it every host has to enrol anew`)
  }
  const root = await rootKey(folder)
  const made = await makeSigningSecrets(root, { version: 1, now: new Date() })
  writeSecret(path, JSON.stringify(made, null, 2))
  return made
}

async function rootKey(folder: string): Promise<PrivateJwk> {
  const path = join(folder, 'root.json')
  if (existsSync(path)) return JSON.parse(readFileSync(path, 'utf8')) as PrivateJwk
  const made = await makePrivateJwk()
  writeSecret(path, JSON.stringify(made, null, 2))
  return made
}

export async function localAuthority(folder: string): Promise<AuthoritySecrets> {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const path = join(folder, 'broker-authority.json')
  if (existsSync(path)) return JSON.parse(readFileSync(path, 'utf8')) as AuthoritySecrets
  const made = await makeAuthority('understudy broker authority', new Date())
  writeSecret(path, JSON.stringify(made, null, 2))
  return made
}

/** Whole or not at all. */
export function writeSecret(path: string, text: string): void {
  writeFileSync(`${path}.new`, text, { mode: 0o600 })
  renameSync(`${path}.new`, path)
}
