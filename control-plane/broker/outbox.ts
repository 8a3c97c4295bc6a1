import { inArray, lte, sql } from 'drizzle-orm'
import type { Transaction } from '../db/client.ts'
import { outbox } from '../db/schema/index.ts'
import type { Deps } from '../deps.ts'
import type { Publication } from './publisher.ts'

/** In the transaction of the intent: what is committed will be published, what is not was never said. */
export async function enqueue(
  tx: Transaction,
  messages: readonly (Publication & { uselessAt?: Date })[],
  now: Date,
): Promise<void> {
  if (messages.length === 0) return
  await tx.insert(outbox).values(
    messages.map(({ uselessAt, ...message }) => ({
      ...message,
      uselessAt: uselessAt ?? null,
      notBefore: now,
      createdAt: now,
    })),
  )
}

/** Small enough that a batch is published in well under a second. */
const batchRows = 200
/** The first try comes at once, then 2, 4, … 60 s. */
const retrySecondsMax = 60

/**
 * Publishes what is due. Any number of instances may drain at once (skip locked); a message may go out twice when one of
 * them dies between publishing and committing, which agents expect.
 * @returns how many were published
 */
export async function drainOutbox(deps: Deps): Promise<number> {
  let published = 0
  for (;;) {
    const batch = await drainBatch(deps)
    published += batch.published
    if (batch.taken < batchRows || batch.published === 0) return published
  }
}

async function drainBatch(deps: Deps): Promise<{ taken: number; published: number }> {
  const now = deps.now()
  return deps.database.transaction(async tx => {
    const rows = await tx
      .select()
      .from(outbox)
      .where(lte(outbox.notBefore, now))
      .orderBy(outbox.id)
      .limit(batchRows)
      .for('update', { skipLocked: true })
    if (rows.length === 0) return { taken: 0, published: 0 }
    const useful = rows.filter(row => row.uselessAt === null || row.uselessAt > now)
    const faults = await deps.publisher.publish(useful.map(toPublication))
    const failed = useful.filter((_, index) => faults[index] !== null)
    const gone = rows.filter(row => !failed.includes(row)).map(row => row.id)
    if (gone.length > 0) await tx.delete(outbox).where(inArray(outbox.id, gone))
    for (const row of failed) {
      const seconds = Math.min(retrySecondsMax, 2 ** Math.min(row.attempts + 1, 10))
      await tx
        .update(outbox)
        .set({ attempts: row.attempts + 1, notBefore: new Date(now.getTime() + seconds * 1000) })
        .where(sql`id = ${row.id}`)
    }
    const fault = faults.find(one => one !== null)
    if (fault !== undefined) {
      deps.log({
        level: 'warning',
        message: `${failed.length} messages could not be published and are tried again: ${fault}`,
      })
    }
    return { taken: rows.length, published: useful.length - failed.length }
  })
}

function toPublication(row: typeof outbox.$inferSelect): Publication {
  const { topic, payload, retain, expirySeconds } = row
  return { topic, payload, qos: row.qos === 0 ? 0 : 1, retain, expirySeconds }
}
