import { generateKeyPairSync } from 'node:crypto'
import { z } from 'zod'
import type { HostFacts } from '../../shared/contract/api/host-facts.ts'
import { decodeTicket, type EnrolmentTicket, enrolmentProof } from '../../shared/contract/documents.ts'
import type { PrivateJwk } from '../../shared/contract/signing.ts'
import { importSigningKey, toBase64url } from '../../shared/signing.ts'
import { pkcs8Of } from '../keys/enrolment-key.ts'
import { readSecret, writeSecret } from '../keys/secret-file.ts'
import { acceptTrust } from './trust.ts'

/** Who this host is for its control plane: made by the enrolment, kept in one file that only root reads. */
const jwk = z.object({ kty: z.literal('OKP'), crv: z.literal('Ed25519'), x: z.string(), d: z.string() })
export const identitySchema = z.object({
  v: z.literal(1),
  url: z.string(),
  host: z.string(),
  organisation: z.string(),
  name: z.string(),
  rootFingerprint: z.string(),
  key: jwk,
  sealingKey: z.object({ kty: z.literal('OKP'), crv: z.literal('X25519'), x: z.string(), d: z.string() }),
  broker: z.object({ url: z.string() }).nullable(),
})
export type Identity = z.output<typeof identitySchema>

/** What a host is known by: to sign, and to be sealed to. */
export const hostKeysSchema = identitySchema.pick({ key: true, sealingKey: true })
export type HostKeyPair = z.output<typeof hostKeysSchema>

/** The keys of an enrolment that was not answered yet: asking again with the same keys is the same request. */
const pendingSchema = hostKeysSchema.extend({ secret: z.string() })

/** null: this host is not enrolled. @throws with a sentence if the file is damaged */
export function readIdentity(path: string): Identity | null {
  const bytes = readSecret(path)
  if (bytes === null) return null
  const parsed = identitySchema.safeParse(parseJson(bytes.toString()))
  if (parsed.success) return parsed.data
  throw new Error(`${path} is damaged: restore it from a backup, or enrol this host anew as the replacement of itself`)
}

export interface EnrolOptions {
  /** Where the identity will lie. */
  path: string
  /** What the operator brought. */
  ticketText: string
  facts: HostFacts
  agentVersion: string
  fetch?: typeof fetch
}

/**
 * Presents the ticket, with keys that are made here and never leave. The answer counts only if its trust document is
 * signed by the root whose fingerprint the ticket carries: whoever sits between cannot enrol a host into his own fleet.
 * @throws with a sentence
 */
export async function enrol(options: EnrolOptions): Promise<Identity> {
  const present = readIdentity(options.path)
  if (present !== null)
    throw new Error(`this host is enrolled already, as ${present.name} (${present.host}) at ${present.url}`)
  const ticket = decodeTicket(options.ticketText)
  if (ticket === null)
    throw new Error('this is no enrolment token: it begins with "understudy-enrol-1." and is one line')
  const { key, sealingKey } = await pendingKeys(options.path, ticket)
  const body = {
    token: options.ticketText.trim(),
    publicKey: key.x,
    sealingKey: sealingKey.x,
    proof: await proofOf({ key, sealingKey, ticket }),
    facts: options.facts,
    agentVersion: options.agentVersion,
  }
  const answer = await (options.fetch ?? fetch)(`${ticket.url}/agent/v1/enrol`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(enrolLimitMs),
  })
  const text = await answer.text()
  if (!answer.ok) throw new Error(`${ticket.url} refuses the enrolment: ${detailOf(text)}`)
  const reply = enrolReply.parse(parseJson(text))
  const trusted = await acceptTrust(reply.trust, { rootFingerprint: ticket.root, heldVersion: 0 })
  if (!trusted.ok)
    throw new Error(
      `${ticket.url} is not the control plane that the token was made for: ${trusted.why}. Nothing was kept; ask who made the token`,
    )
  const identity: Identity = {
    v: 1,
    url: ticket.url,
    host: reply.host,
    organisation: reply.organisation,
    name: reply.name,
    rootFingerprint: ticket.root,
    key,
    sealingKey,
    broker: reply.broker,
  }
  await writeIdentity(options.path, identity)
  return identity
}

export const writeIdentity = (path: string, identity: Identity): Promise<void> =>
  writeSecret(path, Buffer.from(`${JSON.stringify(identity, null, 2)}\n`))

const enrolLimitMs = 30_000
const enrolReply = z.object({
  host: z.string(),
  organisation: z.string(),
  name: z.string(),
  trust: z.string(),
  broker: z.object({ url: z.string() }).nullable(),
})

async function pendingKeys(path: string, ticket: EnrolmentTicket): Promise<HostKeyPair> {
  const pendingPath = `${path}.pending`
  const bytes = readSecret(pendingPath)
  const known = bytes === null ? null : pendingSchema.safeParse(parseJson(bytes.toString()))
  if (known?.success === true && known.data.secret === ticket.secret) return known.data
  const made = { ...newHostKeys(), secret: ticket.secret }
  await writeSecret(pendingPath, Buffer.from(JSON.stringify(made)))
  return made
}

export const newHostKeys = (): HostKeyPair => ({
  key: newKey('ed25519') as PrivateJwk,
  sealingKey: newKey('x25519') as Identity['sealingKey'],
})

function newKey(kind: 'ed25519' | 'x25519'): PrivateJwk | Identity['sealingKey'] {
  const { privateKey } = kind === 'ed25519' ? generateKeyPairSync('ed25519') : generateKeyPairSync('x25519')
  const { x, d } = privateKey.export({ format: 'jwk' })
  return { kty: 'OKP', crv: kind === 'ed25519' ? 'Ed25519' : 'X25519', x: String(x), d: String(d) }
}

async function proofOf(part: { key: PrivateJwk; sealingKey: { x: string }; ticket: EnrolmentTicket }): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(part.ticket.secret)))
  const text = enrolmentProof({ tokenHash: toBase64url(hash), publicKey: part.key.x, sealingKey: part.sealingKey.x })
  return signText(part.key, text)
}

export async function signText(key: PrivateJwk, text: string): Promise<string> {
  const signingKey = await importSigningKey(pkcs8Of(key))
  return toBase64url(new Uint8Array(await crypto.subtle.sign('Ed25519', signingKey, new TextEncoder().encode(text))))
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

function detailOf(text: string): string {
  const parsed = z.object({ detail: z.string() }).safeParse(parseJson(text))
  return parsed.success ? parsed.data.detail : text.slice(0, 200)
}
