import { connect as connectSocket } from 'node:net'
import type { Pulse } from '../pulse.ts'
import type { ClusterSpec } from './cluster.ts'
import { connect, disconnect, type Sql } from './sql.ts'

/**
 * Two probes of a primary, because each is blind where the other sees: an open connection goes on answering reads, and
 * even commits, when the postmaster is stopped; a new connection says nothing of a disk that takes no writes.
 */
const writeEveryMs = 300
const connectEveryMs = 1000
/** "SSLRequest": the server answers one byte once a backend was forked (manual, 55.2.10). */
const sslRequest = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])

export class HealthProbe {
  readonly #spec: ClusterSpec
  #sql: Sql | null = null
  readonly #pulse: Pulse
  #ends: (() => void)[] = []
  #writeSince = 0
  #connectSince = 0

  constructor(spec: ClusterSpec, pulse: Pulse) {
    this.#spec = spec
    this.#pulse = pulse
  }

  /** A probe has been without an answer for longer than hangMs. */
  get hanging(): boolean {
    const now = performance.now()
    const late = (since: number): boolean => since > 0 && now - since > this.#spec.hangMs
    return late(this.#writeSince) || late(this.#connectSince)
  }

  /** This process stood still for so long, and heard no answers meanwhile: that is no silence of the server. */
  stoodStill(ms: number): void {
    if (this.#writeSince > 0) this.#writeSince += ms
    if (this.#connectSince > 0) this.#connectSince += ms
  }

  start(): void {
    if (this.#ends.length > 0) return
    // Its writes flush the log here and do not wait for the standby: its silence is another matter.
    this.#sql = connect(this.#spec, { settings: { synchronous_commit: 'local' } })
    this.#ends = [
      this.#pulse.every(writeEveryMs, () => void this.#write()),
      this.#pulse.every(connectEveryMs, () => this.#connect()),
    ]
  }

  stop(): void {
    for (const end of this.#ends) end()
    this.#ends = []
    if (this.#sql !== null) disconnect(this.#sql)
    this.#sql = null
    this.#writeSince = 0
    this.#connectSince = 0
  }

  async #write(): Promise<void> {
    const sql = this.#sql
    if (sql === null || this.#writeSince > 0) return
    this.#writeSince = performance.now()
    try {
      await sql`select pg_logical_emit_message(true, 'understudy', '')`
      if (sql === this.#sql) this.#writeSince = 0
    } catch {
      // A server that refuses (too many connections, shutting down) answers; one that is dead is seen by its process.
      if (sql === this.#sql) this.#writeSince = 0
    }
  }

  #connect(): void {
    if (this.#connectSince > 0) return
    this.#connectSince = performance.now()
    const socket = connectSocket(`${this.#spec.socketDir}/.s.PGSQL.${this.#spec.port}`)
    const done = (): void => {
      this.#connectSince = 0
      socket.destroy()
    }
    socket.once('connect', () => socket.write(sslRequest))
    socket.once('data', done)
    socket.once('error', done)
    // A stopped postmaster accepts and says nothing: the socket is given up when the probe is far too late.
    socket.setTimeout(this.#spec.hangMs * 4, done)
  }
}
