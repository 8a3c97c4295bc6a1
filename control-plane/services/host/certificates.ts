import { fromBase64url } from '../../../shared/signing.ts'
import { type AuthoritySecrets, authorityPem, isPublicKey, issueCertificate } from '../../auth/x509.ts'
import { invalid, Refusal } from '../../http/problem.ts'

/**
 * Short, and renewed at half of it. Whoever's certificate is over asks again by the key it enrolled with, which does not
 * end: a host that slept for months comes back by itself, and a retired one never. `name`: what the broker knows the
 * client by, of `brokerName`.
 */
export const certificateLifeHours = 72

export async function brokerCertificate(
  authority: AuthoritySecrets | null,
  part: { name: string; publicKey: string; now: Date },
): Promise<{ certificate: string; authority: string; endsAt: string }> {
  const spki = fromBase64url(part.publicKey)
  if (spki === null || !(await isPublicKey(spki)))
    throw invalid(
      [{ field: 'body.publicKey', message: 'is no P-256 key (SubjectPublicKeyInfo, DER, base64url)' }],
      'format',
    )
  if (authority === null)
    throw new Refusal('conflict', 'this control plane has no broker of its own to issue certificates for')
  const notAfter = new Date(part.now.getTime() + certificateLifeHours * 3_600_000)
  const certificate = await issueCertificate(
    authority,
    {
      commonName: part.name,
      publicKey: spki,
      use: 'client',
      names: [{ kind: 'uri', value: `understudy://${part.name}` }],
      notAfter,
    },
    part.now,
  )
  return { certificate, authority: authorityPem(authority), endsAt: notAfter.toISOString() }
}
