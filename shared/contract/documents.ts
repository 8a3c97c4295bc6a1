import { z } from 'zod'
import { id, slot } from './api/common.ts'
import { syncPartition } from './api/sync-partition.ts'
import { publicKey } from './witness.ts'

/** The signed documents between the control plane, fleet tooling and agents, beside the desired document. */

const seconds = z.int().min(0)
const text = z.string().max(500)

/** Who may sign what. Signed by the root alone, whose fingerprint came with the enrolment token. */
export const trustDocument = z.object({
  v: z.literal(1),
  /** Only grows; an older one is refused. */
  version: z.int().min(1),
  issuedAt: z.iso.datetime(),
  root: publicKey,
  keys: z
    .array(z.object({ kid: z.string().max(64), publicKey, uses: z.array(z.enum(['desired', 'command'])) }))
    .min(1)
    .max(16),
})
export type TrustDocument = z.output<typeof trustDocument>

/** Says which document is the newest one: a broker that holds documents back can't make this up. */
export const freshDocument = z.object({
  v: z.literal(1),
  host: id,
  generation: z.int().min(0),
  /** Of the desired document's text; '' for none. */
  sha256: z.string(),
  issuedAt: z.iso.datetime(),
})
export type FreshDocument = z.output<typeof freshDocument>

export const verbs = {
  /** Hand the service to the peer, or, on the backup, ask for it. */
  switchover: z.strictObject({}),
  /** Forced: this host becomes primary; an operator vouches that the other is off. */
  takeover: z.strictObject({
    withWitness: z.boolean(),
    /** A gen that this host has only heard of, forced on the other host: what was written in it is given up. */
    overGen: z.exactOptional(z.int().min(1)),
  }),
  maintenance: z.strictObject({ forMs: z.int().min(0) }),
  prechecks: z.strictObject({
    peerAddresses: z.array(z.string().max(45)).max(4),
    vips: z.array(z.string().max(50)).max(32),
    sync: z.exactOptional(syncPartition),
    /** Asked whether it is there, and how long the way to it takes; without it there is none to ask. */
    witness: z.exactOptional(
      z.strictObject({
        url: z.url({ protocol: /^https$/ }).max(300),
        /** SHA-256 of its certificate, hex; null: public authorities vouch for it. */
        fingerprint: z.string().max(64).nullable(),
        /** What the pair's profile admits for a vote, at p99. */
        limitMs: z.number().min(1).max(60_000),
      }),
    ),
  }),
  /** Begins the pair here; the result carries the joining secret, sealed to the other host's key. */
  pairBegin: z.strictObject({ peerSealingKey: publicKey }),
  pairJoin: z.strictObject({ sealed: z.string().max(64 * 1024) }),
  /** The primary goes on alone; the backup leaves with its data kept. */
  pairLeave: z.strictObject({
    /** To the primary: the other host is gone for good and gets no command. What it knows of the pair opens nothing here any more. */
    otherIsLost: z.exactOptional(z.literal(true)),
  }),
  /** The keys that this host enrolled with, in place: new ones are made here, and presented for the operation of the command. */
  hostKeys: z.strictObject({}),
  /** What the host has of networks and storage; the result holds `network` and `storage`. */
  inventory: z.strictObject({}),
  /** Adapters look for devices again; []: all of them. */
  storageScan: z.strictObject({
    adapters: z.array(z.string().max(64)).max(64),
    /** Fibre Channel: the link of the named adapters is reset first, which interrupts their traffic. */
    lip: z.boolean(),
    limitSeconds: z.int().min(1).max(600),
  }),
  /** What an iSCSI portal offers; nothing is logged in. */
  storageDiscovery: z.strictObject({ portal: z.string().max(64) }),
  initiatorName: z.strictObject({ name: z.string().max(300), logOutSessions: z.boolean() }),
  /** One virtual switch is made or changed, or one is removed. */
  vswitch: z.strictObject({
    put: z.record(z.string(), z.unknown()).nullable(),
    remove: z.string().max(64).nullable(),
  }),
} as const
export type Verb = keyof typeof verbs
export const verbNames = Object.keys(verbs) as [Verb, ...Verb[]]

/** What an organisation's own tooling may command by a key of its own. Nothing that can lose data or end a pair. */
export const toolVerbs = ['switchover', 'maintenance', 'prechecks'] as const satisfies readonly Verb[]
/** An organisation has a handful of tools; each key stands in the desired document of each host. */
export const toolKeysMax = 16
/** What the header of a tool's command names, so that it is no other key's. */
export const toolKid = (id: string): string => `tool-${id}`

/** A key of tooling, as hosts are told of it. */
export const trustedTool = z.object({
  kid: z.string().max(64),
  publicKey,
  verbs: z.array(z.enum(toolVerbs)).max(toolVerbs.length),
})
export type TrustedTool = z.output<typeof trustedTool>

/** A command older than this has no business any more; also what an agent accepts at most. */
export const commandLifeSecondsMax = 300
/** Clocks of two machines that are kept by time servers are closer than this. */
export const clockSkewSecondsMax = 120

export const command = z.object({
  v: z.literal(1),
  organisation: id,
  /** The one host it is meant for. */
  audience: id,
  pair: id.nullable(),
  operation: id,
  /** One use: the same id again gets the first result again. */
  jti: id,
  verb: z.enum(verbNames),
  args: z.record(z.string(), z.unknown()),
  issuedAt: seconds,
  expiresAt: seconds,
  /** What must hold on the host, or the command is refused: late, replayed and misdirected ones change nothing. */
  only: z.object({
    gen: z.exactOptional(z.int().min(0)),
    epoch: z.exactOptional(z.int().min(0)),
    node: z.exactOptional(slot),
  }),
  actor: z.string().max(200),
})
export type Command = z.output<typeof command>

export const ackPhases = ['accepted', 'progress', 'done', 'failed', 'refused'] as const
export const ack = z.object({
  v: z.literal(1),
  host: id,
  operation: id,
  jti: id,
  phase: z.enum(ackPhases),
  message: text,
  percent: z.int().min(0).max(100).nullable(),
  /** Of a finished command; bounded by the message. */
  result: z.record(z.string(), z.unknown()).nullable(),
  at: z.iso.datetime(),
})
export type Ack = z.output<typeof ack>
/** A sealed joining secret is the greatest result. */
export const ackBytesMax = 96 * 1024

/** Of a host's HTTPS request, in the header Authorization after `Understudy `. */
export const signedRequest = z.object({
  v: z.literal(1),
  host: id,
  method: z.enum(['GET', 'POST']),
  /** With the query. */
  path: z.string().max(500),
  /** SHA-256 of the body, base64url. */
  body: z.string().max(64),
  issuedAt: seconds,
})

/** What an enrolling host signs with its new key: it has the key, and means this control plane. */
export const enrolmentProof = (part: { tokenHash: string; publicKey: string; sealingKey: string }): string =>
  ['understudy-enrolment-1', part.tokenHash, part.publicKey, part.sealingKey].join('\n')

/** What a host signs with the new key when it changes its keys: it has that key, and means this change. */
export const hostKeysProof = (part: {
  host: string
  operation: string
  publicKey: string
  sealingKey: string
}): string => ['understudy-host-keys-1', part.host, part.operation, part.publicKey, part.sealingKey].join('\n')

const enrolmentPrefix = 'understudy-enrol-1.'
/** What the operator carries to the host: where to enrol, whom to trust there, and the secret. */
export const enrolmentTicket = z.strictObject({ url: z.url(), root: z.string(), secret: z.string().min(20).max(100) })
export type EnrolmentTicket = z.output<typeof enrolmentTicket>

export const encodeTicket = (ticket: EnrolmentTicket): string =>
  enrolmentPrefix + btoa(JSON.stringify(ticket)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')

/** null: this is no ticket. */
export function decodeTicket(text: string): EnrolmentTicket | null {
  const trimmed = text.trim()
  if (!trimmed.startsWith(enrolmentPrefix)) return null
  try {
    const json = atob(trimmed.slice(enrolmentPrefix.length).replaceAll('-', '+').replaceAll('_', '/'))
    const parsed = enrolmentTicket.safeParse(JSON.parse(json))
    return parsed.success ? parsed.data : null
  } catch {
    return null
  }
}
