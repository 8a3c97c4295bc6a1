import type { DatabaseOp, DatabaseResult, DatabaseView, WalPosition } from '../../shared/protocol/types.ts'
import type { Cluster } from './postgres.ts'
import { commonEnd, contains, noWrite, timelineAt } from './wal.ts'

/** An operation that did not come to an end by then is reported as failed. */
const operationLimitMs = 30_000
/** The proof of sync and the wait for a primary to follow. */
const proofLimitMs = 2000
const followLimitMs = 3000
/** A stopped agent goes on within this after it is continued. */
const stoppedPollMs = 10

export interface DriverEnv {
  cluster: Cluster
  peer: Cluster
  drainMs: number
  /** The agent's process is not stopped. */
  running(): boolean
  done(id: number, result: DatabaseResult): void
  count(name: string): void
}

/**
 * The agent's database driver: it carries out one operation of the core at a time on the simulated cluster. A `kill` ends
 * what is under way. When the agent dies, its children die with it; a promotion that PostgreSQL has begun goes on.
 */
export class Driver {
  private readonly env: DriverEnv
  private token = 0
  private newest = 0
  private running: number | null = null
  private promoting = false

  constructor(env: DriverEnv) {
    this.env = env
  }

  /** The agent's process is gone. */
  abandon(): void {
    this.token++
    this.newest = 0
    this.running = null
    this.promoting = false
  }

  /** What the driver says while it is at work: a promotion is a start until the timeline is there. */
  get startsUp(): boolean {
    return this.promoting
  }

  view(): DatabaseView {
    const view = this.env.cluster.view()
    return this.promoting && view.process === 'standby' ? { ...view, process: 'starting' } : view
  }

  /** As in the product: what a kill overtook while it waited for a durable write does not start afterwards. */
  run(id: number, op: DatabaseOp): void {
    if (id < this.newest) return
    this.newest = id
    if (this.running !== null) {
      const ended = this.running
      this.token++
      this.promoting = false
      this.env.done(ended, { ok: false, why: `a newer operation (${op.op}) took its place`, view: this.view() })
    }
    this.running = id
    const token = this.token
    this.start(op)
    this.env.cluster.parts.world.after(operationLimitMs, () => {
      this.whenRunning(token, () => this.fail('the operation timed out'))
    })
  }

  private start(op: DatabaseOp): void {
    switch (op.op) {
      case 'kill':
        return this.kill()
      case 'startPrimary':
        return this.startPrimary(op)
      case 'promote':
        return this.promote(op)
      case 'drain':
        return this.drain()
      case 'syncNames':
        return this.syncNames(op.set)
      case 'proveSync':
        return this.proveSync()
      case 'rejoin':
        return this.rejoin(op)
    }
  }

  private finish(result: { ok: true; position: WalPosition | null } | { ok: false; why: string }): void {
    const id = this.running
    if (id === null) return
    this.running = null
    this.promoting = false
    this.token++
    this.env.done(id, { ...result, view: this.view() })
  }

  private fail(why: string): void {
    this.finish({ ok: false, why })
  }

  private succeed(lsn: number | null): void {
    const { log } = this.env.cluster
    this.finish({ ok: true, position: lsn === null ? null : { timeline: timelineAt(log).number, lsn } })
  }

  /** Goes on with `next` unless another operation, or a new agent, has taken over. */
  private later(delayMs: number, next: () => void): void {
    const token = this.token
    this.env.cluster.parts.world.after(delayMs, () => this.whenRunning(token, next))
  }

  /** Nothing of the agent's goes on while its process is stopped. */
  private whenRunning(token: number, next: () => void): void {
    if (token !== this.token) return
    if (this.env.running()) next()
    else this.env.cluster.parts.world.after(stoppedPollMs, () => this.whenRunning(token, next))
  }

  private poll(options: {
    everyMs: number
    limitMs: number
    until: () => boolean
    finish: (ok: boolean) => void
  }): void {
    const { world } = this.env.cluster.parts
    const end = world.now + options.limitMs
    const look = () => {
      if (options.until()) options.finish(true)
      else if (world.now >= end) options.finish(false)
      else this.later(options.everyMs, look)
    }
    look()
  }

  // ------------------------------------------------------------ operations

  private kill(): void {
    const { cluster } = this.env
    const { world, disk, random, options } = cluster.parts
    const { life } = cluster
    const report = () => this.later(random.between(1, 3), () => this.succeed(cluster.log.end))
    if (cluster.process === 'none') return report()
    // The kernel does it, whether or not the agent lives to see the end.
    const die = () => {
      if (cluster.life !== life) return
      // A process in an uninterruptible write dies when the volume answers.
      if (disk.hangs > 0) return world.after(50, die)
      cluster.end('on')
    }
    cluster.beginKill()
    world.after(options.killMs * random.between(0.8, 1.2), die)
    this.poll({ everyMs: 2, limitMs: operationLimitMs, until: () => cluster.process === 'none', finish: report })
  }

  private startPrimary(op: DatabaseOp & { op: 'startPrimary' }): void {
    const { cluster } = this.env
    if (cluster.process === 'primary') {
      if (cluster.names !== op.syncNames) cluster.setNames(op.syncNames)
      return this.later(1, () => this.succeed(cluster.log.end))
    }
    if (cluster.process !== 'none') return this.later(1, () => this.fail(`processes are left (${cluster.process})`))
    if (cluster.dir !== 'ok') return this.later(1, () => this.fail('there is no usable data directory'))
    if (cluster.marker !== op.epoch) {
      return this.later(1, () => this.fail(`the data directory bears epoch ${cluster.marker}, not ${op.epoch}`))
    }
    this.boot(
      op.syncNames,
      () => cluster.openAsPrimary(),
      () => this.succeed(cluster.log.end),
    )
  }

  /**
   * Starts the server with these names in its configuration; `open` runs when crash recovery is over, whether or not
   * the agent is still there to see it.
   */
  private boot(names: 'set' | 'empty', open: () => void, then: () => void): void {
    const { cluster } = this.env
    const { world, disk, random, options } = cluster.parts
    cluster.names = names
    cluster.beginStart()
    const life = cluster.life
    const token = this.token
    const ready = () => {
      const fail = (why: string) => this.whenRunning(token, () => this.fail(why))
      if (cluster.life !== life) return fail('the server ended while it started')
      if (disk.ioError || disk.full > 0) {
        cluster.end('on')
        return fail('the volume refuses writes')
      }
      if (disk.hangs > 0 || cluster.stopped) return void world.after(50, ready)
      open()
      if (token === this.token) this.later(1, then)
    }
    world.after(options.recoveryMs * random.between(0.7, 1.3) + disk.flushMs(), ready)
  }

  private promote(op: DatabaseOp & { op: 'promote' }): void {
    const { cluster } = this.env
    if (cluster.dir !== 'ok') return this.later(1, () => this.fail('there is no usable data directory'))
    if (cluster.process === 'primary') {
      if (cluster.marker === op.epoch) return this.later(1, () => this.succeed(cluster.log.end))
      return this.later(1, () => this.fail(`it runs as the primary of epoch ${cluster.marker}`))
    }
    if (cluster.process === 'dead') return this.later(1, () => this.fail('processes are left'))
    // A promotion for this epoch that was interrupted after its timeline was made: it only has to start.
    const made = cluster.marker === op.epoch
    this.promoting = true
    if (cluster.process === 'standby') {
      cluster.names = op.syncNames
      return this.promoteNow(op.epoch, { made })
    }
    this.boot(
      op.syncNames,
      () => cluster.runAsStandby(-1),
      () => this.promoteNow(op.epoch, { made }),
    )
  }

  private promoteNow(epoch: number, { made }: { made: boolean }): void {
    const { cluster } = this.env
    const { world, random, disk, options } = cluster.parts
    cluster.stream.stopReceiver()
    const life = cluster.life
    const token = this.token
    // PostgreSQL goes on by itself: not bound to the agent, only to its own processes.
    const ready = () => {
      if (cluster.life !== life || cluster.process !== 'standby') {
        return this.whenRunning(token, () => this.fail('the server ended during its promotion'))
      }
      if (disk.ioError || disk.full > 0) return cluster.crash()
      if (disk.hangs > 0 || cluster.stopped) return void world.after(20, ready)
      if (!made) cluster.newTimeline()
      this.env.count('promotion')
      if (token !== this.token) this.env.count('promotion without its agent')
      cluster.openAsPrimary()
      // The marker is the agent's: without one it is missing, and the promotion is done again.
      this.whenRunning(token, () => {
        cluster.marker = epoch
        this.succeed(cluster.insertLsn)
      })
    }
    world.after(options.promoteMs * random.between(0.7, 1.5), ready)
  }

  private drain(): void {
    const { cluster, drainMs } = this.env
    this.poll({
      everyMs: 1,
      limitMs: drainMs,
      until: () => cluster.process === 'primary' && cluster.stream.reported >= cluster.insertLsn,
      finish: ok => (ok ? this.succeed(cluster.insertLsn) : this.fail('the standby did not flush the end in time')),
    })
  }

  private syncNames(set: 'set' | 'empty'): void {
    const { cluster } = this.env
    if (cluster.process !== 'primary' || cluster.stopped)
      return this.later(1, () => this.fail('the primary does not run'))
    this.later(cluster.parts.random.between(0.5, 3), () => {
      if (cluster.process !== 'primary') return this.fail('the primary does not run')
      cluster.setNames(set)
      this.succeed(null)
    })
  }

  private proveSync(): void {
    const { cluster } = this.env
    const proven = () => cluster.process === 'primary' && !cluster.stopped && cluster.names === 'set' && cluster.inForce
    this.poll({
      everyMs: 4,
      limitMs: proofLimitMs,
      until: () => proven() || cluster.process !== 'primary',
      finish: () => {
        if (!proven()) return this.fail('synchronous replication is not in force')
        this.succeed(cluster.insert(noWrite))
      },
    })
  }

  // ------------------------------------------------------------ rejoin

  private rejoin(op: DatabaseOp & { op: 'rejoin' }): void {
    const { cluster, peer } = this.env
    const { network } = cluster.parts
    if (cluster.process === 'primary' || cluster.process === 'dead') {
      return this.later(1, () => this.fail(`processes are left (${cluster.process})`))
    }
    const ready = () =>
      peer.process === 'primary' &&
      !peer.stopped &&
      peer.marker === op.epoch &&
      (op.timeline === 0 || peer.log.tl.number === op.timeline) &&
      network.streams(cluster.node, peer.node) &&
      network.streams(peer.node, cluster.node)
    this.poll({
      everyMs: 50,
      limitMs: followLimitMs,
      until: ready,
      finish: ok => {
        if (!ok) return this.fail(`there is no primary of epoch ${op.epoch} on timeline ${op.timeline} to follow`)
        if (cluster.process !== 'none') cluster.end('on')
        this.join(op, ready)
      },
    })
  }

  private join(op: DatabaseOp & { op: 'rejoin' }, ready: () => boolean): void {
    const { cluster, peer } = this.env
    const { random, options } = cluster.parts
    const way = this.wayBack(op)
    this.env.count(`rejoin: ${way}`)
    if (way === 'follow') return this.runStandby(op.epoch)
    // CHECKPOINT on the new primary first: otherwise "no rewind required" for diverged ones.
    peer.insert(noWrite)
    const rewinds = way === 'rewind'
    const ms = (rewinds ? options.rewindMs : options.cloneMs) * random.between(0.7, 1.3)
    this.later(5, () => {
      cluster.parts.watch.replaced(cluster, { tl: peer.log.tl, end: peer.log.end })
      cluster.dir = 'broken'
      this.later(ms, () => {
        if (!ready()) return this.fail('the primary went away during the copy')
        if (cluster.parts.disk.ioError || cluster.parts.disk.full > 0) return this.fail('the volume refuses writes')
        cluster.log = { tl: peer.log.tl, end: peer.log.end }
        cluster.marker = 0
        cluster.dir = 'ok'
        cluster.logRemoved = false
        this.runStandby(op.epoch)
      })
    })
  }

  /** Follow iff no complete record lies past the fork; never rewind two that share a timeline. */
  private wayBack(op: DatabaseOp & { op: 'rejoin' }): 'follow' | 'rewind' | 'clone' {
    const { cluster, peer } = this.env
    if (op.clone === 'always' || cluster.dir !== 'ok') return 'clone'
    if (contains(peer.log, cluster.log.tl, cluster.log.end)) return 'follow'
    const sameNumber = timelineAt(cluster.log).number >= timelineAt(peer.log).number
    return sameNumber || commonEnd(cluster.log, peer.log) === 0 ? 'clone' : 'rewind'
  }

  private runStandby(epoch: number): void {
    const { cluster } = this.env
    this.boot(
      'empty',
      () => cluster.runAsStandby(epoch),
      () => this.succeed(cluster.log.end),
    )
  }
}
