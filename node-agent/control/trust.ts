import { type TrustDocument, trustDocument } from '../../shared/contract/documents.ts'
import { fingerprintOfKey, type KeyRing, verifyDocument } from '../../shared/contract/signing.ts'

export type Trusted = { ok: true; document: TrustDocument } | { ok: false; why: string }

/** Who may sign for this host: by the root that came with the enrolment, and never an older document than the last. */
export async function acceptTrust(
  text: string,
  { rootFingerprint, heldVersion }: { rootFingerprint: string; heldVersion: number },
): Promise<Trusted> {
  // The root's key stands in the document it signs; what makes it the root is its fingerprint.
  const root = rootNamedIn(text)
  if (root === null || (await fingerprintOfKey(root)) !== rootFingerprint)
    return { ok: false, why: 'its trust document names another root key' }
  const verified = await verifyDocument(text, 'trust', kid => (kid === 'root' ? root : null))
  if (!verified.ok) return { ok: false, why: `its trust document is not signed by its root: ${verified.why}` }
  const parsed = trustDocument.safeParse(verified.payload)
  if (!parsed.success) return { ok: false, why: 'its trust document is of a form this version does not know' }
  if (parsed.data.version < heldVersion)
    return { ok: false, why: `its trust document is version ${parsed.data.version}; version ${heldVersion} was seen` }
  return { ok: true, document: parsed.data }
}

/** The keys that may sign documents of one use. */
export const keyRing =
  (document: TrustDocument, use: 'desired' | 'command'): KeyRing =>
  kid =>
    document.keys.find(key => key.kid === kid && key.uses.includes(use))?.publicKey ?? null

function rootNamedIn(text: string): string | null {
  try {
    const { payload } = JSON.parse(text) as { payload: string }
    const { root } = JSON.parse(Buffer.from(payload, 'base64url').toString()) as { root?: unknown }
    return typeof root === 'string' ? root : null
  } catch {
    return null
  }
}
