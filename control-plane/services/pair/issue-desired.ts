import { and, eq, inArray, ne, or } from 'drizzle-orm'
import type { DesiredDocument } from '../../../shared/contract/api/settings.ts'
import type { FreshDocument } from '../../../shared/contract/documents.ts'
import { sha256Hex } from '../../../shared/contract/signing.ts'
import { channels, downTopic } from '../../../shared/contract/topics.ts'
import { enqueue } from '../../broker/outbox.ts'
import type { Transaction } from '../../db/client.ts'
import { host, hostDesired, hostReported, organisation as organisations, pair } from '../../db/schema/index.ts'
import type { Deps } from '../../deps.ts'
import { trustedToolsOf } from '../token/trusted-tools.ts'
import { hostedWitnessUrl } from './measured.ts'

/**
 * Renders and signs the whole wish for hosts, each with a generation one above its last, and puts it and the word of its
 * freshness into the outbox. Full documents, never deltas: whichever of them arrives last is enough.
 * @returns the generation of each host's document
 */
export async function issueDesired(
  tx: Transaction,
  deps: Deps,
  { organisation, hosts }: { organisation: string; hosts: readonly string[] },
): Promise<Map<string, number>> {
  const issued = new Map<string, number>()
  const now = deps.now()
  const rows = await tx
    .select()
    .from(host)
    .where(inArray(host.id, [...hosts]))
  const pairs = await tx
    .select()
    .from(pair)
    .where(and(or(inArray(pair.hostA, [...hosts]), inArray(pair.hostB, [...hosts])), ne(pair.state, 'unpaired')))
  const partners = pairs.flatMap(one => [one.hostA, one.hostB])
  const known =
    partners.length === 0
      ? rows
      : await tx
          .select()
          .from(host)
          .where(inArray(host.id, [...hosts, ...partners]))
  // Read before the keys: a change that comes between makes this document one that is issued again.
  const [owner] = await tx
    .select({ toolsVersion: organisations.toolsVersion })
    .from(organisations)
    .where(eq(organisations.id, organisation))
  const tools = await trustedToolsOf(tx, organisation)
  // In one order, so that two who change the wishes of the same hosts never wait for each other.
  for (const id of [...hosts].sort()) {
    const [present] = await tx.select().from(hostDesired).where(eq(hostDesired.host, id)).for('update')
    const generation = Math.max(present?.generation ?? 0, await toldGeneration(tx, id)) + 1
    const own = pairs.find(one => one.hostA === id || one.hostB === id) ?? null
    const section = sectionOf(id, own, { known, witness: deps.witness })
    const document: DesiredDocument = {
      v: 1,
      organisation,
      host: id,
      generation,
      issuedAt: now.toISOString(),
      pair: section,
      tools: section === null ? [] : tools(section.id),
    }
    const jws = await deps.signer.sign('desired', document)
    const sha256 = await sha256Hex(jws)
    const row = {
      ...{ organisation, generation, jws, sha256, toolsVersion: owner?.toolsVersion ?? 0 },
      ...{ pushedAt: now, pushAt: new Date(now.getTime() + pushAgainMs.behind) },
    }
    await tx
      .insert(hostDesired)
      .values({ host: id, ...row })
      .onConflictDoUpdate({ target: hostDesired.host, set: row })
    await enqueueDesired(tx, deps, [{ host: id, ...row }])
    issued.set(id, generation)
  }
  return issued
}

/**
 * The highest that the host has told of. Above ours it is only after our database was restored from a backup: the host
 * refuses whatever is older, and rightly so.
 */
async function toldGeneration(tx: Transaction, id: string): Promise<number> {
  const [told] = await tx.select().from(hostReported).where(eq(hostReported.host, id))
  return Math.min(told === undefined ? 0 : Math.max(told.observedGeneration, told.body.applied.generation), toldMax)
}
/** Whoever lies about it must not use up the numbers, nor keep us issuing. */
export const toldMax = 2 ** 48

function sectionOf(
  id: string,
  row: typeof pair.$inferSelect | null,
  { known, witness }: { known: readonly (typeof host.$inferSelect)[]; witness: Deps['witness'] },
): DesiredDocument['pair'] {
  if (row === null) return null
  const peer = known.find(one => one.id === (row.hostA === id ? row.hostB : row.hostA))
  if (peer === undefined) throw new Error(`pair ${row.id} names a host that is not there`)
  return {
    id: row.id,
    name: row.name,
    node: row.hostA === id ? 'a' : 'b',
    settings: row.settings,
    peer: { host: peer.id, name: peer.name, publicKey: peer.publicKey, sealingKey: peer.sealingKey },
    hostedWitness: witness === null ? null : { ...witness, url: hostedWitnessUrl(witness.url, row.organisation) },
  }
}

/** A host that is behind is told again after this; one that is not, often enough that a broker which lost all is healed. */
export const pushAgainMs = { behind: 60_000, steady: 55 * 60_000 }

/** Also by the sweep, again and again: a broker may have lost what it retained. */
export async function enqueueDesired(
  tx: Transaction,
  deps: Deps,
  rows: readonly { host: string; organisation: string; generation: number; jws: string; sha256: string }[],
): Promise<void> {
  const signed = await Promise.all(rows.map(async row => ({ row, fresh: await freshDocument(deps, row) })))
  const retained = (row: { host: string; organisation: string }, channel: 'trust' | 'desired' | 'fresh') => {
    const { qos, retain, expirySeconds } = channels[channel]
    return { topic: downTopic(row, channel), qos, retain, expirySeconds }
  }
  await enqueue(
    tx,
    signed.flatMap(({ row, fresh }) => [
      { ...retained(row, 'trust'), payload: deps.trust.document },
      { ...retained(row, 'desired'), payload: row.jws },
      { ...retained(row, 'fresh'), payload: fresh },
    ]),
    deps.now(),
  )
}

export function freshDocument(deps: Deps, row: { host: string; generation: number; sha256: string }): Promise<string> {
  const payload: FreshDocument = {
    v: 1,
    host: row.host,
    generation: row.generation,
    sha256: row.sha256,
    issuedAt: deps.now().toISOString(),
  }
  return deps.signer.sign('fresh', payload)
}
