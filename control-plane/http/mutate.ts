import { and, eq, sql } from 'drizzle-orm'
import type { Route } from '../../shared/contract/api/route.ts'
import { spend } from '../auth/bearer.ts'
import { asMember } from '../auth/caller.ts'
import { drainOutbox } from '../broker/outbox.ts'
import type { Transaction } from '../db/client.ts'
import { idempotency } from '../db/schema/index.ts'
import { inOrganisation } from '../db/transaction.ts'
import type { Deps } from '../deps.ts'
import { faultLine } from '../fault-text.ts'
import { recordAudit } from '../services/record/audit.ts'
import type { Call, Result } from './call.ts'
import { Refusal } from './problem.ts'

/** A retry comes within minutes; a day covers the queue of a client that was offline. */
const keptHours = 48
/** The same key at once from many sides: each waits for the first one's commit, but not for ever. */
const lockLimit = '5s'

export interface Done<R extends Route> extends Result<R> {
  /** What the audit says it was done to; null: it changed nothing and the audit has no word of it. */
  resource: string | null
  details?: Record<string, unknown>
  /** The answer holds a secret that is shown once: it is not kept, and the key's second use is told so. */
  secret?: true
}

/**
 * Everything that a request changes, in one transaction: the answer kept for its Idempotency-Key, the change, its
 * operation, events, outbox and audit. Either all of it happened, or none. What is in the outbox is published at once
 * after the commit, and by the sweep if this instance dies before.
 */
export async function mutate<R extends Route>(
  call: Call<R>,
  work: (tx: Transaction) => Promise<Done<R>>,
): Promise<Result<R>> {
  const member = asMember(call.caller)
  const { deps } = call
  const key = `changes:${member.organisation}`
  await spend(deps, { key, rate: deps.limits.perOrganisation, what: 'changes of this organisation' })
  // Another credential may see less, or mean another wish by the same key.
  const owner = `${member.organisation} ${member.credential}`
  const result = await inOrganisation(deps.database, member.organisation, async tx => {
    const kept = await keptAnswer(tx, call, owner)
    if (kept !== null) return kept
    const { resource, details, secret, ...done } = await work(tx)
    await keepAnswer(tx, call, { owner, result: done, secret: secret === true })
    if (resource !== null) {
      await recordAudit(tx, member.organisation, {
        at: deps.now(),
        actor: member.subject,
        action: call.route.id,
        resource,
        outcome: 'done',
        ...(details !== undefined && { details }),
      })
    }
    return done
  })
  deps.later(drainQuietly(deps))
  return result
}

export async function drainQuietly(deps: Deps): Promise<void> {
  await drainOutbox(deps).catch((error: unknown) => {
    deps.log({
      level: 'warning',
      message: `the outbox is drained later: ${faultLine(error)}`,
    })
  })
}

/**
 * The key's row is inserted before the work, in the same transaction: a second request with the same key waits at the
 * unique index until the first has committed, and then reads its answer.
 */
export async function keptAnswer<R extends Route>(
  tx: Transaction,
  call: Call<R>,
  owner: string,
): Promise<Result<R> | null> {
  if (call.idempotency === null) return null
  const { key, fingerprint } = call.idempotency
  await tx.execute(sql`select set_config('lock_timeout', ${lockLimit}, true)`)
  const now = call.deps.now()
  const expiresAt = new Date(now.getTime() + keptHours * 3_600_000)
  const inserted = await tx
    .insert(idempotency)
    .values({ subject: owner, key, fingerprint, status: 0, headers: {}, expiresAt })
    .onConflictDoUpdate({
      target: [idempotency.subject, idempotency.key],
      set: { fingerprint, status: 0, body: null, headers: {}, expiresAt },
      setWhere: sql`${idempotency.expiresAt} < ${now.toISOString()}`,
    })
    .returning({ key: idempotency.key })
  if (inserted.length > 0) return null
  const [row] = await tx
    .select()
    .from(idempotency)
    .where(and(eq(idempotency.subject, owner), eq(idempotency.key, key)))
  if (row === undefined) throw new Refusal('busy', 'the Idempotency-Key was just let go; try again')
  if (row.fingerprint !== fingerprint)
    throw new Refusal('idempotency_key_reused', 'this Idempotency-Key was used for another request; take a new one')
  if (row.status === secretStatus)
    throw new Refusal('conflict', 'this was done already, and its secret was shown once: make a new one')
  return {
    status: row.status,
    body: row.body as Result<R>['body'],
    headers: { ...row.headers, 'idempotency-replayed': 'true' },
  }
}

/** Kept instead of an answer that holds a secret. */
const secretStatus = -1

export async function keepAnswer<R extends Route>(
  tx: Transaction,
  call: Call<R>,
  { owner, result, secret }: { owner: string; result: Result<R>; secret: boolean },
): Promise<void> {
  if (call.idempotency === null) return
  const status = result.status ?? call.route.status
  await tx
    .update(idempotency)
    .set(secret ? { status: secretStatus } : { status, body: result.body ?? null, headers: result.headers ?? {} })
    .where(and(eq(idempotency.subject, owner), eq(idempotency.key, call.idempotency.key)))
}
