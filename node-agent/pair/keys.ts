import { randomBytes } from 'node:crypto'
import { dirname, join } from 'node:path'
import type { Config } from '../config.ts'
import { makeFolder } from '../folders.ts'
import {
  type KeyAndCertificate,
  makeAuthority,
  makeHostCertificate,
  writeKeyAndCertificate,
} from '../keys/certificates.ts'
import { makeHostKeyPem, writeHostKey } from '../keys/host-key.ts'
import { readSecret, writeSecret } from '../keys/secret-file.ts'

/** Keys are made once and never replaced by a repeated set-up: the other host and the witness know them. */

export const pairKeyBytes = 32

export async function ensurePairKey(path: string): Promise<string> {
  const present = readSecret(path)?.toString('utf8').trim()
  if (present !== undefined) return present
  const made = randomBytes(pairKeyBytes).toString('base64url')
  await writePairKey(path, made)
  return made
}

export async function writePairKey(path: string, key: string): Promise<void> {
  makeFolderOf(path)
  await writeSecret(path, Buffer.from(`${key}\n`))
}

export async function ensureHostKey(path: string, pem: string = makeHostKeyPem()): Promise<void> {
  if (readSecret(path) !== null) return
  makeFolderOf(path)
  await writeHostKey(path, pem)
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

/** The pair's authority and this host's certificate; answers with the certificate of the other host. */
export async function ensureCertificates(config: Config): Promise<{ authorityPem: string; other: KeyAndCertificate }> {
  const folder = join(config.stateDir, 'tls')
  makeFolder(folder, 0o700)
  const paths = tlsPaths(config)
  const authority = await ensure(folder, { key: 'authority.key', certificate: 'authority.pem' }, () =>
    makeAuthority(folder, `understudy ${config.pair}`),
  )
  const own = config.node
  const other = own === 'a' ? 'b' : 'a'
  const nameOf = (node: string, addresses: string[]) => ({ commonName: `understudy-${config.pair}-${node}`, addresses })
  const local = config.peer.paths.map(path => path.local)
  const remote = config.peer.paths.map(path => path.peer)
  if (readSecret(paths.key) === null) {
    await writeKeyAndCertificate(paths, await makeHostCertificate(folder, { authority, name: nameOf(own, local) }))
  }
  const made = await ensure(folder, { key: `${other}.key`, certificate: `${other}.pem` }, () =>
    makeHostCertificate(folder, { authority, name: nameOf(other, remote) }),
  )
  return { authorityPem: authority.certificatePem, other: made }
}

export async function writeCertificates(
  config: Config,
  tls: { authorityPem: string } & KeyAndCertificate,
): Promise<void> {
  makeFolder(join(config.stateDir, 'tls'), 0o700)
  const paths = tlsPaths(config)
  await writeSecret(paths.authority, Buffer.from(tls.authorityPem))
  await writeKeyAndCertificate(paths, tls)
}

async function ensure(
  folder: string,
  names: { key: string; certificate: string },
  make: () => Promise<KeyAndCertificate>,
): Promise<KeyAndCertificate> {
  const paths = { key: join(folder, names.key), certificate: join(folder, names.certificate) }
  const [key, certificate] = [readSecret(paths.key), readSecret(paths.certificate)]
  if (key !== null && certificate !== null) return { keyPem: key.toString(), certificatePem: certificate.toString() }
  const made = await make()
  await writeKeyAndCertificate(paths, made)
  return made
}

function makeFolderOf(path: string): void {
  makeFolder(dirname(path), 0o700)
}
