import { inArray, sql } from 'drizzle-orm'
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
  await dropOlder(
    tx,
    messages.filter(one => one.retain).map(one => one.topic),
  )
  await tx.insert(outbox).values(
    messages.map(({ uselessAt, ...message }) => ({
      ...message,
      uselessAt: uselessAt ?? null,
      notBefore: now,
      createdAt: now,
    })),
  )
}

/**
 * What is retained replaces what was retained: of each such topic the newest waits alone. So a broker that is away for days
 * costs no more than one that is there, and finds nothing old that would come after the new. What is being published
 * just now is left to whoever does it.
 */
async function dropOlder(tx: Transaction, topics: readonly string[]): Promise<void> {
  if (topics.length === 0) return
  const given = JSON.stringify([...new Set(topics)])
  await tx.execute(sql`
    delete from outbox where id in (
      select id from outbox where retain and topic in (select jsonb_array_elements_text(${given}::jsonb))
      for update skip locked
    )`)
}

/** Small enough that a batch is published in well under a second. */
const batchRows = 200
/** The first try comes at once, then 2, 4, … 60 s. */
const retrySecondsMax = 60
/** Longer than any publisher waits for its broker: whoever takes messages and dies leaves them to others after this. */
const publishingSeconds = 30

/**
 * Publishes what is due. Any number of instances may drain at once, since each takes its messages before it publishes them;
 * a message goes out twice when one of them dies between publishing and deleting, which agents expect. Nothing of the
 * database is held while the broker is waited for: one that is silent must not take the connections of the API and the votes.
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

interface Taken extends Record<string, unknown> {
  id: string
  topic: string
  payload: string
  qos: number
  retain: boolean
  expiry_seconds: number | null
  useful: boolean
}

async function drainBatch(deps: Deps): Promise<{ taken: number; published: number }> {
  const rows = await take(deps)
  if (rows.length === 0) return { taken: 0, published: 0 }
  const useful = rows.filter(row => row.useful)
  const faults = await deps.publisher.publish(useful.map(toPublication))
  const failed = useful.filter((_, index) => faults[index] !== null)
  const gone = rows.filter(row => !failed.includes(row)).map(row => Number(row.id))
  if (gone.length > 0) await deps.database.delete(outbox).where(inArray(outbox.id, gone))
  if (failed.length > 0) {
    const fault = faults.find(one => one !== null)
    deps.log({
      level: 'warning',
      message: `${failed.length} messages could not be published and are tried again: ${fault}`,
    })
    const seconds = sql`least(${retrySecondsMax}, 2 ^ least(attempts, 10))`
    await deps.database
      .update(outbox)
      .set({ notBefore: sql`${deps.now().toISOString()}::timestamptz + ${seconds} * interval '1 second'` })
      .where(
        inArray(
          outbox.id,
          failed.map(row => Number(row.id)),
        ),
      )
  }
  return { taken: rows.length, published: useful.length - failed.length }
}

/** Theirs who takes them until it is late enough to try again. A crash that forgets it costs a second publication. */
async function take(deps: Deps): Promise<Taken[]> {
  const now = deps.now()
  const at = sql`${now.toISOString()}::timestamptz`
  const rows = await deps.database.execute<Taken>(sql`
    with quick as materialized (
      select set_config('synchronous_commit', 'off', true)
    ), due as materialized (
      select o.id from outbox o cross join quick where o.not_before <= ${at}
      order by o.id limit ${batchRows} for update of o skip locked
    )
    update outbox o set attempts = o.attempts + 1, not_before = ${at} + ${publishingSeconds} * interval '1 second'
    from due where due.id = o.id
    returning o.id, o.topic, o.payload, o.qos, o.retain, o.expiry_seconds,
      o.useless_at is null or o.useless_at > ${at} as useful`)
  return [...rows].sort((one, other) => Number(one.id) - Number(other.id))
}

function toPublication({ topic, payload, qos, retain, expiry_seconds: expirySeconds }: Taken): Publication {
  return { topic, payload, qos: qos === 0 ? 0 : 1, retain, expirySeconds }
}
