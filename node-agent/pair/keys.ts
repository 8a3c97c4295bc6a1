import { randomBytes, X509Certificate } from 'node:crypto'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { otherNode } from '../../shared/protocol/nodes.ts'
import type { Config } from '../config.ts'
import { makeFolder } from '../folders.ts'
import {
  type CertificateName,
  certificatesOf,
  daysLeft,
  finishKeyAndCertificate,
  type KeyAndCertificate,
  leafDays,
  makeAuthority,
  makeHostCertificate,
  prolongAuthority,
  writeKeyAndCertificate,
} from '../keys/certificates.ts'
import { hostKeyOf, hostKeysMax, makeHostKeyPem, pemsOf, writeHostKey } from '../keys/host-key.ts'
import { readSecret, writeSecret } from '../keys/secret-file.ts'
import { readKeyRing } from './key-ring.ts'
import { readSetup, writeSetup } from './setup-file.ts'

/** Keys are made once and never replaced by a repeated set-up: the other host and the witness know them. */

export const pairKeyBytes = 32

export async function ensurePairKey(path: string): Promise<string> {
  if (readSecret(path) !== null) {
    const { newest, change } = readKeyRing(path)
    return (change?.before ?? newest).toString('base64url')
  }
  const made = randomBytes(pairKeyBytes).toString('base64url')
  await writePairKey(path, made)
  return made
}

export async function writePairKey(path: string, key: string): Promise<void> {
  makeFolderOf(path)
  await writeSecret(path, Buffer.from(`${key}\n`))
}

export async function ensureHostKey(path: string): Promise<void> {
  if (readSecret(path) !== null) return
  makeFolderOf(path)
  await writeHostKey(path, makeHostKeyPem())
}

/**
 * Those of a token, the newest first: after this host was shut out a witness knows it by that one, and by an old token it
 * knows it by one of those here, which stay beside it.
 */
export async function takeHostKeys(path: string, text: string): Promise<void> {
  const [newest = '', ...others] = pemsOf(text)
  const here = readSecret(path)?.toString() ?? null
  const all = new Set([newest, ...(here === null ? [] : pemsOf(here)), ...others])
  makeFolderOf(path)
  await writeHostKey(path, [...all].slice(0, hostKeysMax).join(''))
}

/** The other host's keys, newest in use first, from itself: for whoever joins in its place. @throws with a sentence */
export async function keepOtherHostKey({ stateDir }: Pick<Config, 'stateDir'>, text: string): Promise<void> {
  await Promise.all(pemsOf(text).map(hostKeyOf))
  const setup = readSetup(stateDir)
  if (setup === null) throw new Error(`${stateDir} holds no set-up in which the other host’s key could be kept`)
  if (setup.otherHostKeyPem !== text) await writeSetup(stateDir, { ...setup, otherHostKeyPem: text })
}

/** Certificates for PostgreSQL's streaming, where the operator names none of his own. */
export interface TlsPaths {
  authority: string
  key: string
  certificate: string
}
export function tlsPaths(config: Config): TlsPaths {
  const { tls } = config.postgres
  if (tls !== null) return { authority: tls.caFile, key: tls.keyFile, certificate: tls.certFile }
  const at = (name: string): string => join(config.stateDir, 'tls', name)
  return { authority: at('authority.pem'), key: at('host.key'), certificate: at('host.pem') }
}

/** Of the authority that is to take the place of the present one (authority.ts). */
export const nextAuthorityName = 'next-authority.json'

/** Of the files of the certificate that a change of keys may go back to (control/key-change.ts). */
export const keptSuffix = '.before'

/** Of the other host, kept for its token. */
function othersPaths({ stateDir, node }: Config): { key: string; certificate: string } {
  const at = (suffix: string): string => join(stateDir, 'tls', `${otherNode(node)}.${suffix}`)
  return { key: at('key'), certificate: at('pem') }
}

interface PairCertificates {
  authority: KeyAndCertificate
  /** Of the other host. */
  other: KeyAndCertificate
}

/** The pair's authority and this host's certificate; answers with the other host's, which is made anew once it is old. */
export async function ensureCertificates(config: Config): Promise<PairCertificates> {
  const folder = join(config.stateDir, 'tls')
  makeFolder(folder, 0o700)
  const paths = tlsPaths(config)
  const authority = await ensure({ key: join(folder, 'authority.key'), certificate: paths.authority }, () =>
    makeAuthority(folder, `understudy ${config.pair}`),
  )
  await ensure(paths, () => makeHostCertificate(folder, { authority, name: nameIn(config, 'this host') }))
  const forOther = () => makeHostCertificate(folder, { authority, name: nameIn(config, 'the other host') })
  const kept = await ensure(othersPaths(config), forOther)
  const other = daysLeft(kept.certificatePem) > leafDays / 2 ? kept : await forOther()
  if (other !== kept) await writeKeyAndCertificate(othersPaths(config), other)
  return { authority, other }
}

function nameIn({ pair, node, peer }: Config, of: 'this host' | 'the other host'): CertificateName {
  const other = otherNode(node)
  return of === 'this host'
    ? { commonName: `understudy-${pair}-${node}`, addresses: peer.paths.map(path => path.local) }
    : { commonName: `understudy-${pair}-${other}`, addresses: peer.paths.map(path => path.peer) }
}

/**
 * A new certificate from the pair's authority, beside the one in use, which stays valid: whoever has one is let in, so they
 * are replaced on one host at a time. null: the authority's key is not here, but on the other host.
 */
export async function newCertificate(
  config: Config,
  of: 'this host' | 'the other host',
): Promise<KeyAndCertificate | null> {
  const folder = join(config.stateDir, 'tls')
  const [key, certificate] = ['authority.key', 'authority.pem'].map(name => readSecret(join(folder, name)))
  if (!key || !certificate) return null
  // One of the authority before would soon be trusted by nobody.
  if (existsSync(join(folder, nextAuthorityName)))
    throw new Error(
      'the authority of this pair is being changed, and its certificates with it: ask again when that has ended',
    )
  const authority = await lasting(config, { keyPem: key.toString(), certificatePem: certificate.toString() })
  return makeHostCertificate(folder, { authority, name: nameIn(config, of) })
}

/** What it signs ends with it: where that would be soon it is prolonged first. */
async function lasting(config: Config, authority: KeyAndCertificate): Promise<KeyAndCertificate> {
  if (daysLeft(authority.certificatePem) > leafDays) return authority
  const folder = join(config.stateDir, 'tls')
  const prolonged = await prolongAuthority(folder, authority)
  const others = certificatesOf(authority.certificatePem).slice(1)
  const trusted = [prolonged.certificatePem, ...others].map(one => `${one.trim()}\n`).join('')
  await writeSecret(join(folder, 'authority.pem'), Buffer.from(trusted))
  return prolonged
}

/** A new one for this host, from an authority that its database and the other host's trust already. */
export const certificateBy = (config: Config, authority: KeyAndCertificate): Promise<KeyAndCertificate> =>
  makeHostCertificate(join(config.stateDir, 'tls'), { authority, name: nameIn(config, 'this host') })

/** From the authority's key here, or from the host that has it. @throws with a sentence */
export async function renewedCertificate(
  config: Config,
  fromOther: () => Promise<KeyAndCertificate>,
): Promise<KeyAndCertificate> {
  const made = (await newCertificate(config, 'this host')) ?? (await fromOther())
  const { authority } = tlsPaths(config)
  if (new X509Certificate(made.certificatePem).verify(new X509Certificate(readFileSync(authority)).publicKey))
    return made
  throw new Error(`the new certificate is not of the authority in ${authority}`)
}

/** For the other host, over the pair's own link. @throws with a sentence */
export async function certificateForOther(config: Config): Promise<KeyAndCertificate> {
  const made = config.postgres.tls === null ? await newCertificate(config, 'the other host') : null
  if (made !== null) return made
  throw new Error(
    `host ${config.node} does not have the key of the pair’s authority either: a host that is gone had it`,
  )
}

/**
 * The other host is gone for good: a key of the pair that nobody else has, and certificates of an authority that is new. In this
 * order, so that there are whole ones at any moment; cut off in the middle, it is done again. The operator's own certificates
 * (`postgres.tls`) are his to replace.
 */
export async function replaceSecrets(config: Config): Promise<void> {
  const folder = join(config.stateDir, 'tls')
  if (config.postgres.tls === null) {
    const authority = await makeAuthority(folder, `understudy ${config.pair}`)
    const own = await makeHostCertificate(folder, { authority, name: nameIn(config, 'this host') })
    const theirs = await makeHostCertificate(folder, { authority, name: nameIn(config, 'the other host') })
    const { certificatePem: authorityPem, keyPem: authorityKeyPem } = authority
    await writeCertificates(config, { authorityPem, authorityKeyPem, ...own })
    await writeKeyAndCertificate(othersPaths(config), theirs)
    // Of a change of keys that was under way: to go back to it would be to go back to the authority of before.
    const { key, certificate } = tlsPaths(config)
    const open = [join(folder, nextAuthorityName), certificate + keptSuffix, key + keptSuffix]
    for (const path of open) rmSync(path, { force: true })
  }
  await writePairKey(config.pairKeyFile, randomBytes(pairKeyBytes).toString('base64url'))
}

export async function writeCertificates(
  config: Config,
  tls: { authorityPem: string; authorityKeyPem: string | null } & KeyAndCertificate,
): Promise<void> {
  const folder = join(config.stateDir, 'tls')
  makeFolder(folder, 0o700)
  const paths = tlsPaths(config)
  await writeSecret(paths.authority, Buffer.from(tls.authorityPem))
  if (tls.authorityKeyPem !== null) await writeSecret(join(folder, 'authority.key'), Buffer.from(tls.authorityKeyPem))
  await writeKeyAndCertificate(paths, tls)
}

/** Both, or anew: one alone is what a set-up left that was interrupted. */
async function ensure(
  paths: { key: string; certificate: string },
  make: () => Promise<KeyAndCertificate>,
): Promise<KeyAndCertificate> {
  await finishKeyAndCertificate(paths)
  const [key, certificate] = [readSecret(paths.key), readSecret(paths.certificate)]
  if (key !== null && certificate !== null) return { keyPem: key.toString(), certificatePem: certificate.toString() }
  const made = await make()
  await writeKeyAndCertificate(paths, made)
  return made
}

function makeFolderOf(path: string): void {
  makeFolder(dirname(path), 0o700)
}
