import { and, eq, gt } from 'drizzle-orm'
import { brokerName } from '../../../shared/contract/topics.ts'
import { host } from '../../db/schema/index.ts'
import { acrossOrganisations } from '../../db/transaction.ts'
import type { Deps } from '../../deps.ts'
import { certificateLifeHours } from '../../services/host/certificates.ts'
import type { LocalMosquitto } from './mosquitto.ts'

/** Each is two lines that the broker reads; a fleet does not retire so many in three days. */
const deniedMax = 10_000

/**
 * Keeps hosts that were retired from using the certificate they still have: what they say counts for nothing anyway, and
 * now they are not even heard, and read nothing. Of our own broker alone; at another one the certificates end by themselves.
 */
export class RetiredHosts {
  #told: { server: LocalMosquitto; names: string } | null = null

  /** What a broker that was started again has to be told anew. */
  async tell(deps: Pick<Deps, 'database' | 'now'>, server: LocalMosquitto): Promise<void> {
    const since = new Date(deps.now().getTime() - certificateLifeHours * 3_600_000)
    const rows = await acrossOrganisations(deps.database, tx =>
      tx
        .select({ organisation: host.organisation, host: host.id })
        .from(host)
        .where(and(eq(host.state, 'retired'), gt(host.retiredAt, since)))
        .orderBy(host.id)
        .limit(deniedMax),
    )
    const names = rows.map(brokerName.host)
    const known = this.#told?.server === server ? this.#told.names : ''
    if (names.join() === known) return
    server.deny(names)
    this.#told = { server, names: names.join() }
  }
}
