import { and, eq, sql } from 'drizzle-orm'
import type { z } from 'zod'
import type { presentKeys } from '../../../shared/contract/api/agents.ts'
import { hostKeysProof } from '../../../shared/contract/documents.ts'
import { fromBase64url, importPublicKey } from '../../../shared/signing.ts'
import type { Member } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import { host as hostTable, operation, pair } from '../../db/schema/index.ts'
import type { Deps } from '../../deps.ts'
import { Refusal } from '../../http/problem.ts'
import { hostPlan } from '../../operations/plan.ts'
import type { OperationRow } from '../operation/operation-view.ts'
import { refuseSecond, startOperation } from '../operation/start.ts'
import { issueDesired } from '../pair/issue-desired.ts'
import { recordAudit } from '../record/audit.ts'
import { recordEvents } from '../record/events.ts'
import { exchangeVoterKey } from '../witness/members.ts'
import { refuseSecondOfHost, refuseUnheard } from './host-tabs.ts'
import { lockHost, openPairOf } from './read-hosts.ts'

/**
 * The keys by which a host is known here are changed in two steps: an operator asks for it, and the host makes new ones and
 * presents them, signed by those before. They are taken in one statement, so one of the two pairs of keys that the host
 * then has counts at any moment; both hosts of its pair, and the hosted witness, know the new ones from that commit on.
 */
export async function changeHostKeys(
  tx: Transaction,
  deps: Deps,
  part: { id: string; member: Member; reason: string },
): Promise<OperationRow> {
  const { id, member, reason } = part
  const rows = await lockHost(tx, part)
  const { host } = rows
  if (host.state === 'retired') throw new Refusal('conflict', `host ${host.name} is retired`)
  await refuseSecondOfHost(tx, id)
  const [of] = await tx.select().from(pair).where(openPairOf(id))
  if (of?.state === 'set up wanted')
    throw new Refusal('conflict', `pair ${of.name} is not set up yet, and its secrets are sealed to the present keys`)
  // What is under way there may be sealed to the present keys.
  if (of !== undefined) await refuseSecond(tx, of.id)
  refuseUnheard(rows, deps.now())
  return startOperation(tx, deps, {
    organisation: member.organisation,
    kind: 'hostKeys',
    pair: null,
    host: id,
    work: hostPlan({ host: id, name: host.name, verb: 'hostKeys', args: {} }),
    actor: member.subject,
    reason,
  })
}

/** From the host itself, whose request the present key has signed. @throws Refusal */
export async function takeHostKeys(
  tx: Transaction,
  deps: Deps,
  part: { organisation: string; host: string; presented: z.output<typeof presentKeys.body> },
): Promise<void> {
  const { organisation, host, presented } = part
  const { publicKey, sealingKey } = presented
  await refuseUnproven(host, presented)
  const now = deps.now()
  const [row] = await tx.select().from(hostTable).where(eq(hostTable.id, host)).for('no key update')
  if (row === undefined) throw new Refusal('unauthenticated', `no host ${host} is enrolled here`)
  // Its answer was lost, or it asks twice.
  if (row.publicKey === publicKey && row.sealingKey === sealingKey) return
  const [asked] = await tx
    .select({ actor: operation.actor })
    .from(operation)
    .where(
      and(
        eq(operation.id, presented.operation),
        eq(operation.host, host),
        eq(operation.kind, 'hostKeys'),
        eq(operation.state, 'running'),
      ),
    )
  if (asked === undefined)
    throw new Refusal('conflict', `nobody asks host ${row.name} for new keys by operation ${presented.operation}`)
  await tx.update(hostTable).set({ publicKey, sealingKey, version: sql`version + 1` }).where(eq(hostTable.id, host))
  await exchangeVoterKey(tx, { organisation, from: row.publicKey, to: publicKey, now })
  const [of] = await tx.select().from(pair).where(openPairOf(host))
  await issueDesired(tx, deps, { organisation, hosts: of === undefined ? [host] : [of.hostA, of.hostB] })
  await recordEvents(tx, organisation, [
    {
      ...{ at: now, kind: 'host_keys_changed', severity: 'info', pair: of?.id ?? null, host },
      message: `host ${row.name} has new keys: those before open nothing any more`,
    },
  ])
  await recordAudit(tx, organisation, {
    at: now,
    actor: asked.actor,
    action: 'presentKeys',
    resource: `host ${host}`,
    outcome: 'done',
    details: { operation: presented.operation, publicKey, before: row.publicKey },
  })
}

async function refuseUnproven(host: string, presented: z.output<typeof presentKeys.body>): Promise<void> {
  const key = await importPublicKey(presented.publicKey)
  const signature = fromBase64url(presented.proof)
  const text = new TextEncoder().encode(hostKeysProof({ host, ...presented }))
  if (key !== null && signature !== null && (await crypto.subtle.verify('Ed25519', key, signature, text))) return
  throw new Refusal('unauthenticated', 'the proof is no signature of this change by the key it presents')
}
