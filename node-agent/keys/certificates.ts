import { X509Certificate } from 'node:crypto'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { removeJournalFile } from '../state-file/change-journal.ts'
import { openssl } from './openssl.ts'
import { readSecret, writeSecret } from './secret-file.ts'

/**
 * Certificates: one authority for each pair, which signs one certificate for each host, used in both directions of
 * PostgreSQL's streaming (server and client), and the witness' own. EC P-256, which every TLS library speaks.
 */
export interface KeyAndCertificate {
  keyPem: string
  certificatePem: string
}

/** Ten years: a pair's authority is prolonged where a leaf would outlast it (pair/keys.ts), its leaves are renewed from it. */
const authorityDays = 3650
/** Longer than any maintenance window, short enough to be practised. */
export const leafDays = 825

export interface CertificateName {
  /** Shown in logs, and matched by pg_ident or clientcert=verify-full. */
  commonName: string
  /** IP addresses and DNS names it is reached by. */
  addresses: readonly string[]
}

export function makeAuthority(folder: string, commonName: string): Promise<KeyAndCertificate> {
  const extensions = ['basicConstraints=critical,CA:TRUE,pathlen:0', 'keyUsage=critical,keyCertSign,cRLSign']
  return selfSigned({ folder, commonName, extensions, days: authorityDays })
}

/** Of the same key and name, so that what it has signed stays valid: each host prolongs what it has by itself. */
export function prolongAuthority(
  folder: string,
  authority: KeyAndCertificate,
  days = authorityDays,
): Promise<KeyAndCertificate> {
  return inPrivateFolder(folder, async at => {
    writeFileSync(at('key'), authority.keyPem, { mode: 0o600 })
    writeFileSync(at('before'), authority.certificatePem)
    const signed = ['-signkey', at('key'), '-days', String(days)]
    await openssl(['x509', '-sha256', '-in', at('before'), ...signed, '-out', at('pem')])
    return { keyPem: authority.keyPem, certificatePem: readFileSync(at('pem'), 'utf8') }
  })
}

export function makeWitnessCertificate(folder: string, name: CertificateName): Promise<KeyAndCertificate> {
  const extensions = ['basicConstraints=critical,CA:FALSE', 'extendedKeyUsage=serverAuth', alternativeNames(name)]
  return selfSigned({ folder, commonName: name.commonName, extensions, days: authorityDays })
}

export function makeHostCertificate(
  folder: string,
  part: { authority: KeyAndCertificate; name: CertificateName; days?: number },
): Promise<KeyAndCertificate> {
  return inPrivateFolder(folder, async at => {
    const { authority, name } = part
    writeFileSync(at('ca.key'), authority.keyPem, { mode: 0o600 })
    writeFileSync(at('ca.pem'), authority.certificatePem)
    await makeKey(at('key'))
    writeFileSync(
      at('ext'),
      [
        'basicConstraints=critical,CA:FALSE',
        'keyUsage=critical,digitalSignature',
        'extendedKeyUsage=serverAuth,clientAuth',
        alternativeNames(name),
      ].join('\n'),
    )
    await openssl(['req', '-new', '-key', at('key'), '-subj', subject(name.commonName), '-out', at('csr')])
    const signedBy = ['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-extfile', at('ext')]
    const serial = ['-set_serial', `0x${crypto.randomUUID().replaceAll('-', '').slice(0, 30)}`]
    const days = ['-days', String(part.days ?? leafDays)]
    await openssl(['x509', '-req', '-sha256', '-in', at('csr'), ...signedBy, ...serial, ...days, '-out', at('pem')])
    return { keyPem: readFileSync(at('key'), 'utf8'), certificatePem: readFileSync(at('pem'), 'utf8') }
  })
}

function selfSigned(part: {
  folder: string
  commonName: string
  extensions: string[]
  days: number
}): Promise<KeyAndCertificate> {
  return inPrivateFolder(part.folder, async at => {
    await makeKey(at('key'))
    const extensions = part.extensions.flatMap(extension => ['-addext', extension])
    const to = ['-subj', subject(part.commonName), '-days', String(part.days), '-out', at('pem')]
    // Without a configuration file of our own the system's would add extensions a second time.
    writeFileSync(at('cnf'), '[req]\ndistinguished_name=dn\n[dn]\n')
    await openssl(['req', '-x509', '-new', '-sha256', '-config', at('cnf'), '-key', at('key'), ...extensions, ...to])
    return { keyPem: readFileSync(at('key'), 'utf8'), certificatePem: readFileSync(at('pem'), 'utf8') }
  })
}

async function makeKey(path: string): Promise<void> {
  // The file exists with its mode before the key is in it.
  writeFileSync(path, '', { mode: 0o600 })
  await openssl(['genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', path])
  chmodSync(path, 0o600)
}

/** Keys pass through a folder that nobody else can enter, and that is gone afterwards. */
async function inPrivateFolder<T>(folder: string, make: (at: (name: string) => string) => Promise<T>): Promise<T> {
  const inner = mkdtempSync(join(folder, '.making-'))
  try {
    return await make(name => join(inner, name))
  } finally {
    rmSync(inner, { recursive: true, force: true })
  }
}

export interface KeyAndCertificatePaths {
  key: string
  certificate: string
}

/**
 * PostgreSQL reads key and certificate from two files, and does not start with two that don't belong together. So both lie in
 * a third one until both are written: `finishKeyAndCertificate` ends what a kill, a loss of power or a full disk cut off.
 */
export async function writeKeyAndCertificate(paths: KeyAndCertificatePaths, made: KeyAndCertificate): Promise<void> {
  const { keyPem, certificatePem } = made
  await writeSecret(bothIn(paths), Buffer.from(JSON.stringify({ keyPem, certificatePem })))
  await finishKeyAndCertificate(paths)
}

/** Nothing is done where nothing was cut off. */
export async function finishKeyAndCertificate(paths: KeyAndCertificatePaths): Promise<void> {
  const both = readSecret(bothIn(paths))
  if (both === null) return
  const { keyPem, certificatePem } = JSON.parse(both.toString()) as KeyAndCertificate
  await writeSecret(paths.key, Buffer.from(keyPem))
  await writeSecret(paths.certificate, Buffer.from(certificatePem))
  removeJournalFile({ folder: dirname(paths.key), name: basename(bothIn(paths)) })
}

const bothIn = ({ key }: KeyAndCertificatePaths): string => key + bothSuffix
export const bothSuffix = '.with-certificate.json'

/** SHA-256 of the certificate in DER, lower case hex without colons: what a client pins. */
export const fingerprintOf = (certificate: X509Certificate): string =>
  certificate.fingerprint256.replaceAll(':', '').toLowerCase()

/** Of the first one of several. */
export const daysLeft = (certificatePem: string, nowMs = Date.now()): number =>
  Math.floor((new X509Certificate(certificatePem).validToDate.getTime() - nowMs) / 86_400_000)

export const certificatesOf = (text: string): string[] =>
  text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []

function subject(commonName: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$/.test(commonName)) {
    throw new Error(`"${commonName}" can't be the name in a certificate: letters, digits, space, dot, dash, 63 at most`)
  }
  return `/CN=${commonName}`
}

function alternativeNames({ commonName, addresses }: CertificateName): string {
  const names = addresses.length > 0 ? addresses : [commonName.replaceAll(' ', '-')]
  const entries = names.map(name => {
    if (isIP(name) > 0) return `IP:${name}`
    if (/^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(name)) return `DNS:${name}`
    throw new Error(`"${name}" is neither an IP address nor a DNS name`)
  })
  return `subjectAltName=${entries.join(',')}`
}
