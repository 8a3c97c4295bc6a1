import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { assert, unreachable } from '../../shared/assert.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { nothingSeen } from '../../shared/protocol/state.ts'
import type { DatabaseOp, DatabaseResult, DatabaseView, WalPosition } from '../../shared/protocol/types.ts'
import type { CollectedEvidence } from '../ports.ts'
import { Pulse } from '../pulse.ts'
import { type ClusterSpec, hasCluster, standbyName } from './cluster.ts'
import { refreshAccess, removeOverrides, setStandbySignal, type Wanted, writeConfig } from './config-files.ts'
import { readEpoch, writeEpoch } from './epoch-marker.ts'
import { nameRelations } from './evidence.ts'
import { lookAtPrimary, unprotectedCommits } from './observer.ts'
import {
  awaitReaped,
  findPostmaster,
  gatherIntoCgroup,
  killAll,
  makeCgroup,
  scan,
  sleep,
  startPostmaster,
} from './processes.ts'
import { dropIdleSlot, ensureSlot, flushLog, promote, proveSync } from './promote.ts'
import { collectEvidence, keptSentence, type RejoinOptions, rejoin } from './rejoin.ts'
import { connect, disconnect, within } from './sql.ts'
import { endOfLog } from './wal-end.ts'
import { Watch } from './watch.ts'

/**
 * Runs one PostgreSQL cluster for the core: carries out its operations one at a time; what is seen of it meanwhile is told
 * by its watch. It decides nothing. A kill overtakes whatever is under way.
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

/** Crash recovery, also of a large log: after this the start has failed. */
const startLimitMs = 120_000
const promoteLimitMs = 60_000
const proveLimitMs = 10_000
/** Looks come each 100 ms. */
const stallPollMs = 20
/** From the last checkpoint on at worst, at the speed of the disk. */
const endLimitMs = 70_000
/** What the server said when it ended; on a disk that hangs it is not waited for. */
const lastWordsMs = 50
/** The gate is frozen meanwhile: longer than this only costs commits that nobody acknowledged. */
const drainLimitMs = 50
/** A standby that does not stream after this runs all the same; the core sees that it does not. */
const followLimitMs = 10_000

export class PostgresDriver {
  readonly #spec: ClusterSpec
  readonly #options: DriverOptions
  readonly #watch: Watch
  /** Grows with each kill: what was begun before gives up. */
  #life = 0
  #source: Wanted['source'] = null
  /** What follows a promotion and nobody waits for. */
  #settling: Promise<void> = Promise.resolve()

  constructor(options: DriverOptions) {
    const { spec, progress, pulse = new Pulse() } = options
    this.#options = options
    this.#spec = spec
    this.#watch = new Watch({ spec, progress, pulse })
  }

  get view(): DatabaseView {
    return this.#watch.view
  }
  get cancelledWaits(): number {
    return this.#watch.log.cancelledWaits
  }
  /** The server ended for want of space; until the next start. */
  get endedFull(): boolean {
    return this.#watch.log.full
  }

  onView(tell: (view: DatabaseView) => void): void {
    this.#watch.onView(tell)
  }

  look(): void {
    this.#watch.look()
  }

  /** Finds what runs and goes on with it: a restart of the agent interrupts nothing. */
  async adopt(): Promise<DatabaseView> {
    makeCgroup(this.#spec)
    const pid = await findPostmaster(this.#spec)
    const epoch = await readEpoch(this.#spec)
    this.#watch.epoch = epoch
    await this.#watch.begin({ pid })
    if (pid !== null) {
      if (await this.#watch.adopt()) await this.#refreshAccess()
    } else if (scan(this.#spec).length > 0) {
      this.#watch.found({ ...nothingSeen, process: 'dead', epoch })
    } else {
      const end = (await hasCluster(this.#spec)) ? await endOfLog(this.#spec, null) : null
      this.#watch.found({ ...nothingSeen, process: 'none', epoch, ...(end !== null && { end }) })
    }
    return this.view
  }

  /** The pair's addresses or keys may have changed with this start. What can't be done now is done with the next start. */
  async #refreshAccess(): Promise<void> {
    try {
      if (!(await refreshAccess(this.#spec, this.#options.peerDatabase))) return
      await within(proveLimitMs, 'the reload', this.#watch.need()`select pg_reload_conf()`)
      this.#options.progress('the addresses or the keys of the pair are others: PostgreSQL reads them anew')
    } catch (error) {
      this.#options.progress(`PostgreSQL keeps the addresses and keys that it had: ${String(error)}`)
    }
  }

  /** Stops watching; PostgreSQL runs on for the next agent. */
  async detach(): Promise<void> {
    this.#watch.end()
  }

  async perform(op: DatabaseOp): Promise<DatabaseResult> {
    if (op.op === 'kill') this.#life += 1
    const life = this.#life
    try {
      if (op.op !== 'kill') await this.#settling
      const position = await this.#do(op, life)
      if (life !== this.#life && op.op !== 'kill') throw new Error('a kill came in between')
      return { ok: true, position, view: this.view }
    } catch (error) {
      return { ok: false, why: error instanceof Error ? error.message : String(error), view: this.view }
    }
  }

  async #do(op: DatabaseOp, life: number): Promise<WalPosition | null> {
    switch (op.op) {
      case 'kill':
        return this.#kill()
      case 'startPrimary':
        await this.#start({ syncNames: op.syncNames, source: null }, 'primary', life)
        await ensureSlot(this.#watch.need(), this.#spec)
        await this.#watch.refresh()
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
          await this.#watch.refresh()
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
    const before = this.view
    await this.#killAll()
    const lastWords = Promise.race([this.#watch.log.read(), sleep(lastWordsMs)])
    const end = await within(endLimitMs, 'the search for the end of the log', this.#endAfter(before))
    await lastWords
    this.#watch.show({
      ...nothingSeen,
      process: 'none',
      epoch: before.epoch,
      end: end ?? before.end,
      ioError: this.#watch.log.ioError,
    })
    return this.view.end
  }

  async #killAll(): Promise<void> {
    this.#watch.letGo()
    assert(await killAll(this.#spec), 'processes of the database could not be killed: they hang in the kernel')
    this.#watch.ended()
  }

  async #endAfter(before: DatabaseView): Promise<WalPosition | null> {
    if (!(await hasCluster(this.#spec))) return null
    return endOfLog(
      this.#spec,
      before.process === 'primary' || before.process === 'dead' ? this.#watch.flushed.position : null,
    )
  }

  async #start(wanted: Wanted, as: 'primary' | 'standby', life: number): Promise<void> {
    assert(scan(this.#spec).length === 0, 'processes of the database are left; they have to be killed first')
    await awaitReaped(this.#spec)
    // No process is left, so the file names nobody: a zombie, or another program with the same number, would block the start.
    await rm(join(this.#spec.dataDir, 'postmaster.pid'), { force: true })
    this.#source = wanted.source
    await this.#configure(wanted)
    await setStandbySignal(this.#spec, as)
    this.#watch.epoch = await readEpoch(this.#spec)
    this.#watch.starts()
    if (life !== this.#life) throw new Error('a kill came in between')
    const child = await startPostmaster(this.#spec)
    this.#watch.started(child)
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
      this.#watch.ended()
      this.#watch.show({ ...this.view, process: scan(this.#spec).length === 0 ? 'none' : 'dead' })
      throw new Error(ended ? 'the server ended while it started; its log says why' : 'the start was given up')
    }
    this.#watch.answers(child, sql)
    gatherIntoCgroup(this.#spec)
    await this.#watch.refresh()
  }

  async #configure(wanted: Wanted): Promise<void> {
    await writeConfig(this.#spec, wanted)
    const removed = await removeOverrides(this.#spec)
    if (removed.length > 0)
      this.#options.progress(`removed from postgresql.auto.conf, since the pair rests on it: ${removed.join('; ')}`)
  }

  async #promote(op: DatabaseOp & { op: 'promote' }, life: number): Promise<null> {
    const given = (): boolean => life !== this.#life
    if (!this.#watch.runs) {
      // One is made at set-up alone: here an empty one would be served in the place of the pair's data.
      if (!(await hasCluster(this.#spec)))
        throw new Error(
          `there is no whole database in ${this.#spec.dataDir}, and none is made in its place; is its volume mounted? A copy that did not end counts as none`,
        )
      await this.#start({ syncNames: op.syncNames, source: null }, 'standby', life)
    }
    await promote(this.#watch.need(), this.#spec, {
      startup: this.#watch.warmth.startup,
      limitMs: promoteLimitMs,
      given,
    })
    this.#watch.warmth.stop()
    await writeEpoch(this.#spec, op.epoch)
    this.#watch.epoch = op.epoch
    await this.#watch.refresh()
    this.#source = null
    // Clients wait for none of this: the other host needs its slot only when it comes to follow.
    this.#settling = this.#settle(op.syncNames).catch(error => this.#options.progress(String(error)))
    return null
  }

  async #settle(syncNames: 'set' | 'empty'): Promise<void> {
    await writeConfig(this.#spec, { syncNames, source: null })
    await this.#watch.need()`select pg_reload_conf()`
    await ensureSlot(this.#watch.need(), this.#spec)
  }

  async #drain(life: number): Promise<null> {
    const until = performance.now() + drainLimitMs
    // What nobody waited for (hint bits, an empty transaction) may be written and not flushed: the standby never gets it,
    // and it would stand on this disk past the fork.
    await within(drainLimitMs * 2, 'the drain', flushLog(this.#watch.need()))
    while (performance.now() < until && life === this.#life) {
      const look = await within(drainLimitMs * 2, 'the drain', lookAtPrimary(this.#watch.need(), this.#spec))
      this.#watch.flushed.note(look)
      if (look.sender !== null && look.sender.flushedLsn >= look.flushed.lsn) return null
      await sleep(1)
    }
    return null
  }

  /** Rejects when the standby has flushed nothing of what commits wait for: the names may have to be emptied at once. */
  async #stalled(life: number, over: AbortSignal): Promise<never> {
    while (!over.aborted && life === this.#life && this.view.stalledMs < this.#spec.hangMs) await sleep(stallPollMs)
    throw new Error(`the standby has not flushed anything for ${Math.round(this.view.stalledMs)} ms`)
  }

  async #setSyncNames(set: 'set' | 'empty'): Promise<null> {
    await writeConfig(this.#spec, { syncNames: set, source: this.#source })
    const sql = this.#watch.need()
    // Not seen yet is no other value.
    if (this.view.syncNames === 'unknown') await this.#watch.refresh()
    // Somebody's ALTER SYSTEM would count more than our file.
    if (this.view.syncNames === 'unknown') {
      this.#options.progress('synchronous_standby_names was changed by somebody else; it is set back')
      await within(proveLimitMs, 'the reset', sql`alter system reset synchronous_standby_names`)
    }
    await within(proveLimitMs, 'the reload', sql`select pg_reload_conf()`)
    const until = performance.now() + proveLimitMs
    // The session that reads the setting has to have processed the reload itself.
    while (performance.now() < until) {
      await this.#watch.refresh()
      if (this.view.syncNames === set) return null
      await sleep(2)
    }
    throw new Error(`synchronous_standby_names did not become ${set} after a reload`)
  }

  async #rejoin(op: DatabaseOp & { op: 'rejoin' }, life: number): Promise<null> {
    await this.#killAll()
    // What is here may be given up for a copy from now on: whether it is whole is known again when that has ended.
    const { end } = this.view
    this.#watch.show({ ...this.view, process: 'none', end: nothingSeen.end, streaming: false, sender: null })
    const { source, evidence } = await rejoin({ ...this.#rejoinOptions(life), clone: op.clone }).catch(async error => {
      const untouched = await hasCluster(this.#spec)
      if (untouched && life === this.#life) this.#watch.show({ ...this.view, end })
      throw error
    })
    await this.#start({ syncNames: 'empty', source }, 'standby', life)
    const until = performance.now() + followLimitMs
    while (!this.view.streaming && performance.now() < until && life === this.#life) {
      await sleep(10)
      await this.#watch.refresh()
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
    if (this.#watch.sql === null || this.view.process !== 'primary') return []
    return within(this.#spec.hangMs, 'a look at the settings of roles', unprotectedCommits(this.#watch.sql)).catch(
      () => [],
    )
  }

  async forgetPeer(): Promise<void> {
    if (this.#watch.sql === null || this.view.process !== 'primary') return
    const dropped = dropIdleSlot(this.#watch.sql, standbyName(otherNode(this.#spec.node)))
    await within(this.#spec.hangMs, 'the end of a slot', dropped).catch(error => this.#options.progress(String(error)))
  }

  /** What the stopped cluster here has and the primary has not; nothing but the bundle is written. */
  async collectEvidence(): Promise<CollectedEvidence> {
    const { process } = this.view
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
}
