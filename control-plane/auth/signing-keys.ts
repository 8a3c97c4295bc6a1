import { z } from 'zod'
import type { TrustDocument } from '../../shared/contract/documents.ts'
import { heartbeatSecretOf } from '../../shared/contract/heartbeat-mac.ts'
import { documentSigner, fingerprintOfKey, type PrivateJwk } from '../../shared/contract/signing.ts'
import { toBase64url } from '../../shared/signing.ts'
import type { Deps } from '../deps.ts'

/**
 * The keys by which agents know this control plane. The root signs one thing, the trust document, and can be kept
 * offline; what runs holds the signing key and the document.
 */
export const signingSecrets = z.object({
  kid: z.string().min(1).max(64),
  signingKey: z.object({ kty: z.literal('OKP'), crv: z.literal('Ed25519'), x: z.string(), d: z.string() }),
  trustDocument: z.string().min(1),
  rootFingerprint: z.string().min(20),
})
export type SigningSecrets = z.output<typeof signingSecrets>

export async function makePrivateJwk(): Promise<PrivateJwk> {
  const pair = (await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify'])) as {
    privateKey: Parameters<typeof crypto.subtle.exportKey>[1]
  }
  const { x, d } = (await crypto.subtle.exportKey('jwk', pair.privateKey)) as { x: string; d: string }
  return { kty: 'OKP', crv: 'Ed25519', x, d }
}

/** `version` only grows: a new signing key is a new version of the document, by the same root. */
export async function makeSigningSecrets(
  root: PrivateJwk,
  { version, now }: { version: number; now: Date },
): Promise<SigningSecrets> {
  const signingKey = await makePrivateJwk()
  const kid = `cp-${toBase64url(crypto.getRandomValues(new Uint8Array(9)))}`
  const document: TrustDocument = {
    v: 1,
    version,
    issuedAt: now.toISOString(),
    root: root.x,
    keys: [{ kid, publicKey: signingKey.x, uses: ['desired', 'command'] }],
  }
  const signer = await documentSigner('root', root)
  return {
    kid,
    signingKey,
    trustDocument: await signer.sign('trust', document),
    rootFingerprint: await fingerprintOfKey(root.x),
  }
}

export async function signingDeps(
  secrets: SigningSecrets,
): Promise<Pick<Deps, 'signer' | 'trust' | 'heartbeatSecret'>> {
  return {
    signer: await documentSigner(secrets.kid, secrets.signingKey),
    trust: { document: secrets.trustDocument, rootFingerprint: secrets.rootFingerprint },
    heartbeatSecret: heartbeatSecretOf(secrets.signingKey.d),
  }
}
