import type { ChildProcess } from 'node:child_process'
import { nothingSeen } from '../../shared/protocol/state.ts'
import type { DatabaseView } from '../../shared/protocol/types.ts'
import type { Pulse } from '../pulse.ts'
import type { ClusterSpec } from './cluster.ts'
import { isStandby } from './config-files.ts'
import { FlushedEnd } from './flushed-end.ts'
import { HealthProbe, listens } from './health.ts'
import { lookAtPrimary, lookAtStandby, type PrimaryLook } from './observer.ts'
import { isGone, sleep } from './processes.ts'
import { ServerLog } from './server-log.ts'
import { hardships, Silence } from './silence.ts'
import { connect, disconnect, type Sql, within } from './sql.ts'
import { Warmth } from './warmth.ts'

/**
 * What is seen of the server that runs, or ran: looks by an open connection, the probes of a primary, its process, its log.
 * It tells each view at once and changes nothing; the driver says which server there is to watch.
 */
export interface WatchOptions {
  spec: ClusterSpec
  /** A line for people. */
  progress: (line: string) => void
  pulse: Pulse
}

/** A look. The end of the process is an event, or that of our connection to it. */
const lookEveryMs = 100
/** With each third turn the probe writes. While a pair follows each other in calm and no commit waits, there is no other look. */
const turnsOfWrite = 3
/** Our backend notices the end of a postmaster at once, and this process its: which of them is seen first is chance. */
const goneSoonMs = 100
/** A timer this late was held up by a stop or by hunger, not by the loop's own work. */
const starvedMs = 30
const refreshLimitMs = 10_000
const logEveryMs = 1000

export class Watch {
  /** The marker in the data directory, which nobody else writes: a look must not wait for a disk. */
  epoch = 0
  readonly log: ServerLog
  readonly warmth: Warmth
  readonly flushed = new FlushedEnd()
  readonly #options: WatchOptions
  readonly #spec: ClusterSpec
  readonly #health: HealthProbe
  readonly #silence: Silence
  #tell: (view: DatabaseView) => void = () => {}
  #view: DatabaseView = nothingSeen
  #sql: Sql | null = null
  /** null: it was started by an earlier agent. */
  #child: ChildProcess | null = null
  #pid: number | null = null
  #ends: (() => void)[] = []
  #looking: Promise<void> | null = null
  /** Grows with each look: one that was overtaken by a later one tells nothing any more. */
  #looks = 0
  #lookAgain = false
  #calm = false
  #turn = 0
  #lookSince = 0
  #watchedAt = 0
  #stall: { since: number; flushed: number } | null = null

  constructor(options: WatchOptions) {
    const { spec } = options
    this.#options = options
    this.#spec = spec
    this.#health = new HealthProbe(spec)
    this.#silence = new Silence({ hangMs: spec.hangMs, look: () => hardships(spec) })
    this.log = new ServerLog(spec)
    this.warmth = new Warmth(spec)
  }

  get view(): DatabaseView {
    return this.#view
  }
  onView(tell: (view: DatabaseView) => void): void {
    this.#tell = tell
  }

  /** null: there is none to ask. */
  get sql(): Sql | null {
    return this.#sql
  }
  need(): Sql {
    if (this.#sql === null) throw new Error('the database does not run')
    return this.#sql
  }

  /** @param part.pid of a server that runs already; null: none does */
  async begin({ pid }: { pid: number | null }): Promise<void> {
    const { pulse } = this.#options
    this.#pid = pid
    this.#ends = [pulse.every(lookEveryMs, () => this.#takeTurn()), pulse.every(logEveryMs, () => void this.log.read())]
    await this.log.read()
    if (pid === null) return
    this.#sql = connect(this.#spec, { closed: () => void this.#goneSoon(pid) })
    this.#view = { ...nothingSeen, process: 'starting', epoch: this.epoch }
  }

  /** What runs is watched no more. */
  end(): void {
    for (const end of this.#ends) end()
    this.#ends = []
    this.letGo()
  }

  /** What there was before the first look, or instead of it; nobody is told. */
  found(view: DatabaseView): void {
    this.#view = view
  }

  /**
   * At a server that an earlier agent started. One that does not answer at once may be merely starved, as many are while a
   * host starts or is upgraded: it is taken for what its folder says, and given the time that one is given which falls silent
   * later. One that ended meanwhile is dead, and one that nobody reaches here (its port was another one) as good as that.
   * @returns whether it has answered
   */
  async adopt(): Promise<boolean> {
    const look = this.lookOnce()
    this.#follow(look)
    const why = await within(this.#spec.hangMs * 2, 'the first look at the database', look).then(
      () => '',
      error => (error instanceof Error ? error.message : String(error)),
    )
    if (why === '') return true
    const process = (await isStandby(this.#spec)) ? 'standby' : 'primary'
    if (this.#pid === null || this.#view.end.timeline > 0) return false
    if (!listens(this.#spec)) {
      this.found({ ...this.#view, process: 'dead' })
      return false
    }
    this.#options.progress(`the database that runs here is adopted although it has not answered yet: ${why}`)
    this.#view = { ...nothingSeen, process, epoch: this.epoch }
    if (process === 'primary') this.#health.start()
    this.#noteHang()
    return false
  }

  get runs(): boolean {
    return this.#pid !== null
  }

  /** A server is about to start, and is not asked anything yet. */
  starts(): void {
    this.flushed.clear()
    this.log.ioError = false
    this.log.full = false
    this.#view = { ...nothingSeen, process: 'starting', epoch: this.epoch }
  }
  started(child: ChildProcess): void {
    this.#child = child
    this.#pid = child.pid ?? null
  }
  /** It takes connections. */
  answers(child: ChildProcess, sql: Sql): void {
    this.#sql = sql
    child.once('exit', () => this.#died(child))
  }

  /** It is asked nothing more: it is about to be killed. */
  letGo(): void {
    this.#health.stop()
    this.#drop()
  }

  /** None runs, or none that is worth watching. */
  ended(): void {
    this.#pid = null
    this.#child = null
  }

  show(view: DatabaseView): void {
    if (view.hanging && !this.#view.hanging) this.#options.progress(`the database does not answer: ${this.#trouble()}`)
    if (view.stuck && !this.#view.stuck)
      this.#options.progress(
        `the database is stuck: ${this.#trouble()}, of which its host kept it waiting for ${Math.round(this.#silence.heldMs)} ms`,
      )
    this.#view = view
    this.#tell(view)
  }

  look(): void {
    if (this.#looking !== null) {
      this.#lookAgain = true
      this.#noteHang()
      return
    }
    this.#follow(this.lookOnce())
  }

  /** One look at a time. */
  #follow(look: Promise<void>): void {
    this.#looking = look
      .catch(() => {})
      .finally(() => {
        this.#looking = null
        this.#lookSince = 0
        if (!this.#lookAgain) return
        this.#lookAgain = false
        this.look()
      })
  }

  async refresh(): Promise<void> {
    await within(refreshLimitMs, 'a look at the database', this.lookOnce())
  }

  async lookOnce(): Promise<void> {
    const sql = this.#sql
    if (sql === null || this.#pid === null) return
    this.#lookSince = performance.now()
    this.#looks += 1
    // A primary becomes a standby only as another process; what was never seen is only supposed to be one.
    const wasSeen = this.#view.process === 'primary' && this.#view.end.timeline > 0
    const standby = wasSeen ? null : await this.#standbyView(sql)
    const seen = standby ?? this.#primaryView(await lookAtPrimary(sql, this.#spec))
    // A look that was overtaken by a kill shows a server that is gone.
    if (sql !== this.#sql) return
    this.#lookSince = 0
    this.#saw(seen, sql)
  }

  #takeTurn(): void {
    this.#watchProcess()
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
    else if (seen.streaming) this.warmth.start(sql)
    this.show(seen)
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
      stuck: false,
    }
  }

  #primaryView({ waiting, flushed: onDisk, ...look }: PrimaryLook): DatabaseView {
    this.flushed.note({ end: look.end, flushed: onDisk })
    // Before its silence is judged: what arrived during a standstill is read before the timer that forgives it.
    this.#forgiveStarvation()
    const flushed = look.sender?.flushedLsn ?? 0
    const now = performance.now()
    if (waiting === 0) this.#stall = null
    else if (this.#stall === null || this.#stall.flushed !== flushed) this.#stall = { since: now, flushed }
    return {
      ...look,
      process: 'primary',
      epoch: this.epoch,
      streaming: false,
      stalledMs: this.#stall === null ? 0 : now - this.#stall.since,
      // It answered this look.
      ...this.#silence.judge(this.#health.silentMs, now),
      ioError: this.log.ioError,
    }
  }

  #watchProcess(): void {
    this.#forgiveStarvation()
    // An own child's end is an event; one that an earlier agent started has to be looked for.
    const adopted = this.#child === null && this.#pid !== null && this.#view.process !== 'starting'
    if (adopted && this.#pid !== null && isGone(this.#pid)) this.#gone()
    else this.#noteHang()
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

  #noteHang(): void {
    const isPrimary = this.#view.process === 'primary'
    const silentMs = isPrimary ? Math.max(this.#health.silentMs, this.#lookLateMs()) : 0
    const { hanging, stuck } = this.#silence.judge(silentMs, performance.now())
    if (hanging !== this.#view.hanging || stuck !== this.#view.stuck) this.show({ ...this.#view, hanging, stuck })
  }

  #lookLateMs(): number {
    return this.#lookSince === 0 ? 0 : performance.now() - this.#lookSince
  }

  /** What the core is told in two bits. */
  #trouble(): string {
    const why = this.#health.trouble || `a look has been without an answer for ${Math.round(this.#lookLateMs())} ms`
    return `${why}; the limit is ${this.#spec.hangMs} ms`
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

  #gone(): void {
    if (this.#pid === null) return
    this.#pid = null
    this.letGo()
    this.show({ ...this.#view, process: 'dead', sender: null, streaming: false, ioError: this.log.ioError })
    // Its last words tell whether the volume failed; the death itself does not wait for a disk to say them.
    void this.log.read().then(() => {
      if (this.log.ioError && !this.#view.ioError) this.show({ ...this.#view, ioError: true })
    })
  }

  #drop(): void {
    this.warmth.stop()
    if (this.#sql !== null) disconnect(this.#sql)
    this.#sql = null
  }
}
