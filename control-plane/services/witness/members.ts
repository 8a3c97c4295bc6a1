import { and, eq, ne, sql } from 'drizzle-orm'
import {
  type AdmitReply,
  type AdmitRequest,
  type HostKeys,
  headerHost,
  headerSignature,
  type KeysRequest,
  type RetireRequest,
  witnessPath,
} from '../../../shared/contract/witness.ts'
import { importPublicKey, verifyRequest } from '../../../shared/signing.ts'
import { takeShare } from '../../auth/bearer.ts'
import type { Transaction } from '../../db/client.ts'
import { host, pair, witnessVote } from '../../db/schema/index.ts'
import { Refusal } from '../../http/problem.ts'
import { recordEvents } from '../record/events.ts'
import { isNamed, nameAside } from './naming.ts'
import { currentPlace, currentTimeline, whyNoVotes } from './timeline.ts'

type Row = typeof witnessVote.$inferSelect
interface Of {
  organisation: string
  pair: string
}

const isRow = ({ organisation, pair: name }: Of) =>
  and(eq(witnessVote.organisation, organisation), eq(witnessVote.pair, name))

/** The present incarnation of the pair, or the named one, which may be of an ended pair that had the same name. */
export async function witnessRow(tx: Transaction, of: Of & { inc?: string }): Promise<Row | null> {
  const [row] = await tx
    .select()
    .from(witnessVote)
    .where(of.inc === undefined ? isRow(of) : isNamed({ ...of, inc: of.inc }))
    .orderBy(sql`${witnessVote.inc} = ${of.inc ?? ''} desc`)
    .limit(1)
  return row ?? null
}

/** Signed by a host of the pair over method, path below the base address, and body. @throws Refusal */
export async function refuseUnsigned(
  keys: HostKeys,
  part: {
    request: Request
    verb: keyof typeof witnessPath & ('admit' | 'vote' | 'keys' | 'retire')
    pair: string
    bytes: Uint8Array
  },
): Promise<void> {
  const slot = part.request.headers.get(headerHost)
  const signature = part.request.headers.get(headerSignature)
  const text = slot === 'a' || slot === 'b' ? keys[slot] : undefined
  const key = text === undefined ? null : await importPublicKey(text)
  const signed = { host: slot as 'a' | 'b', method: 'POST', path: witnessPath[part.verb](part.pair), body: part.bytes }
  if (key === null || signature === null || !(await verifyRequest(key, signed, signature)))
    throw new Refusal('unauthenticated', `no valid signature of a host of pair ${part.pair}`)
}

/** Each is an event of the organisation: a host that was broken into fills the list with no number of them. */
const admissionsOfPair = { perSecond: 1 / 60, burst: 100 }

/**
 * The acceptor is made only for a pair that is registered here, for the keys that its enrolled hosts have; no further
 * secret is needed. A new one replaces the incarnation that it names, which never votes again; the same nonce gets the
 * same answer.
 */
export async function admitWitness(
  tx: Transaction,
  part: Of & { request: AdmitRequest; now: Date },
): Promise<AdmitReply> {
  const { organisation, request, now } = part
  const registered = await registeredKeys(tx, part)
  const [held] = await tx.select().from(witnessVote).where(isRow(part)).for('update')
  if (held?.nonce === request.nonce) return admitted(held)
  const present = (await setAside(tx, { ...part, held })) ? undefined : held
  if ((present?.inc ?? null) !== request.replaces)
    throw new Refusal(
      'conflict',
      `the present incarnation of pair ${part.pair} is ${present?.inc ?? 'none'}, and not ${request.replaces ?? 'none'}, which this admission would replace`,
      present === undefined ? {} : { present: present.inc },
    )
  if (present === undefined && !sameKeys(request.keys, registered))
    throw new Refusal('forbidden', `the keys are not those that the hosts of pair ${part.pair} enrolled with`)
  const key = `admissions:${organisation}/${part.pair}`
  if ((await takeShare(tx, { key, rate: admissionsOfPair, wanted: 1 })) === 0)
    throw new Refusal(
      'rate_limited',
      `the witness has admitted pair ${part.pair} too often of late: try again in a minute`,
    )
  const why = await whyNoVotes(tx)
  if (why !== null) throw new Refusal('conflict', `this database may not vote: ${why}. Use a witness of your own`)
  const row = {
    organisation,
    pair: part.pair,
    inc: crypto.randomUUID(),
    promised: 0,
    acceptedBallot: 0,
    acceptedValue: null,
    nonce: request.nonce,
    keys: present?.keys ?? request.keys,
    keysGeneration: present?.keysGeneration ?? 1,
    admittedAt: now,
    retiredAt: null,
  }
  const here = { timeline: sql<number>`${currentTimeline}`, admittedIn: sql<string>`${currentPlace}` }
  const [made] =
    present === undefined
      ? await tx
          .insert(witnessVote)
          .values({ ...row, ...here })
          .onConflictDoNothing()
          .returning()
      : await tx
          .update(witnessVote)
          .set({ ...row, ...here })
          .where(isRow(part))
          .returning()
  // Where another admission made the row meanwhile, it is looked at as if it had come before.
  if (made === undefined) return admitWitness(tx, part)
  await recordEvents(tx, organisation, [
    {
      at: now,
      kind: 'witness_admitted',
      severity: 'info',
      pair: null,
      host: null,
      message: `the hosted witness of pair ${part.pair} has incarnation ${row.inc}${present === undefined ? '' : `, instead of ${present.inc}`}`,
    },
  ])
  return admitted(made)
}

/**
 * An incarnation that was admitted before this pair was made is of an ended pair of the same name. Whoever was its primary
 * may serve on with it, so it keeps its vote under its incarnation; the name is free for the new pair.
 */
async function setAside(
  tx: Transaction,
  part: Of & { request: AdmitRequest; held: Row | undefined },
): Promise<boolean> {
  const { organisation, pair: name, request, held } = part
  if (held === undefined || request.replaces !== null) return false
  const [registered] = await tx
    .select({ createdAt: pair.createdAt })
    .from(pair)
    .where(and(eq(pair.organisation, organisation), eq(pair.name, name), ne(pair.state, 'unpaired')))
  if (registered === undefined || held.admittedAt >= registered.createdAt) return false
  await tx
    .update(witnessVote)
    .set({ pair: nameAside({ pair: name, inc: held.inc }) })
    .where(isRow(part))
  return true
}

/** Of the hosts that are enrolled for the pair of this name. @throws Refusal */
export async function registeredKeys(tx: Transaction, { organisation, pair: name }: Of): Promise<HostKeys> {
  const rows = await tx
    .select({ id: host.id, hostA: pair.hostA, key: host.publicKey, state: host.state })
    .from(pair)
    .innerJoin(host, sql`${host.id} in (${pair.hostA}, ${pair.hostB})`)
    .where(and(eq(pair.organisation, organisation), eq(pair.name, name), ne(pair.state, 'unpaired')))
  const keyOf = (slot: 'a' | 'b'): string | undefined =>
    rows.find(row => row.state === 'active' && (row.id === row.hostA) === (slot === 'a'))?.key
  const [a, b] = [keyOf('a'), keyOf('b')]
  if (a === undefined || b === undefined)
    throw new Refusal('not_found', `no pair ${name} with two enrolled hosts is registered here`)
  return { a, b }
}

/**
 * A host that went on alone when its pair was ended serves on with that pair's witness, also when it is set up in a pair of the
 * same name again: whoever takes the place of the other host, which is retired, asks it too. While that one is no retired host it
 * may be the one that serves on, and keeps its vote; a pair that begins anew has the witness admit it under its own.
 */
export async function knowContinued(
  tx: Transaction,
  { keys, ...of }: Of & { keys: { a: string; b: string } },
): Promise<void> {
  const alone = sql`((keys->>'a' = ${keys.a} and keys->>'b' is null) or (keys->>'b' = ${keys.b} and keys->>'a' is null))`
  await tx
    .update(witnessVote)
    .set({ keys, keysGeneration: sql`${witnessVote.keysGeneration} + 1` })
    .where(and(isRow(of), alone))
}

export async function changeWitnessKeys(tx: Transaction, part: Of & { request: KeysRequest }): Promise<AdmitReply> {
  const { request } = part
  const row = await lockPresent(tx, { ...part, inc: request.inc })
  if (request.generation === row.keysGeneration && sameKeys(request.keys, row.keys)) return admitted(row)
  if (request.generation !== row.keysGeneration + 1)
    throw new Refusal(
      'conflict',
      `the keys of pair ${part.pair} are at generation ${row.keysGeneration}; the next is not ${request.generation}`,
    )
  if (!sameKeys(request.keys, await registeredKeys(tx, part)))
    throw new Refusal('forbidden', `the keys are not those that the hosts of pair ${part.pair} enrolled with`)
  const [changed] = await tx
    .update(witnessVote)
    .set({ keys: request.keys, keysGeneration: request.generation })
    .where(isRow(part))
    .returning()
  return admitted(changed!)
}

export async function retireWitness(
  tx: Transaction,
  part: Of & { request: RetireRequest; now: Date },
): Promise<{ retired: string }> {
  const row = await lockPresent(tx, { ...part, inc: part.request.inc })
  if (row.retiredAt === null) await tx.update(witnessVote).set({ retiredAt: part.now }).where(isRow(part))
  return { retired: row.inc }
}

async function lockPresent(tx: Transaction, part: Of & { inc: string }): Promise<Row> {
  const [row] = await tx.select().from(witnessVote).where(isRow(part)).for('update')
  if (row?.inc !== part.inc)
    throw new Refusal(
      'conflict',
      `the present incarnation of pair ${part.pair} is ${row?.inc ?? 'none'}, not ${part.inc}`,
    )
  return row
}

/**
 * A host that has another key, or none any more (null), asks by the key of before no more: also not for the vote of a pair that
 * was ended, whose primary may serve on with it. An incarnation that nobody is left to ask is retired.
 */
export async function exchangeVoterKey(
  tx: Transaction,
  { organisation, from, to, now }: { organisation: string; from: string; to: string | null; now: Date },
): Promise<void> {
  const rows = await tx
    .select()
    .from(witnessVote)
    .where(and(eq(witnessVote.organisation, organisation), sql`${from} in (keys->>'a', keys->>'b')`))
    .for('update')
  for (const row of rows) {
    const keys: HostKeys = {}
    for (const slot of ['a', 'b'] as const) {
      const key = row.keys[slot] === from ? to : row.keys[slot]
      if (key !== null && key !== undefined) keys[slot] = key
    }
    const left = keys.a !== undefined || keys.b !== undefined
    await tx
      .update(witnessVote)
      .set(left ? { keys, keysGeneration: row.keysGeneration + 1 } : { retiredAt: row.retiredAt ?? now })
      .where(isRow(row))
  }
}

const admitted = (row: Row): AdmitReply => ({ inc: row.inc, keysGeneration: row.keysGeneration, keys: row.keys })
const sameKeys = (one: HostKeys, other: HostKeys): boolean => one.a === other.a && one.b === other.b
