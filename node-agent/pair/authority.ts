import { createPrivateKey, X509Certificate } from 'node:crypto'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { otherNode } from '../../shared/protocol/nodes.ts'
import type { Config } from '../config.ts'
import { makeFolder } from '../folders.ts'
import {
  bothSuffix,
  certificatesOf,
  fingerprintOf,
  type KeyAndCertificate,
  makeAuthority,
} from '../keys/certificates.ts'
import { readSecret, writeSecret } from '../keys/secret-file.ts'
import { nextAuthorityName, tlsPaths } from './keys.ts'

/**
 * The authority of a pair's certificates, and the one that is to take its place. Until it has, `authority.key` and the first
 * certificate of `authority.pem` are those before, and the next one lies beside them: trusted here, and nothing signed by it
 * yet. What is trusted only grows until both hosts show a certificate of the next one, so that either can go back at any
 * moment before, whatever the other one shows by then.
 */
const stagedSchema = z.object({
  v: z.literal(1),
  /** Of the change of keys that it belongs to. */
  change: z.string(),
  keyPem: z.string().max(2000),
  certificatePem: z.string().max(4000),
})
/** The one in use, and those of changes that came to nothing and of which a host may still show a certificate. */
const trustedMax = 8

const folderOf = ({ stateDir }: Pick<Config, 'stateDir'>): string => join(stateDir, 'tls')
const stagedFile = (config: Pick<Config, 'stateDir'>): string => join(folderOf(config), nextAuthorityName)

/** null: no other authority is to take the place of the present one. */
export function readNextAuthority(config: Pick<Config, 'stateDir'>): (KeyAndCertificate & { change: string }) | null {
  const bytes = readSecret(stagedFile(config))
  return bytes === null ? null : stagedSchema.parse(JSON.parse(bytes.toString()))
}

/**
 * Trusted here from the next start on, beside those before. For a change that has one already it stays as it is.
 * @param given by the other host, which has made it; null: this one makes it
 */
export async function trustNextAuthority(
  config: Config,
  { change, given }: { change: string; given: KeyAndCertificate | null },
): Promise<KeyAndCertificate> {
  const folder = folderOf(config)
  makeFolder(folder, 0o700)
  const known = readNextAuthority(config)
  const next = known?.change === change ? known : (given ?? (await makeAuthority(folder, nameOf(config, change))))
  const { keyPem, certificatePem } = next
  if (next !== known) {
    const staged: z.input<typeof stagedSchema> = { v: 1, change, keyPem, certificatePem }
    await writeSecret(stagedFile(config), Buffer.from(`${JSON.stringify(staged)}\n`))
  }
  const path = tlsPaths(config).authority
  const trusted = certificatesOf(readFileSync(path, 'utf8'))
  if (!trusted.some(one => same(one, certificatePem))) {
    const [first, ...others] = trusted
    const kept = [first!, ...others.slice(2 - trustedMax), certificatePem]
    await writeSecret(path, Buffer.from(kept.map(one => `${one.trim()}\n`).join('')))
  }
  return { keyPem, certificatePem }
}

/** Each authority of a pair has its own name: a certificate says by name who signed it. */
const nameOf = ({ pair }: Config, change: string): string => `understudy ${pair} ${change}`.slice(0, 63)

/** Both hosts show certificates of it: those before are trusted no more. Cut off in the middle, it is done again. */
export async function settleNextAuthority(config: Config): Promise<void> {
  const next = readNextAuthority(config)
  if (next === null) return
  const at = (name: string): string => join(folderOf(config), name)
  await writeSecret(at('authority.key'), Buffer.from(next.keyPem))
  await writeSecret(tlsPaths(config).authority, Buffer.from(next.certificatePem))
  // The other host's, for whoever joins in its place: made anew when they are wanted (keys.ts).
  const other = otherNode(config.node)
  for (const name of [`${other}.pem`, `${other}.key`, `${other}.key${bothSuffix}`]) rmSync(at(name), { force: true })
  forgetNextAuthority(config)
}

/** It is not to take the place of the present one any more; trusted it stays, as the other host may still show it. */
export const forgetNextAuthority = (config: Pick<Config, 'stateDir'>): void =>
  rmSync(stagedFile(config), { force: true })

/** The host's certificate and key belong together, and this authority signed it. */
export function isCertifiedBy({ certificatePem }: Pick<KeyAndCertificate, 'certificatePem'>, config: Config): boolean {
  const { key, certificate } = tlsPaths(config)
  return isOf(certificatePem, { key: readSecret(key), certificate: readSecret(certificate) })
}

/** Fingerprints of authorities, as this host's database has them, which may be less than the files of the pair say. */
export interface AuthoritiesInForce {
  /** Whose certificate it shows; null: of none that it takes. */
  shown: string | null
  /** Whose certificates it takes. */
  taken: string[]
}

export function authoritiesInForce(config: Config): AuthoritiesInForce {
  const { authority, certificate } = tlsPaths(config)
  const given = (name: string, from: string): string => {
    const copy = join(config.stateDir, 'postgres', name)
    return existsSync(copy) ? copy : from
  }
  const [ca, shown] = [given('ca.crt', authority), given('server.crt', certificate)]
  if (!existsSync(ca) || !existsSync(shown)) return { shown: null, taken: [] }
  const own = new X509Certificate(readFileSync(shown))
  const all = certificatesOf(readFileSync(ca, 'utf8')).map(pem => new X509Certificate(pem))
  const by = all.find(one => own.verify(one.publicKey))
  return { shown: by === undefined ? null : fingerprintOf(by), taken: all.map(fingerprintOf) }
}

function isOf(authorityPem: string, own: { key: Buffer | null; certificate: Buffer | null }): boolean {
  if (own.key === null || own.certificate === null) return false
  const certificate = new X509Certificate(own.certificate)
  return (
    certificate.verify(new X509Certificate(authorityPem).publicKey) &&
    certificate.checkPrivateKey(createPrivateKey(own.key))
  )
}

const same = (one: string, other: string): boolean =>
  new X509Certificate(one).fingerprint256 === new X509Certificate(other).fingerprint256
