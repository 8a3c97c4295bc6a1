import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Config } from '../config.ts'
import { certificatesOf } from '../keys/certificates.ts'
import { tlsPaths } from './keys.ts'

/**
 * When the certificates of this host's database end. A connection that stands outlives them, so that nothing is seen of it
 * until the standby connects anew, after a restart or a takeover: then it is refused, and so are the file trees. The hosts'
 * link has a key instead, and a witness that is known by its fingerprint is known by that alone.
 */
export interface CertificateEnd {
  of: 'host' | 'authority'
  beginsMs: number
  /** Milliseconds of the wall clock, as all of it. */
  endsMs: number
}

/** More than once through a summer in which nobody looks; new ones are there within a second. */
const warnDays = 60
const dayMs = 86_400_000

/** As the database has them, which may be less than the files of the pair say; [] where they can't be read. */
export async function certificateEnds(config: Config): Promise<CertificateEnd[]> {
  const { authority, certificate } = tlsPaths(config)
  const inForce = (name: string, from: string): Promise<string> =>
    readFile(join(config.stateDir, 'postgres', name), 'utf8').catch(() => readFile(from, 'utf8'))
  try {
    const [ca, shown] = await Promise.all([inForce('ca.crt', authority), inForce('server.crt', certificate)])
    const own = new X509Certificate(shown)
    const all = certificatesOf(ca).map(pem => new X509Certificate(pem))
    // An authority that was prolonged has two certificates, of which either will do.
    const [by] = all.filter(one => own.verify(one.publicKey)).sort((one, other) => endOf(other) - endOf(one))
    return [spanOf('host', own), ...(by === undefined ? [] : [spanOf('authority', by)])]
  } catch {
    return []
  }
}

const endOf = (certificate: X509Certificate): number => certificate.validToDate.getTime()

const spanOf = (of: CertificateEnd['of'], certificate: X509Certificate): CertificateEnd => ({
  of,
  beginsMs: certificate.validFromDate.getTime(),
  endsMs: endOf(certificate),
})

/** A sentence with the remedy, or ''. */
export function certificateTrouble(
  ends: readonly CertificateEnd[],
  { nowMs, isOwn }: { nowMs: number; isOwn: boolean },
): string {
  const whose = { host: 'the certificate of this host', authority: 'the certificate of the pair’s authority' }
  const [first] = [...ends].sort((one, other) => one.endsMs - other.endsMs)
  const early = ends.find(one => nowMs < one.beginsMs)
  if (early !== undefined)
    return `${whose[early.of]} is valid from ${dateOf(early.beginsMs)} on, and the clock of this host says ${dateOf(nowMs)}: set the clock, or make a new certificate with \`understudy change certificate\``
  if (first === undefined || first.endsMs - nowMs > warnDays * dayMs) return ''
  const remedy = isOwn
    ? 'replace the files that postgres.tls names and run `understudy reload`, on the backup first'
    : 'run `understudy change certificate` here and on the other host; nothing is interrupted'
  return `${whose[first.of]} ${first.endsMs > nowMs ? 'ends' : 'ended'} on ${dateOf(first.endsMs)}, and a standby that connects after that is refused: ${remedy}`
}

const dateOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10)
