import { and, eq, gte, ne, sql } from 'drizzle-orm'
import type { z } from 'zod'
import type { replaceMember } from '../../../shared/contract/api/pairs.ts'
import { otherNode } from '../../../shared/protocol/nodes.ts'
import type { Member } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import { type host, pair, witnessVote } from '../../db/schema/index.ts'
import type { Deps } from '../../deps.ts'
import { Refusal } from '../../http/problem.ts'
import { replacementPlan } from '../../operations/plan.ts'
import { isConnected } from '../host/host-view.ts'
import { openPairOf } from '../host/read-hosts.ts'
import type { OperationRow } from '../operation/operation-view.ts'
import { refuseSecond, startOperation } from '../operation/start.ts'
import { recordEvents } from '../record/events.ts'
import { registeredKeys } from '../witness/members.ts'
import { issueDesired } from './issue-desired.ts'
import { measuredOf } from './measured.ts'
import { reportsOf } from './pair-view.ts'
import { pairingOf } from './pairing.ts'
import { knownPrechecks } from './prechecks.ts'
import { lockPair } from './read-pairs.ts'

/**
 * A host that is lost for good is replaced in two steps. First another one enrols in its place: from then on it is the
 * pair's, both hosts are told so, and the hosted witness knows it by its key. Whether the machine is a new one, or the old one that
 * lost its identity and has its store and data still, only the operator knows; so that a new one joins is asked for.
 */
export async function takePlace(
  tx: Transaction,
  deps: Deps,
  part: { organisation: string; from: string; to: typeof host.$inferSelect },
): Promise<void> {
  const { organisation, from, to } = part
  const [of] = await tx.select().from(pair).where(openPairOf(from)).for('no key update')
  if (of === undefined) return
  // A command that is under way names the host that it was meant for.
  await refuseSecond(tx, of.id)
  const slot = of.hostA === from ? 'a' : 'b'
  await tx
    .update(pair)
    .set({ ...(slot === 'a' ? { hostA: to.id } : { hostB: to.id }), version: sql`version + 1` })
    .where(eq(pair.id, of.id))
  await knowByItsKey(tx, { organisation, pair: of.name, since: of.createdAt })
  const other = slot === 'a' ? of.hostB : of.hostA
  await issueDesired(tx, deps, { organisation, hosts: [to.id, other] })
  await recordEvents(tx, organisation, [
    {
      at: deps.now(),
      kind: 'host_replaced',
      severity: 'info',
      pair: of.id,
      host: to.id,
      message: `host ${to.name} takes place ${slot} of pair ${of.name}, instead of ${from}`,
      data: { replaces: from },
    },
  ])
}

/** The acceptor keeps what it promised; who may ask it is who is enrolled for the pair. Not that of an ended pair of this name. */
async function knowByItsKey(tx: Transaction, of: { organisation: string; pair: string; since: Date }): Promise<void> {
  const keys = await registeredKeys(tx, of)
  await tx
    .update(witnessVote)
    .set({ keys, keysGeneration: sql`${witnessVote.keysGeneration} + 1` })
    .where(
      and(
        eq(witnessVote.organisation, of.organisation),
        eq(witnessVote.pair, of.pair),
        gte(witnessVote.admittedAt, of.since),
        ne(witnessVote.keys, keys),
      ),
    )
}

/** The host that is left gives the joining secret once more, which changes nothing there; the new one joins with it. */
export async function joinReplacement(
  tx: Transaction,
  deps: Deps,
  part: { id: string; member: Member; wanted: z.output<typeof replaceMember.body> },
): Promise<OperationRow> {
  const { host: slot, reason } = part.wanted
  const rows = await lockPair(tx, part)
  await refuseSecond(tx, part.id)
  const now = deps.now()
  const left = otherNode(slot)
  const names = { a: rows.hosts.a.host.name, b: rows.hosts.b.host.name }
  if (rows.pair.state !== 'paired')
    throw new Refusal('conflict', `pair ${rows.pair.name} is not set up yet: resume its set-up`)
  const reports = reportsOf(rows, now)
  const joining = reports[slot]
  if (joining !== null)
    throw new Refusal(
      'conflict',
      `host ${names[slot]} reports that it is ${joining.role} of this pair: it has a store of it already`,
    )
  const obstacles = [
    ...(isConnected(rows.hosts[slot], now) === 'yes' ? [] : [`host ${names[slot]} was not heard within 30 s`]),
    ...(reports[left]?.role === 'primary' && reports[left].serving
      ? []
      : [`host ${names[left]} does not report that it is primary and serves: it is whom the new host copies`]),
    ...knownPrechecks({
      settings: rows.pair.settings,
      hosts: rows.hosts,
      pair: part.id,
      hostedWitness: deps.witness,
      now,
    })
      .filter(one => one.severity === 'blocking' && one.code !== 'connected')
      .map(one => `${one.code}${one.host === null ? '' : ` (host ${one.host})`}: ${one.measured}; ${one.remedy}`),
  ]
  if (obstacles.length > 0)
    throw new Refusal('operation_refused', `host ${names[slot]} cannot join now: ${obstacles.join('; ')}`, {
      obstacles,
    })
  const work = replacementPlan(pairingOf(rows), { slot, measured: measuredOf(rows.pair, deps) })
  return startOperation(tx, deps, {
    organisation: part.member.organisation,
    kind: 'replacement',
    pair: part.id,
    work,
    actor: part.member.subject,
    reason,
  })
}
