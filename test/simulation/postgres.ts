import type { DatabaseView, DataNode } from '../../shared/protocol/types.ts'
import type { Disk } from './disk.ts'
import type { Network } from './network.ts'
import type { Options } from './options.ts'
import type { Random } from './random.ts'
import { type Session, Stream } from './replication.ts'
import { type Log, noWrite, recordBytes, Timeline, timelineAt } from './wal.ts'
import type { World } from './world.ts'

/** What a cluster tells the world around it. */
export interface ClusterWatch {
  /** The server let a commit return without a warning; the answer is on its way to the gate. */
  released(cluster: Cluster, commit: Commit): void
  /** Something that the agent would notice changed. */
  changed(cluster: Cluster): void
  /** The log on disk is replaced by another one: a rewind or a clone. */
  replaced(cluster: Cluster, next: Log): void
  /** It begins to accept connections as a primary. */
  opened(cluster: Cluster): void
  /** A crash came in the middle of a flush. */
  torn(): void
}

export interface Commit {
  write: number
  tl: Timeline
  lsn: number
  at: number
  /** The other host had flushed it when it was released. */
  copied: boolean
}

export interface ClusterParts {
  node: DataNode
  world: World
  options: Options
  random: Random
  disk: Disk
  network: Network
  watch: ClusterWatch
  nextTimelineId: () => number
}

/**
 * One PostgreSQL cluster, as far as the protocol can tell it from a real one: a log on disk, commits that wait for the
 * standby once the *checkpointer* has processed the names, waiters that become visible by a restart, orphaned backends
 * after the postmaster's death, and a diverged standby that acknowledges what it does not have.
 */
export class Cluster {
  readonly parts: ClusterParts
  dir: 'none' | 'ok' | 'broken' = 'none'
  /** On disk. */
  log: Log
  /** The furthest that it flushed as a standby, lost since or not. */
  flushedOnce: Log
  marker = 0
  /** The other host has no longer what this log would need next to follow it. */
  logRemoved = false
  /** In the configuration file. */
  names: 'set' | 'empty' = 'empty'
  process: DatabaseView['process'] = 'none'
  /** SIGSTOP to every process. */
  private held = false
  /** The life that was killed: no process of it does anything any more, and no SIGCONT changes that. */
  private killedLife = -1
  /** +1 whenever all processes are new or gone: nothing that was under way in them goes on. */
  life = 0
  /** The flag in shared memory that makes commits wait. */
  inForce = false
  insertLsn = 0
  private pending: number[] = []
  private flushing = false
  private flushingSince = 0
  private batch = 0
  waiting: Commit[] = []
  /** Up to here (on log.tl) everything is visible to readers. */
  visible = 0
  cancelled = 0
  progressAt = 0
  orphanUntil = 0
  /** The checkpointer is busy until then. */
  checkpointerBusyUntil = 0
  hangingSince = 0
  readonly stream: Stream

  constructor(parts: ClusterParts) {
    this.parts = parts
    this.log = { tl: new Timeline(parts.nextTimelineId(), 1, null, 0), end: 0 }
    this.flushedOnce = this.log
    this.stream = new Stream(this)
  }

  /** Nothing of it runs: stopped by a signal, or killed and not yet gone. */
  get stopped(): boolean {
    return this.held || this.killedLife === this.life
  }
  set stopped(held: boolean) {
    this.held = held
  }

  /** Clients get nothing any more from the first moment on. */
  beginKill(): void {
    this.killedLife = this.life
  }

  get node(): DataNode {
    return this.parts.node
  }

  /** initdb: an empty database with a log of one record. */
  create(): void {
    this.dir = 'ok'
    this.log = { tl: new Timeline(this.parts.nextTimelineId(), 1, null, 0), end: 0 }
    this.log.tl.writes.push(noWrite)
    this.log.end = recordBytes
    this.marker = 0
    this.names = 'empty'
  }

  /** A new disk. */
  forget(): void {
    this.end('off')
    this.dir = 'none'
    this.logRemoved = false
    this.log = { tl: new Timeline(this.parts.nextTimelineId(), 1, null, 0), end: 0 }
    this.marker = 0
  }

  // ------------------------------------------------------------ clients

  /** Whether a client that reaches this host's port gets an answer: orphaned backends go on serving who is connected. */
  get answers(): boolean {
    if (this.stopped) return false
    return this.process === 'primary' || this.process === 'standby' || this.orphans
  }

  get orphans(): boolean {
    return this.process === 'dead' && this.parts.world.now < this.orphanUntil
  }

  write(write: number): boolean {
    if (this.stopped) return false
    if (this.process !== 'primary' && !(this.orphans && this.parts.random.chance(0.5))) return false
    this.insert(write)
    return true
  }

  /** A client goes away or an operator cancels: the wait ends with a warning, and the row is there. Not an acknowledgement. */
  cancelWaits(): void {
    this.cancelled += this.waiting.length
    this.waiting = []
  }

  // ------------------------------------------------------------ log

  insert(write: number): number {
    this.insertLsn += recordBytes
    this.pending.push(write)
    this.flush()
    return this.insertLsn
  }

  private flush(): void {
    if (this.flushing || this.pending.length === 0) return
    this.flushing = true
    this.flushingSince = this.parts.world.now
    const { disk } = this.parts
    const life = this.life
    const batch = this.pending.length
    this.batch = batch
    const done = () => {
      if (life !== this.life) return
      if (this.stopped) return this.parts.world.after(20, done)
      this.flushing = false
      if (disk.ioError || disk.full > 0) return this.crash()
      this.append(batch)
      this.flush()
    }
    disk.flush(done)
  }

  private record(write: number): void {
    if (this.log.tl.end !== this.log.end) {
      // Another history was written here before: what comes now is a timeline of its own that bears the same number.
      this.log.tl = new Timeline(this.parts.nextTimelineId(), this.log.tl.number, this.log.tl, this.log.end)
    }
    this.log.tl.writes.push(write)
    this.log.end += recordBytes
  }

  /** A crash in the middle of a flush leaves some of its records whole: on disk, and nobody was told. */
  private tearFlush(): void {
    const { disk, random } = this.parts
    if (!this.flushing || disk.ioError || disk.full > 0 || disk.hangs > 0) return
    const whole = random.below(this.batch + 1)
    for (let i = 0; i < whole; i++) this.record(this.pending[i]!)
    this.parts.watch.torn()
  }

  private append(count: number): void {
    const { world } = this.parts
    for (let i = 0; i < count; i++) {
      const write = this.pending[i]!
      this.record(write)
      const { tl } = this.log
      const commit: Commit = { write, tl, lsn: this.log.end, at: world.now, copied: false }
      if (this.inForce) {
        if (this.waiting.length === 0) this.progressAt = world.now
        this.waiting.push(commit)
      } else this.release(commit)
    }
    this.pending = this.pending.slice(count)
    this.stream.pump()
    this.releaseUpTo(this.stream.reported)
  }

  /** The standby's flush position as its session reports it: PostgreSQL compares the number and nothing else. */
  releaseUpTo(lsn: number): void {
    if (this.stopped || this.process !== 'primary') return
    let count = 0
    while (count < this.waiting.length && this.waiting[count]!.lsn <= lsn) count++
    if (count === 0) return
    const released = this.waiting.slice(0, count)
    this.waiting = this.waiting.slice(count)
    this.progressAt = this.parts.world.now
    for (const commit of released) this.release(commit)
  }

  private release(commit: Commit): void {
    if (commit.lsn > this.visible) this.visible = commit.lsn
    if (commit.write !== noWrite) this.parts.watch.released(this, commit)
  }

  // ------------------------------------------------------------ names

  setNames(names: 'set' | 'empty'): void {
    this.names = names
    this.reload()
  }

  /** The checkpointer processes the reload when it gets to it: between the writes of a checkpoint, or much later. */
  private reload(): void {
    const { world, options, random } = this.parts
    const life = this.life
    const late = random.chance(0.05)
      ? random.between(0, options.checkpointerLateMs)
      : options.checkpointerMs * random.next()
    const process = () => {
      if (life !== this.life) return
      if (this.stopped || world.now < this.checkpointerBusyUntil) return world.after(20, process)
      this.inForce = this.names === 'set'
      if (!this.inForce) this.releaseUpTo(Number.POSITIVE_INFINITY)
      this.parts.watch.changed(this)
    }
    world.after(late, process)
  }

  // ------------------------------------------------------------ processes

  /** Crash recovery is over: everything in the log is visible, acknowledged or not. */
  openAsPrimary(): void {
    this.process = 'primary'
    this.insertLsn = this.log.end
    this.visible = this.log.end
    this.inForce = false
    this.reload()
    this.insert(noWrite)
    this.parts.watch.opened(this)
    this.parts.watch.changed(this)
  }

  runAsStandby(epoch: number): void {
    this.process = 'standby'
    this.insertLsn = this.log.end
    this.visible = this.log.end
    this.stream.follow(epoch)
    this.parts.watch.changed(this)
  }

  beginStart(): void {
    this.life++
    this.process = 'starting'
    this.stopped = false
    this.parts.watch.changed(this)
  }

  /** Every process is gone; what was not on disk is lost, and so are the answers to those who waited. */
  end(power: 'on' | 'off'): void {
    this.tearFlush()
    this.life++
    this.process = 'none'
    this.stopped = false
    this.pending = []
    this.flushing = false
    this.waiting = []
    this.inForce = false
    this.insertLsn = this.log.end
    this.stream.processesGone(power)
    this.parts.watch.changed(this)
  }

  /** The postmaster is killed: walsender and receiver go with it, busy backends stay for `orphanMs`. */
  losePostmaster(orphanMs: number): void {
    if (this.process !== 'primary' && this.process !== 'standby') return
    this.process = 'dead'
    this.orphanUntil = this.parts.world.now + orphanMs
    this.stream.processesGone('on')
    this.parts.watch.changed(this)
    const life = this.life
    this.parts.world.after(orphanMs, () => {
      if (life === this.life) this.end('on')
    })
  }

  /** A backend died, or PostgreSQL gave up on its volume: with restart_after_crash off nothing is left shortly after. */
  crash(): void {
    if (this.process === 'none') return
    this.losePostmasterOrEnd()
  }

  private losePostmasterOrEnd(): void {
    if (this.process === 'starting') return this.end('on')
    this.losePostmaster(this.parts.random.between(2, 8))
  }

  newTimeline(): void {
    this.log.tl = new Timeline(this.parts.nextTimelineId(), this.log.tl.number + 1, this.log.tl, this.log.end)
  }

  // ------------------------------------------------------------ what the agent sees

  view(): DatabaseView {
    const { world, disk } = this.parts
    const up = this.process === 'primary' || this.process === 'standby'
    const end = this.process === 'primary' ? this.insertLsn : this.log.end
    const known = this.dir === 'ok'
    const standsStill = up && (this.stopped || disk.hangs > 0)
    const slowWrite = this.flushing && world.now - this.flushingSince > hangAfterMs
    if (!standsStill) this.hangingSince = 0
    else if (this.hangingSince === 0) this.hangingSince = world.now
    const hangsForMs = standsStill ? world.now - this.hangingSince : 0
    return {
      process: this.process,
      end: known ? { timeline: timelineAt(this.log).number, lsn: end } : { timeline: 0, lsn: 0 },
      epoch: known ? this.marker : 0,
      syncNames: known ? this.names : 'unknown',
      sender: this.process === 'primary' ? this.stream.senderView() : null,
      streaming: this.process === 'standby' && this.stream.receiving,
      stalledMs: this.waiting.length > 0 ? world.now - this.progressAt : 0,
      hanging: hangsForMs > hangAfterMs || (this.process === 'primary' && slowWrite),
      stuck: hangsForMs > stuckAfterMs,
      ioError: disk.ioError,
    }
  }
}

/** The driver's health write and its probe connection miss their deadline after this. */
export const hangAfterMs = 300
/** As in node-agent/postgres/silence.ts; a write that takes long does not stand still. */
const stuckAfterMs = 10 * hangAfterMs

export type { Session }
