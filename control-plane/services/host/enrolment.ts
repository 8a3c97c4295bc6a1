import { and, eq, gt } from 'drizzle-orm'
import type { z } from 'zod'
import type { createEnrolmentToken, enrolHost as enrolHostRoute } from '../../../shared/contract/api/hosts.ts'
import { decodeTicket, encodeTicket, enrolmentProof } from '../../../shared/contract/documents.ts'
import { ulid } from '../../../shared/ids.ts'
import { fromBase64url, importPublicKey, toBase64url } from '../../../shared/signing.ts'
import type { Member } from '../../auth/caller.ts'
import { hashOf, newSecret } from '../../auth/tokens.ts'
import type { Transaction } from '../../db/client.ts'
import { enrolmentToken, host } from '../../db/schema/index.ts'
import type { Deps } from '../../deps.ts'
import { isTaken, notFound, Refusal } from '../../http/problem.ts'
import { takePlace } from '../pair/replace.ts'
import { recordAudit } from '../record/audit.ts'
import { recordEvents } from '../record/events.ts'
import { endHost } from './change-host.ts'
import { type HostRows, isConnected } from './host-view.ts'
import { readHost, readHosts } from './read-hosts.ts'

type Wanted = z.output<typeof createEnrolmentToken.body>
type Presented = z.output<typeof enrolHostRoute.body>

/** The operator's ticket to one host: shown once, kept as a hash, used once. */
export async function makeEnrolmentToken(
  tx: Transaction,
  { deps, by, wanted }: { deps: Deps; by: Member; wanted: Wanted },
) {
  const { organisation } = by
  const now = deps.now()
  if (wanted.replaces !== undefined) refuseReplacing(await readHost(tx, { id: wanted.replaces, member: by }), now)
  else if (by.pairs !== null)
    throw new Refusal(
      'forbidden',
      'this credential is limited to some pairs, and a new host is in none of them: name the host that it replaces',
    )
  await refuseTakenName(tx, { organisation, name: wanted.name, replaces: wanted.replaces ?? null })
  const secret = newSecret()
  const row = {
    id: ulid(now.getTime()),
    organisation,
    name: wanted.name,
    hash: await hashOf(secret),
    replaces: wanted.replaces ?? null,
    createdAt: now,
    expiresAt: new Date(now.getTime() + wanted.expiresInMinutes * 60_000),
  }
  await tx.insert(enrolmentToken).values(row)
  const token = encodeTicket({ url: deps.publicUrl, root: deps.trust.rootFingerprint, secret })
  return { id: row.id, name: row.name, expiresAt: row.expiresAt.toISOString(), token }
}

async function refuseTakenName(
  tx: Transaction,
  { organisation, name, replaces }: { organisation: string; name: string; replaces: string | null },
): Promise<void> {
  const [present] = await tx
    .select({ id: host.id })
    .from(host)
    .where(and(eq(host.organisation, organisation), eq(host.name, name), eq(host.state, 'active')))
  if (present !== undefined && present.id !== replaces)
    throw new Refusal(
      'name_taken',
      `host ${present.id} has the name ${name}; choose another one, or say that it is replaced`,
    )
}

/**
 * A host presents its ticket's secret, its keys, and a signature by the new key. The ticket's row
 * is held from its check to its use, so two hosts with one ticket get one place. The same host may ask again with the same keys
 * while the ticket is not over: an answer that was lost must not strand it.
 */
export async function enrolHost(tx: Transaction, { deps, presented }: { deps: Deps; presented: Presented }) {
  const now = deps.now()
  const ticket = decodeTicket(presented.token)
  const refused = new Refusal('unauthenticated', 'the enrolment token is unknown, used or over: make a new one')
  if (ticket === null) throw refused
  const hash = await hashOf(ticket.secret)
  await proveKey(presented, hash)
  const [held] = await tx
    .select()
    .from(enrolmentToken)
    .where(and(eq(enrolmentToken.hash, hash), gt(enrolmentToken.expiresAt, now)))
    .for('update')
  if (held === undefined || (held.usedBy !== null && held.usedBy !== presented.publicKey)) throw refused
  const { organisation, name, replaces } = held
  const [again] = await tx
    .select()
    .from(host)
    .where(and(eq(host.organisation, organisation), eq(host.publicKey, presented.publicKey), eq(host.state, 'active')))
  // The host that used it was retired since, or has other keys: whoever kept its request makes no other one of it.
  if (held.usedAt !== null && again === undefined) throw refused
  await tx
    .update(enrolmentToken)
    .set({ usedAt: now, usedBy: presented.publicKey })
    .where(eq(enrolmentToken.id, held.id))
  const row = again ?? (await newHost(tx, deps, { presented, organisation, name, replaces }))
  if (again === undefined) {
    await recordEvents(tx, organisation, [
      {
        at: now,
        kind: 'host_enrolled',
        severity: 'info',
        pair: null,
        host: row.id,
        message: `host ${row.name} enrolled`,
      },
    ])
    await recordAudit(tx, organisation, {
      at: now,
      actor: `enrolment token ${held.id}`,
      action: 'enrolHost',
      resource: `host ${row.id}`,
      outcome: 'done',
      details: { publicKey: row.publicKey, replaces },
    })
  }
  return {
    host: row.id,
    organisation,
    name: row.name,
    trust: deps.trust.document,
    broker: deps.brokerUrl === null ? null : { url: deps.brokerUrl },
  }
}

async function proveKey(presented: Presented, hash: Uint8Array): Promise<void> {
  const { publicKey, sealingKey } = presented
  const key = await importPublicKey(publicKey)
  const text = enrolmentProof({ tokenHash: toBase64url(hash), publicKey, sealingKey })
  const signature = fromBase64url(presented.proof)
  const valid =
    key !== null &&
    signature !== null &&
    (await crypto.subtle.verify('Ed25519', key, signature, new TextEncoder().encode(text)))
  if (!valid) throw new Refusal('unauthenticated', 'the proof is no signature of this token by the key it presents')
}

async function newHost(
  tx: Transaction,
  deps: Deps,
  part: { presented: Presented; organisation: string; name: string; replaces: string | null },
): Promise<typeof host.$inferSelect> {
  const { presented, organisation, name, replaces } = part
  const now = deps.now()
  const id = ulid(now.getTime())
  if (replaces !== null) await retireReplaced(tx, { replaces, organisation, now })
  const [row] = await tx
    .insert(host)
    .values({
      id,
      organisation,
      name,
      publicKey: presented.publicKey,
      sealingKey: presented.sealingKey,
      facts: presented.facts,
      agentVersion: presented.agentVersion,
      replaces,
      enrolledAt: now,
    })
    .returning()
    .catch((error: unknown) => {
      if (isTaken(error, 'host_name_of_active'))
        throw new Refusal(
          'name_taken',
          `the name ${name} was given to another host meanwhile; make a new enrolment token`,
        )
      throw error
    })
  if (replaces !== null) await takePlace(tx, deps, { organisation, from: replaces, to: row! })
  return row!
}

async function retireReplaced(
  tx: Transaction,
  { replaces, organisation, now }: { replaces: string; organisation: string; now: Date },
): Promise<void> {
  const [old] = await readHosts(tx, {
    where: and(eq(host.id, replaces), eq(host.organisation, organisation)),
    limit: 1,
  })
  if (old === undefined) throw notFound('host', replaces)
  refuseReplacing(old, now)
  await endHost(tx, old.host, now)
}

/** What is heard is alive: its key would open nothing any more while it may serve. @throws Refusal */
function refuseReplacing(old: HostRows, now: Date): void {
  const { name, state } = old.host
  if (state === 'retired')
    throw new Refusal('conflict', `host ${name} is retired: its place is free, or was taken by another one already`)
  if (isConnected(old, now) === 'yes')
    throw new Refusal(
      'conflict',
      `host ${name} was heard within 30 s: switch it off for good before another one takes its place, or end its pair and retire it`,
    )
}
