import type { ChildProcess } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { assert, unreachable } from '../../shared/assert.ts'
import { nothingSeen } from '../../shared/protocol/state.ts'
import type { DatabaseOp, DatabaseResult, DatabaseView, WalPosition } from '../../shared/protocol/types.ts'
import type { CollectedEvidence } from '../ports.ts'
import { Pulse } from '../pulse.ts'
import { type ClusterSpec, hasCluster, otherNode, standbyName } from './cluster.ts'
import { refreshAccess, removeOverrides, setStandbySignal, type Wanted, writeConfig } from './config-files.ts'
import { readEpoch, writeEpoch } from './epoch-marker.ts'
import { nameRelations } from './evidence.ts'
import { FlushedEnd } from './flushed-end.ts'
import { HealthProbe } from './health.ts'
import { lookAtPrimary, lookAtStandby, type PrimaryLook, unprotectedCommits } from './observer.ts'
import {
  awaitReaped,
  findPostmaster,
  gatherIntoCgroup,
  isGone,
  killAll,
  makeCgroup,
  scan,
  sleep,
  startPostmaster,
} from './processes.ts'
import { dropIdleSlot, ensureSlot, flushLog, promote, proveSync } from './promote.ts'
import { collectEvidence, keptSentence, type RejoinOptions, rejoin } from './rejoin.ts'
import { ServerLog } from './server-log.ts'
import { connect, disconnect, type Sql, within } from './sql.ts'
import { endOfLog } from './wal-end.ts'
import { Warmth } from './warmth.ts'

/**
 * Runs one PostgreSQL cluster for the core: carries out its operations one at a time and tells what it sees. It decides
 * nothing. A kill overtakes whatever is under way.
 */
export interface DriverOptions {
  spec: ClusterSpec
  /** Where the other host's database is reached, first the best path. */
  peerDatabase: { host: string; port: number }[]
  /** A line for people about long work. */
  progress: (line: string) => void
  /** What wakes the agent anyway; one of its own where there is none. */
  pulse?: Pulse
}

/** A look. The end of the process is an event, or that of our connection to it. */
const lookEveryMs = 100
/** With each third turn the probe writes. While a pair follows each other in calm and no commit waits, there is no other look. */
const turnsOfWrite = 3
/** Our backend notices the end of a postmaster at once, and this process its: which of them is seen first is chance. */
const goneSoonMs = 100
/** A timer this late was held up by a stop or by hunger, not by the loop's own work. */
const starvedMs = 30
/** Crash recovery, also of a large log: after this the start has failed. */
const startLimitMs = 120_000
const promoteLimitMs = 60_000
const proveLimitMs = 10_000
const logEveryMs = 1000
/** Looks come every lookEveryMs. */
const stallPollMs = 20
/** From the last checkpoint on at worst, at the speed of the disk. */
const endLimitMs = 70_000
/** What the server said when it ended; on a disk that hangs it is not waited for. */
const lastWordsMs = 50

export class PostgresDriver {
  readonly #spec: ClusterSpec
  readonly #options: DriverOptions
  readonly #health: HealthProbe
  readonly #log: ServerLog
  readonly #warmth: Warmth
  #tell: (view: DatabaseView) => void = () => {}
  #view: DatabaseView = nothingSeen
  #sql: Sql | null = null
  #child: ChildProcess | null = null
  #pid: number | null = null
  readonly #pulse: Pulse
  #ends: (() => void)[] = []
  #looking: Promise<void> | null = null
  /** Grows with each look: one that was overtaken by a later one tells nothing any more. */
  #looks = 0
  #lookAgain = false
  #calm = false
  #turn = 0
  #lookSince = 0
  #watchedAt = 0
  /** Grows with each kill: what was begun before gives up. */
  #life = 0
  #source: Wanted['source'] = null
  /** What follows a promotion and nobody waits for. */
  #settling: Promise<void> = Promise.resolve()
  #stall: { since: number; flushed: number } | null = null
  readonly #flushed = new FlushedEnd()
  /** The marker in the data directory, which nobody else writes: a look must not wait for a disk. */
  #epoch = 0

  constructor(options: DriverOptions) {
    this.#options = options
    this.#spec = options.spec
    this.#pulse = options.pulse ?? new Pulse()
    this.#health = new HealthProbe(options.spec)
    this.#log = new ServerLog(options.spec)
    this.#warmth = new Warmth(options.spec)
  }

  get view(): DatabaseView {
    return this.#view
  }
  get cancelledWaits(): number {
    return this.#log.cancelledWaits
  }
  /** The server ended for want of space; until the next start. */
  get endedFull(): boolean {
    return this.#log.full
  }

  onView(tell: (view: DatabaseView) => void): void {
    this.#tell = tell
  }

  /** Finds what runs and goes on with it: a restart of the agent interrupts nothing. */
  async adopt(): Promise<DatabaseView> {
    makeCgroup(this.#spec)
    this.#pid = await findPostmaster(this.#spec)
    this.#epoch = await readEpoch(this.#spec)
    this.#ends = [
      this.#pulse.every(lookEveryMs, () => this.#takeTurn()),
      this.#pulse.every(logEveryMs, () => void this.#log.read()),
    ]
    await this.#log.read()
    if (this.#pid !== null) {
      const pid = this.#pid
      this.#sql = connect(this.#spec, { closed: () => void this.#goneSoon(pid) })
      this.#view = { ...nothingSeen, process: 'starting', epoch: this.#epoch }
      try {
        await within(this.#spec.hangMs * 2, 'the first look at the database', this.#lookOnce())
        await this.#refreshAccess()
      } catch {
        this.#view = { ...this.#view, process: 'dead' }
      }
    } else if (scan(this.#spec).length > 0) {
      this.#view = { ...nothingSeen, process: 'dead', epoch: this.#epoch }
    } else {
      const end = (await hasCluster(this.#spec)) ? await endOfLog(this.#spec, null) : null
      this.#view = { ...nothingSeen, process: 'none', epoch: this.#epoch, ...(end !== null && { end }) }
    }
    return this.#view
  }

  /** The pair's addresses or keys may have changed with this start. What can't be done now is done with the next start. */
  async #refreshAccess(): Promise<void> {
    try {
      if (!(await refreshAccess(this.#spec, this.#options.peerDatabase))) return
      await within(proveLimitMs, 'the reload', this.#need()`select pg_reload_conf()`)
      this.#options.progress('the addresses or the keys of the pair are others: PostgreSQL reads them anew')
    } catch (error) {
      this.#options.progress(`PostgreSQL keeps the addresses and keys that it had: ${String(error)}`)
    }
  }

  /** Stops watching; PostgreSQL runs on for the next agent. */
  async detach(): Promise<void> {
    for (const end of this.#ends) end()
    this.#ends = []
    this.#health.stop()
    this.#drop()
  }

  #takeTurn(): void {
    this.#watch()
    this.#health.turn()
    this.#turn = (this.#turn + 1) % turnsOfWrite
    const writes = this.#turn === 0
    // A write that takes long shows nothing of what else there is to see: there are looks beside it then.
    if (!this.#calm || this.#health.isWriting) {
      this.look()
      if (writes) void this.#health.write()
    } else if (writes && this.#view.process === 'primary') void this.#lookWriting()
    else if (writes) this.look()
  }

  look(): void {
    if (this.#looking !== null) {
      this.#lookAgain = true
      this.#noteHang()
      return
    }
    this.#looking = this.#lookOnce()
      .catch(() => {})
      .finally(() => {
        this.#looking = null
        this.#lookSince = 0
        if (!this.#lookAgain) return
        this.#lookAgain = false
        this.look()
      })
  }

  async perform(op: DatabaseOp): Promise<DatabaseResult> {
    if (op.op === 'kill') this.#life += 1
    const life = this.#life
    try {
      if (op.op !== 'kill') await this.#settling
      const position = await this.#do(op, life)
      if (life !== this.#life && op.op !== 'kill') throw new Error('a kill came in between')
      return { ok: true, position, view: this.#view }
    } catch (error) {
      return { ok: false, why: error instanceof Error ? error.message : String(error), view: this.#view }
    }
  }

  async #do(op: DatabaseOp, life: number): Promise<WalPosition | null> {
    switch (op.op) {
      case 'kill':
        return this.#kill()
      case 'startPrimary':
        await this.#start({ syncNames: op.syncNames, source: null }, 'primary', life)
        await ensureSlot(this.#need(), this.#spec)
        await this.#refresh()
        return null
      case 'promote':
        return this.#promote(op, life)
      case 'drain':
        return this.#drain(life)
      case 'syncNames':
        return this.#setSyncNames(op.set)
      case 'proveSync': {
        const sql = connect(this.#spec)
        const over = new AbortController()
        const proof = within(proveLimitMs, 'the proof of synchronous replication', proveSync(sql))
        try {
          const barrier = await Promise.race([proof, this.#stalled(life, over.signal)])
          await this.#refresh()
          return barrier
        } finally {
          over.abort()
          // Its wait ends with the names being emptied, or with the standby; cancelled it would look like a lost commit.
          void proof.catch(() => {}).finally(() => disconnect(sql))
        }
      }
      case 'rejoin':
        return this.#rejoin(op, life)
      default:
        return unreachable(op)
    }
  }

  async #kill(): Promise<WalPosition | null> {
    this.#health.stop()
    const before = this.#view
    this.#drop()
    const gone = await killAll(this.#spec)
    assert(gone, 'processes of the database could not be killed: they hang in the kernel')
    this.#pid = null
    this.#child = null
    const lastWords = Promise.race([this.#log.read(), sleep(lastWordsMs)])
    const end = await within(endLimitMs, 'the search for the end of the log', this.#endAfter(before))
    await lastWords
    this.#show({
      ...nothingSeen,
      process: 'none',
      epoch: before.epoch,
      end: end ?? before.end,
      ioError: this.#log.ioError,
    })
    return this.#view.end
  }

  async #endAfter(before: DatabaseView): Promise<WalPosition | null> {
    if (!(await hasCluster(this.#spec))) return null
    return endOfLog(
      this.#spec,
      before.process === 'primary' || before.process === 'dead' ? this.#flushed.position : null,
    )
  }

  async #start(wanted: Wanted, as: 'primary' | 'standby', life: number): Promise<void> {
    assert(scan(this.#spec).length === 0, 'processes of the database are left; they have to be killed first')
    await awaitReaped(this.#spec)
    // No process is left, so the file names nobody: a zombie, or another program with the same number, would block the start.
    await rm(join(this.#spec.dataDir, 'postmaster.pid'), { force: true })
    this.#source = wanted.source
    this.#log.ioError = false
    this.#log.full = false
    await this.#configure(wanted)
    await setStandbySignal(this.#spec, as)
    this.#flushed.clear()
    this.#epoch = await readEpoch(this.#spec)
    this.#view = { ...nothingSeen, process: 'starting', epoch: this.#epoch }
    if (life !== this.#life) throw new Error('a kill came in between')
    const child = await startPostmaster(this.#spec)
    this.#child = child
    this.#pid = child.pid ?? null
    const hasEnded = (): boolean => child.pid === undefined || child.exitCode !== null || child.signalCode !== null
    const until = performance.now() + startLimitMs
    const sql = connect(this.#spec)
    for (;;) {
      if (life !== this.#life) break
      if (hasEnded()) break
      try {
        await within(startLimitMs, 'the first statement', sql`select 1`)
        break
      } catch {
        if (performance.now() > until) break
        await sleep(5)
      }
    }
    const ended = hasEnded()
    if (ended || life !== this.#life || performance.now() > until) {
      disconnect(sql)
      // What is left of it, if anything, is the core's to kill; "starting" for ever would block everything.
      this.#pid = null
      this.#child = null
      this.#show({ ...this.#view, process: scan(this.#spec).length === 0 ? 'none' : 'dead' })
      throw new Error(ended ? 'the server ended while it started; its log says why' : 'the start was given up')
    }
    this.#sql = sql
    gatherIntoCgroup(this.#spec)
    child.once('exit', () => this.#died(child))
    await this.#refresh()
  }

  async #configure(wanted: Wanted): Promise<void> {
    await writeConfig(this.#spec, wanted)
    const removed = await removeOverrides(this.#spec)
    if (removed.length > 0)
      this.#options.progress(`removed from postgresql.auto.conf, since the pair rests on it: ${removed.join('; ')}`)
  }

  async #promote(op: DatabaseOp & { op: 'promote' }, life: number): Promise<null> {
    const given = (): boolean => life !== this.#life
    if (this.#pid === null) {
      // One is made at set-up alone: here an empty one would be served in the place of the pair's data.
      if (!(await hasCluster(this.#spec)))
        throw new Error(
          `there is no whole database in ${this.#spec.dataDir}, and none is made in its place; is its volume mounted? A copy that did not end counts as none`,
        )
      await this.#start({ syncNames: op.syncNames, source: null }, 'standby', life)
    }
    await promote(this.#need(), this.#spec, { startup: this.#warmth.startup, limitMs: promoteLimitMs, given })
    this.#warmth.stop()
    await writeEpoch(this.#spec, op.epoch)
    this.#epoch = op.epoch
    await this.#refresh()
    this.#source = null
    // Clients wait for none of this: the other host needs its slot only when it comes to follow.
    this.#settling = this.#settle(op.syncNames).catch(error => this.#options.progress(String(error)))
    return null
  }

  async #settle(syncNames: 'set' | 'empty'): Promise<void> {
    await writeConfig(this.#spec, { syncNames, source: null })
    await this.#need()`select pg_reload_conf()`
    await ensureSlot(this.#need(), this.#spec)
  }

  async #drain(life: number): Promise<null> {
    const until = performance.now() + drainLimitMs
    // What nobody waited for (hint bits, an empty transaction) may be written and not flushed: the standby never gets it,
    // and it would stand on this disk past the fork.
    await within(drainLimitMs * 2, 'the drain', flushLog(this.#need()))
    while (performance.now() < until && life === this.#life) {
      const look = await within(drainLimitMs * 2, 'the drain', lookAtPrimary(this.#need(), this.#spec))
      this.#flushed.note(look)
      if (look.sender !== null && look.sender.flushedLsn >= look.flushed.lsn) return null
      await sleep(1)
    }
    return null
  }

  /** Rejects when the standby has flushed nothing of what commits wait for: the names may have to be emptied at once. */
  async #stalled(life: number, over: AbortSignal): Promise<never> {
    while (!over.aborted && life === this.#life && this.#view.stalledMs < this.#spec.hangMs) await sleep(stallPollMs)
    throw new Error(`the standby has not flushed anything for ${Math.round(this.#view.stalledMs)} ms`)
  }

  async #setSyncNames(set: 'set' | 'empty'): Promise<null> {
    await writeConfig(this.#spec, { syncNames: set, source: this.#source })
    const sql = this.#need()
    // Somebody's ALTER SYSTEM would count more than our file.
    if (this.#view.syncNames === 'unknown') {
      this.#options.progress('synchronous_standby_names was changed by somebody else; it is set back')
      await within(proveLimitMs, 'the reset', sql`alter system reset synchronous_standby_names`)
    }
    await within(proveLimitMs, 'the reload', sql`select pg_reload_conf()`)
    const until = performance.now() + proveLimitMs
    // The session that reads the setting has to have processed the reload itself.
    while (performance.now() < until) {
      await this.#refresh()
      if (this.#view.syncNames === set) return null
      await sleep(2)
    }
    throw new Error(`synchronous_standby_names did not become ${set} after a reload`)
  }

  async #rejoin(op: DatabaseOp & { op: 'rejoin' }, life: number): Promise<null> {
    this.#health.stop()
    this.#drop()
    assert(await killAll(this.#spec), 'processes of the database could not be killed: they hang in the kernel')
    this.#pid = null
    // What is here may be given up for a copy from now on: whether it is whole is known again when that has ended.
    const { end } = this.#view
    this.#show({ ...this.#view, process: 'none', end: nothingSeen.end, streaming: false, sender: null })
    const { source, evidence } = await rejoin({ ...this.#rejoinOptions(life), clone: op.clone }).catch(async error => {
      const untouched = await hasCluster(this.#spec)
      if (untouched && life === this.#life) this.#show({ ...this.#view, end })
      throw error
    })
    await this.#start({ syncNames: 'empty', source }, 'standby', life)
    const until = performance.now() + followLimitMs
    while (!this.#view.streaming && performance.now() < until && life === this.#life) {
      await sleep(10)
      await this.#refresh()
    }
    if (evidence !== null)
      await nameRelations(this.#spec, evidence).catch(error =>
        this.#options.progress(`its tables have no names: ${error}`),
      )
    return null
  }

  #rejoinOptions(life: number): Omit<RejoinOptions, 'clone'> {
    return {
      spec: this.#spec,
      sources: this.#options.peerDatabase,
      progress: this.#options.progress,
      given: () => life !== this.#life,
    }
  }

  /** Who commits without waiting for the standby; [] where that can't be asked. */
  async unprotectedCommits(): Promise<string[]> {
    if (this.#sql === null || this.#view.process !== 'primary') return []
    return within(this.#spec.hangMs, 'a look at the settings of roles', unprotectedCommits(this.#sql)).catch(() => [])
  }

  async forgetPeer(): Promise<void> {
    if (this.#sql === null || this.#view.process !== 'primary') return
    const dropped = dropIdleSlot(this.#sql, standbyName(otherNode(this.#spec.node)))
    await within(this.#spec.hangMs, 'the end of a slot', dropped).catch(error => this.#options.progress(String(error)))
  }

  /** What the stopped cluster here has and the primary has not; nothing but the bundle is written. */
  async collectEvidence(): Promise<CollectedEvidence> {
    const { process } = this.#view
    if (process !== 'none')
      return {
        ok: false,
        why: `the database here is ${process}; only what a stopped one has can differ from the primary`,
      }
    try {
      const evidence = await collectEvidence({ ...this.#rejoinOptions(this.#life), clone: 'ifNeeded' })
      return evidence === null
        ? { ok: true, id: '', why: 'this host has nothing that the primary has not' }
        : { ok: true, id: evidence.id, why: keptSentence(evidence) }
    } catch (error) {
      return { ok: false, why: error instanceof Error ? error.message : String(error) }
    }
  }

  /** Gone while nobody asked for it: said at once, whatever is left of it is the core's to kill. */
  #died(child: ChildProcess): void {
    if (child !== this.#child) return
    this.#child = null
    this.#gone()
  }

  /** The connection to a server that an earlier agent started was closed, and not by this one: does it still run? */
  async #goneSoon(pid: number): Promise<void> {
    if (this.#sql === null) return
    const until = performance.now() + goneSoonMs
    while (this.#pid === pid && this.#child === null && performance.now() < until) {
      if (isGone(pid)) this.#gone()
      else await sleep(1)
    }
  }

  #watch(): void {
    this.#forgiveStarvation()
    // An own child's end is an event; one that an earlier agent started has to be looked for.
    const adopted = this.#child === null && this.#pid !== null && this.#view.process !== 'starting'
    if (adopted && this.#pid !== null && isGone(this.#pid)) this.#gone()
    else if (this.#health.hanging !== this.#view.hanging) this.#noteHang()
  }

  /**
   * A deadline counts only the time in which this process ran. It judges in a timer, before it reads what waits in its
   * sockets: after a stop of half a second every server would seem to hang, and a healthy one would be killed.
   */
  #forgiveStarvation(): void {
    const now = performance.now()
    const stoodMs = this.#watchedAt === 0 ? 0 : now - this.#watchedAt - lookEveryMs
    this.#watchedAt = now
    if (stoodMs < starvedMs) return
    this.#health.stoodStill(stoodMs)
    if (this.#lookSince > 0) this.#lookSince += stoodMs
  }

  #gone(): void {
    if (this.#pid === null) return
    this.#pid = null
    this.#health.stop()
    this.#drop()
    this.#show({ ...this.#view, process: 'dead', sender: null, streaming: false, ioError: this.#log.ioError })
    // Its last words tell whether the volume failed; the death itself does not wait for a disk to say them.
    void this.#log.read().then(() => {
      if (this.#log.ioError && !this.#view.ioError) this.#show({ ...this.#view, ioError: true })
    })
  }

  #noteHang(): void {
    const lookLate = this.#lookSince > 0 && performance.now() - this.#lookSince > this.#spec.hangMs
    const hanging = this.#view.process === 'primary' && (this.#health.hanging || lookLate)
    if (hanging !== this.#view.hanging) this.#show({ ...this.#view, hanging })
  }

  /** What the core is told in one bit. */
  #silence(): string {
    const lookMs = this.#lookSince === 0 ? 0 : performance.now() - this.#lookSince
    const why = this.#health.trouble || `a look has been without an answer for ${Math.round(lookMs)} ms`
    return `the database does not answer: ${why}; the limit is ${this.#spec.hangMs} ms`
  }

  #drop(): void {
    this.#warmth.stop()
    if (this.#sql !== null) disconnect(this.#sql)
    this.#sql = null
  }

  #need(): Sql {
    if (this.#sql === null) throw new Error('the database does not run')
    return this.#sql
  }

  async #refresh(): Promise<void> {
    await within(proveLimitMs, 'a look at the database', this.#lookOnce())
  }

  async #lookOnce(): Promise<void> {
    const sql = this.#sql
    if (sql === null || this.#pid === null) return
    this.#lookSince = performance.now()
    this.#looks += 1
    // A primary becomes a standby only as another process.
    const standby = this.#view.process === 'primary' ? null : await this.#standbyView(sql)
    const seen = standby ?? this.#primaryView(await lookAtPrimary(sql, this.#spec))
    // A look that was overtaken by a kill shows a server that is gone.
    if (sql !== this.#sql) return
    this.#lookSince = 0
    this.#saw(seen, sql)
  }

  /** In calm: one question less, and one wake-up. */
  async #lookWriting(): Promise<void> {
    const sql = this.#sql
    this.#looks += 1
    const number = this.#looks
    const look = await this.#health.write()
    if (sql === null || sql !== this.#sql || number !== this.#looks) return
    // Another look tells why.
    if (look === null) this.look()
    else this.#saw(this.#primaryView(look), sql)
  }

  #saw(seen: DatabaseView, sql: Sql): void {
    const inStep = seen.process === 'primary' ? seen.sender !== null && this.#stall === null : seen.streaming
    this.#calm = inStep && !seen.hanging && seen.process === this.#view.process
    if (seen.process === 'primary') this.#health.start()
    else if (seen.streaming) this.#warmth.start(sql)
    this.#show(seen)
  }

  /** null: it is none. */
  async #standbyView(sql: Sql): Promise<DatabaseView | null> {
    const look = await lookAtStandby(sql, this.#view.process === 'standby' ? this.#view.end : nothingSeen.end)
    if (look === null) return null
    return {
      ...this.#view,
      process: 'standby',
      ...look,
      sender: null,
      syncNames: 'empty',
      stalledMs: 0,
      hanging: false,
    }
  }

  #primaryView({ waiting, flushed: onDisk, ...look }: PrimaryLook): DatabaseView {
    this.#flushed.note({ end: look.end, flushed: onDisk })
    // Before its silence is judged: what arrived during a standstill is read before the timer that forgives it.
    this.#forgiveStarvation()
    const flushed = look.sender?.flushedLsn ?? 0
    const now = performance.now()
    if (waiting === 0) this.#stall = null
    else if (this.#stall === null || this.#stall.flushed !== flushed) this.#stall = { since: now, flushed }
    return {
      ...look,
      process: 'primary',
      epoch: this.#epoch,
      streaming: false,
      stalledMs: this.#stall === null ? 0 : now - this.#stall.since,
      hanging: this.#health.hanging,
      ioError: this.#log.ioError,
    }
  }

  #show(view: DatabaseView): void {
    if (view.hanging && !this.#view.hanging) this.#options.progress(this.#silence())
    this.#view = view
    this.#tell(view)
  }
}

/** The gate is frozen meanwhile: longer than this only costs commits that nobody acknowledged. */
const drainLimitMs = 50
/** A standby that does not stream after this runs all the same; the core sees that it does not. */
const followLimitMs = 10_000
