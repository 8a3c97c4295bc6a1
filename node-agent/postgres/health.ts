import { readFileSync } from 'node:fs'
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
/** Far beyond what a write takes, far below what counts as a hang. */
const writeLongMs = 100
/** "SSLRequest": the server answers one byte once a backend was forked (manual, 55.2.10). */
const sslRequest = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])

export class HealthProbe {
  readonly #spec: ClusterSpec
  #sql: Sql | null = null
  readonly #pulse: Pulse
  #ends: (() => void)[] = []
  #writeSince = 0
  #connectSince = 0
  /** The process that answers the writes, and what it had waited for a processor when the open one began to take long. */
  #backend: number | null = null
  #waited: { ms: number; at: number } | null = null

  constructor(spec: ClusterSpec, pulse: Pulse) {
    this.#spec = spec
    this.#pulse = pulse
  }

  /** A probe has been without an answer for longer than hangMs. */
  get hanging(): boolean {
    const now = performance.now()
    this.#noteWait(now)
    return this.#isLate(this.#writeSince, now) || this.#isLate(this.#connectSince, now)
  }

  #isLate(since: number, now: number): boolean {
    return since > 0 && now - since > this.#spec.hangMs
  }

  /** Which probes have been, for how long, and whether a processor was free meanwhile; '' for none. */
  get trouble(): string {
    const now = performance.now()
    const late = (what: string, since: number): string[] =>
      this.#isLate(since, now) ? [`${what} has been without an answer for ${Math.round(now - since)} ms`] : []
    return [
      ...late(`a write (its process ${this.#starved(now)})`, this.#writeSince),
      ...late('a new connection', this.#connectSince),
    ].join(', ')
  }

  /** Only for a write that takes long: in calm it would be one read more for each. */
  #noteWait(now: number): void {
    if (this.#writeSince === 0) this.#waited = null
    else if (this.#waited === null && now - this.#writeSince > writeLongMs) {
      const ms = runQueueWaitMs(this.#backend)
      if (ms !== null) this.#waited = { ms, at: now }
    }
  }

  #starved(now: number): string {
    const ms = runQueueWaitMs(this.#backend)
    if (ms === null || this.#waited === null) return 'is not to be seen'
    return `waited for a processor for ${Math.round(ms - this.#waited.ms)} of the last ${Math.round(now - this.#waited.at)} ms`
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
    this.#backend = null
  }

  async #write(): Promise<void> {
    const sql = this.#sql
    if (sql === null || this.#writeSince > 0) return
    this.#writeSince = performance.now()
    try {
      const [row] = await sql`select pg_logical_emit_message(true, 'understudy', ''), pg_backend_pid() as pid`
      if (sql !== this.#sql) return
      this.#writeSince = 0
      this.#backend = row?.pid ?? null
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

/** How long a process has waited for a processor so far (proc_pid_schedstat(5), the second figure); null: not known. */
function runQueueWaitMs(pid: number | null): number | null {
  if (pid === null) return null
  try {
    return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[1]) / 1e6
  } catch {
    return null
  }
}
