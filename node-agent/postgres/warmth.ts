import type { ClusterSpec } from './cluster.ts'
import { explainPrimaryLook } from './observer.ts'
import { startupProcess } from './promote.ts'
import { connect, disconnect, type Sql } from './sql.ts'

/**
 * Keeps a standby ready for its first moments as a primary, which clients wait for: the process to nudge is known, the
 * agent's own look is planned, and each database has had a session, so that the first client finds the caches that
 * PostgreSQL otherwise builds in its connection (about 10 ms of one core for each).
 */
const everyMs = 60_000
/** A cluster with more databases has its first ones warmed. */
const databasesMax = 32

export class Warmth {
  readonly #spec: ClusterSpec
  #timer: NodeJS.Timeout | null = null
  /** The startup process of the standby that runs now, once it is known. */
  startup: number | null = null

  constructor(spec: ClusterSpec) {
    this.#spec = spec
  }

  /** For a standby that runs; what fails is tried again later, since nothing depends on it. */
  start(sql: Sql): void {
    if (this.#timer !== null) return
    const warm = (): void => void this.#warm(sql).catch(() => {})
    this.#timer = setInterval(warm, everyMs)
    warm()
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#timer = null
    this.startup = null
  }

  async #warm(sql: Sql): Promise<void> {
    this.startup = await startupProcess(sql)
    await explainPrimaryLook(sql, this.#spec)
    const databases =
      await sql`select datname as name from pg_database where datallowconn order by oid desc limit ${databasesMax}`
    for (const { name } of databases) {
      if (this.#timer === null) return
      const session = connect(this.#spec, { database: name })
      await session`select 1`.finally(() => disconnect(session))
    }
  }
}
