import { and, eq, inArray } from 'drizzle-orm'
import type { HostEvent } from '../../../shared/contract/report.ts'
import { spend } from '../../auth/bearer.ts'
import { event, host } from '../../db/schema/index.ts'
import { acrossOrganisations } from '../../db/transaction.ts'
import type { Deps } from '../../deps.ts'
import { readHosts } from '../host/read-hosts.ts'
import { recordEvents } from '../record/events.ts'

/** Its whole spool ten times at once, and then one a second: no host fills the list of all, or the disk below it. */
export const eventsOfHost = { perSecond: 1, burst: 5_000 }

/**
 * Events from a host's spool, which it sends until it is told that they arrived. @returns how many were new
 * @throws Refusal when it tells more than its share; it keeps them and comes again
 */
export async function storeHostEvents(
  deps: Deps,
  part: { organisation: string; host: string; events: readonly HostEvent[] },
): Promise<number> {
  const { organisation, events } = part
  await spend(deps, {
    key: `events:${part.host}`,
    rate: eventsOfHost,
    cost: events.length,
    what: 'events of this host',
  })
  return acrossOrganisations(deps.database, async tx => {
    const [rows] = await readHosts(tx, {
      where: and(eq(host.id, part.host), eq(host.organisation, organisation), eq(host.state, 'active')),
      limit: 1,
    })
    if (rows === undefined) return 0
    // Two batches of one host take turns.
    await tx.select({ id: host.id }).from(host).where(eq(host.id, part.host)).for('no key update')
    const known = await tx
      .select({ origin: event.origin })
      .from(event)
      .where(
        and(
          eq(event.host, part.host),
          inArray(
            event.origin,
            events.map(one => one.id),
          ),
        ),
      )
    const seen = new Set(known.map(row => row.origin))
    const fresh = events.filter((one, at) => !seen.has(one.id) && events.findIndex(other => other.id === one.id) === at)
    return recordEvents(
      tx,
      organisation,
      fresh.map(one => ({
        at: deps.now(),
        kind: one.kind,
        severity: one.severity,
        pair: rows.pair?.id ?? null,
        host: part.host,
        message: one.message,
        data: { toldAt: one.at },
        origin: one.id,
      })),
    )
  })
}
