import { readFileSync } from 'node:fs'
import { UnixSocket } from '../kernel/unix-socket.ts'
import type { ClusterSpec } from './cluster.ts'
import { lookWriting, type PrimaryLook } from './observer.ts'
import { connect, disconnect, type Sql } from './sql.ts'

/**
 * Two probes of a primary, because each is blind where the other sees: an open connection goes on answering reads, and
 * even commits, when the postmaster is stopped; a new connection says nothing of a disk that takes no writes. Whoever
 * looks at the database calls `turn` each 100 ms or so, and says when a write is due.
 */
const connectEveryMs = 1000
/** Turns come a little early or late. */
const turnSlackMs = 50
/** A stopped postmaster accepts and says nothing: a connection is given up for another one when it is so many times too late. */
const givenUpAfter = 4
/** Far beyond what a write takes, far below what counts as a hang. */
const writeLongMs = 100
/** "SSLRequest": the server answers one byte once a backend was forked (manual, 55.2.10). */
const sslRequest = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])

export class HealthProbe {
  readonly #spec: ClusterSpec
  #sql: Sql | null = null
  #writeSince = 0
  readonly #newcomer = new UnixSocket()
  #connectAt = 0
  #connectSince = 0
  /** The process that answers the writes, and what it had waited for a processor when the open one began to take long. */
  #backend: number | null = null
  #waited: { ms: number; at: number } | null = null

  constructor(spec: ClusterSpec) {
    this.#spec = spec
  }

  /** For how long the probe that has waited longest has been without an answer; 0: none waits. */
  get silentMs(): number {
    const now = performance.now()
    this.#noteWait(now)
    this.#hearNewcomer()
    return Math.max(...[this.#writeSince, this.#connectSince].map(since => (since > 0 ? now - since : 0)))
  }

  /** A write is under way. */
  get isWriting(): boolean {
    return this.#writeSince > 0
  }

  /** Which probes have been too long, for how long, and whether a processor was free meanwhile; '' for none. */
  get trouble(): string {
    const now = performance.now()
    const late = (what: string, since: number): string[] =>
      since > 0 && now - since > this.#spec.hangMs
        ? [`${what} has been without an answer for ${Math.round(now - since)} ms`]
        : []
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
    // Its writes flush the log here and do not wait for the standby: its silence is another matter.
    this.#sql ??= connect(this.#spec, { settings: { synchronous_commit: 'local' } })
  }

  stop(): void {
    if (this.#sql !== null) disconnect(this.#sql)
    this.#sql = null
    this.#newcomer.close()
    this.#writeSince = 0
    this.#connectSince = 0
    this.#backend = null
  }

  /** Hears and sends the probe by a new connection. */
  turn(): void {
    const now = performance.now()
    this.#hearNewcomer()
    if (this.#sql === null) return
    // Where the queue was full there is no connection yet that could be answered.
    const isWaited = this.#newcomer.isOpen && now - this.#connectAt < this.#spec.hangMs * givenUpAfter
    const isDue = now - this.#connectAt > connectEveryMs - turnSlackMs || this.#connectSince > 0
    if (isDue && !isWaited) this.#connect(now)
  }

  /** Begins a write, unless one is under way, and looks at the server in it. null: it failed, or this probe was stopped. */
  async write(): Promise<PrimaryLook | null> {
    const sql = this.#sql
    if (sql === null || this.#writeSince > 0) return null
    this.#writeSince = performance.now()
    try {
      const { backend, ...look } = await lookWriting(sql, this.#spec)
      if (sql !== this.#sql) return null
      this.#writeSince = 0
      this.#backend = backend
      return look
    } catch {
      // A server that refuses (too many connections, shutting down) answers; one that is dead is seen by its process.
      if (sql === this.#sql) this.#writeSince = 0
      return null
    }
  }

  #connect(now: number): void {
    this.#connectAt = now
    const opened = this.#newcomer.open(socketOf(this.#spec))
    if (opened === 'open') this.#newcomer.send(sslRequest)
    // Nobody listens: its process is looked at elsewhere. Nobody was asked: that is no silence of the server. A queue that is
    // full has nobody who takes from it.
    this.#connectSince = opened === 'refused' || opened === 'none' ? 0 : this.#connectSince || now
  }

  /** The end of the connection is an answer as well. */
  #hearNewcomer(): void {
    if (!this.#newcomer.isOpen || this.#newcomer.heard() === 'nothing') return
    this.#newcomer.close()
    this.#connectSince = 0
  }
}

const socketOf = ({ socketDir, port }: ClusterSpec): string => `${socketDir}/.s.PGSQL.${port}`

/** Somebody takes connections there, however long the answer takes: the kernel says so by itself. */
export function listens(spec: ClusterSpec): boolean {
  const socket = new UnixSocket()
  const opened = socket.open(socketOf(spec))
  socket.close()
  return opened !== 'refused'
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
