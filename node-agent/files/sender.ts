import { randomBytes, randomUUID } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Known } from './big-file.ts'
import { hashKeyBytes, hashStartOf } from './block-hashes.ts'
import { Blockage } from './blockage.ts'
import { Comparison, type Verdict } from './comparison.ts'
import { Contents } from './contents.ts'
import { Emitter } from './emitter.ts'
import type { NewOperation } from './emitter-part.ts'
import { Idle } from './idle.ts'
import { behindS, SeedProgress, waitingBytes } from './lag.ts'
import { Lanes } from './lanes.ts'
import { LinkIndex } from './link-index.ts'
import { DirectoryNode } from './local-tree.ts'
import type { FromReceiver, NackCode, Operation } from './messages.ts'
import { OpenMarks } from './open-marks.ts'
import { Outflow, type Outlet } from './outflow.ts'
import { Problems } from './problems.ts'
import { RootPlace } from './root-place.ts'
import { isRefusal, lookAgain, refusedRetryMs } from './second-look.ts'
import type { SenderPart } from './sender-part.ts'
import { Barriers, HashQuestions, SentLog } from './sent-log.ts'
import { SharedLooks } from './shared-looks.ts'
import { TreeWatcher } from './watcher.ts'
import { type Entry, isQuestion, type NameEntry, WorkQueue } from './work-queue.ts'

/** The loop looks at events and answers at least this often. */
const sliceMs = 4
const idleMs = 500

/**
 * The primary's side of one tree: watches, keeps what the backup may not have, sends it in order, and counts what the
 * backup has durably. One sender is one log; it outlives connections.
 */
export class Sender {
  readonly log = randomUUID()
  readonly hashKey = randomBytes(hashKeyBytes)
  readonly root = new DirectoryNode(null, '')
  readonly queue: WorkQueue
  readonly links = new LinkIndex()
  readonly comparison: Comparison
  readonly contents: Contents
  readonly problems: Problems
  readonly startedMs: number
  readonly #part: SenderPart
  readonly #emitter: Emitter
  readonly #watcher: TreeWatcher
  readonly #sent = new SentLog()
  readonly #barriers = new Barriers()
  readonly #looks = new SharedLooks(() => this.compare('missed'))
  readonly #out: Outflow
  readonly #hashes = new HashQuestions()
  readonly #lanes: Lanes
  readonly #open: OpenMarks
  readonly #idle = new Idle()
  readonly #seed: SeedProgress
  #stopped = false
  #ended: Promise<void> = Promise.resolve()
  readonly #blockage: Blockage
  /** Why some directories can't be watched; null while all are. */
  unwatched: string | null = null
  #isUnwatchedSaid = false
  readonly #root: RootPlace

  constructor(part: SenderPart) {
    this.#part = part
    const { tree, filter, now, note, bulkBytesPerS } = part
    this.startedMs = now()
    this.#blockage = new Blockage({ now, note: why => note(`${tree.path}: ${why}`) })
    this.#root = new RootPlace({ tree, note, onBack: () => this.compare('missed') })
    this.#out = new Outflow({ sent: this.#sent, bulkBytesPerS, now, onRoom: () => this.#idle.wake() })
    this.queue = new WorkQueue(now)
    this.#seed = new SeedProgress(now)
    this.problems = new Problems(why => note(`${tree.path}: ${why}`))
    this.#watcher = new TreeWatcher({
      tree,
      filter,
      root: this.root,
      queue: this.queue,
      links: this.links,
      now,
      onMissed: why => {
        note(`${tree.path}: ${why}; everything is compared again`)
        this.compare('missed')
      },
      onUnwatched: why => {
        if (!this.#isUnwatchedSaid) note(`${tree.path}: ${why}`)
        this.#isUnwatchedSaid = true
        this.unwatched = why
      },
    })
    this.#emitter = new Emitter({
      tree,
      queue: this.queue,
      links: this.links,
      hashKey: this.hashKey,
      now,
      send: (operation, entry, known) => this.#operation(operation, entry, known ?? null),
      stream: frame => this.#out.frame(frame),
      sendData: (buffer, frame) => this.#out.data(buffer, frame),
      pool: this.#out.pool,
      askHashes: (path, entry) => this.#askHashes(path, entry),
      problem: (path, why) => this.problems.set(path, why),
      gone: path => this.problems.gone(path),
      isCompared: () => this.comparison.isIdle,
      mayBeSent: changedMs => part.mayBeSent(changedMs) || this.#open.noteUnproven(),
      adopt: (dir, name) => this.#watcher.adopt(dir, name, null),
    })
    this.contents = new Contents({
      tree,
      filter,
      root: this.root,
      queue: this.queue,
      hashKey: this.hashKey,
      now,
      note,
      send: (operation, entry) => this.#operation(operation, entry, null),
      bytesPerS: part.contentBytesPerS,
    })
    this.comparison = new Comparison({
      tree,
      filter,
      root: this.root,
      queue: this.queue,
      links: this.links,
      hashStart: hashStartOf(this.hashKey),
      now,
      note,
      send: (operation, entry) => this.#operation(operation, entry, null),
      onEnd: (verdict, mark) => this.#compared(verdict, mark),
      problem: (path, why) => this.problems.set(path, why),
      adopt: (dir, name) => this.#watcher.adopt(dir, name, null),
    })
    const { queue, comparison, contents, problems } = this
    this.#lanes = new Lanes({ queue, comparison, contents, problems, now, out: this.#out, emitter: this.#emitter })
    this.#open = new OpenMarks({ queue, comparison, sent: this.#sent, emitter: this.#emitter, lanes: this.#lanes })
  }

  /** Compares what the files contain, at the rate that is set for it. */
  compareContents(): void {
    this.contents.begin()
    this.#idle.wake()
  }

  /** The backup has not had everything since it began to know this log. */
  get isSeeding(): boolean {
    this.#seed.look({ waiting: this.#seedWaiting(), isInSync: this.isSettled })
    return this.#seed.isRunning
  }

  #seedWaiting(): number | null {
    return this.comparison.isIdle ? this.queue.bulkLength : null
  }

  /** Contents were seen to differ, and the repair has not arrived. */
  get isDiverged(): boolean {
    return this.#open.hasUpTo(this.contents.divergedMark)
  }

  /** Takes in the whole tree, then works until {@link stop}. */
  start(): void {
    this.#watcher.adoptAll()
    this.#ended = this.#run()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#watcher.end()
    this.#idle.wake()
    await this.#ended.then(() => this.#idle.ended())
    this.#watcher.close()
  }

  /** A backup is there; `applied` is the last operation of this log it has, null when it knows nothing of it. */
  attach(outlet: Outlet, applied: number | null): void {
    this.detach()
    if (applied === null) this.#forgetSent()
    else {
      this.#acknowledge(applied)
      this.#takeBack()
    }
    this.#out.outlet = outlet
    if (applied === null) this.#seed.begin()
    this.compare(applied === null ? 'seed' : 'reconnected')
  }

  detach(): void {
    this.#out.outlet = null
    this.#lanes.detach()
    this.#hashes.cancel()
  }

  get isAttached(): boolean {
    return this.#out.isOpen
  }

  compare(why: 'seed' | 'reconnected' | 'missed' | 'scrub'): void {
    const isUnwatched = this.unwatched !== null
    this.unwatched = null
    if (isUnwatched) this.#watcher.watchAgain()
    this.comparison.begin(isUnwatched && why === 'scrub' ? 'missed' : why)
    this.#idle.wake()
  }

  /**
   * Resolves when everything written before the call is durable on the backup; never, once the signal says that nobody
   * waits any more. @throws when that can't be known here
   */
  async barrier(signal: AbortSignal): Promise<void> {
    if (!this.#root.look()) throw new Error(this.#root.why)
    this.#watcher.drain()
    // What nobody watches is only found by looking at all of it.
    const answered = this.unwatched === null ? () => undefined : await this.#looks.next(signal)
    this.queue.settle(Number.POSITIVE_INFINITY)
    const durable = this.#barriers.wait(this.queue.nextMark(), { signal, over: answered })
    this.#idle.wake()
    this.#checkBarriers()
    return durable
  }

  /** The backup is told when what the comparison found is repaired. */
  #compared({ manifest, files, differences }: Verdict, mark: number): void {
    this.#barriers.add(mark, () => this.#out.frame({ op: 'compared', manifest, files, differences }))
  }

  /** What was changed in this tree, and nowhere else, is what services write. */
  get isInPlace(): boolean {
    return this.#root.look()
  }

  look(): void {
    this.#root.look()
    this.#watcher.drain()
  }

  /** What was changed before this time of the wall clock is durable on the backup. */
  provenUntilMs(wallMs: number): number {
    this.look()
    const isKnown = this.unwatched === null && this.#watcher.isSettled
    return isKnown ? Math.max(0, wallMs - this.#open.unprovenMs(this.#part.now())) : 0
  }

  /** Everything so far is durable on the backup. */
  get isInSync(): boolean {
    return this.unwatched === null && this.isSettled
  }

  /** Everything seen so far is. */
  get isSettled(): boolean {
    return (
      this.#root.isKept && this.isAttached && this.behind() === 0 && this.#watcher.isSettled && this.comparison.isIdle
    )
  }

  /** Changes that are not acknowledged. */
  behind(): number {
    return this.queue.length + this.#sent.changes + this.#emitter.touched.size + this.#lanes.underWay
  }

  status() {
    const { seq: sequence, acknowledged, bytes } = this.#sent
    const { queue, comparison, problems, isAttached } = this
    return {
      isAttached,
      behindChanges: this.behind(),
      behindBytes: bytes + waitingBytes(queue, this.#part.tree),
      behindS: behindS({ oldest: this.#open.oldest(), queue, comparison, now: this.#part.now }),
      sequence,
      acknowledged,
      sentBytes: this.#out.sentBytes,
      directories: this.#watcher.watched,
      unwatched: this.unwatched,
      blocked: this.#root.isKept ? this.#blockage.why : this.#root.why,
      seed: this.isSeeding ? this.#seed.status(this.#seedWaiting()) : null,
      problems: problems.shown(),
      problemCount: problems.size,
      comparison: comparison.status(),
      contents: this.contents.status(),
    }
  }

  /** From the backup. @throws on what no backup says: the connection is then cut */
  receive(message: FromReceiver): void {
    switch (message.op) {
      case 'ack': {
        const nacked = message.nacks.map(({ seq, code }) => ({ entry: this.#sent.get(seq)?.entry, code }))
        for (const nack of message.nacks) this.#nack(nack.seq, nack.code)
        this.#acknowledge(message.seq, new Set(message.nacks.map(nack => nack.seq)))
        // Of one name another operation may have been taken in the same answer.
        for (const { entry, code } of nacked) if (isRefusal(code)) this.problems.refused(entry, code)
        break
      }
      case 'differs':
      case 'want':
        this.comparison.answer(message)
        break
      case 'hashesOf': {
        const { seq, base, hashes } = message
        this.#hashes.answer(seq, base === null ? null : { base, hashes })
      }
    }
    this.#idle.wake()
  }

  #acknowledge(seq: number, refused: ReadonlySet<number> = new Set()): void {
    this.#sent.acknowledge(seq, (number, entry) => {
      if (!refused.has(number)) this.problems.taken(entry)
      this.comparison.acknowledged(number)
      this.contents.acknowledged(number)
    })
    if (this.#blockage.why !== null && this.#open.oldest() === Number.POSITIVE_INFINITY) this.#blockage.over()
    this.#checkBarriers()
  }

  #nack(seq: number, code: NackCode): void {
    this.#hashes.answer(seq, null)
    if (code.startsWith('E') && !isRefusal(code)) this.#blockage.heard(code)
    const { queue, comparison, contents } = this
    const notBeforeMs = isRefusal(code) ? this.#part.now() + refusedRetryMs : null
    lookAgain({ seq, code, sent: this.#sent, queue, comparison, contents, emitter: this.#emitter, notBeforeMs })
  }

  /** Another log begins on the backup: nothing of what was sent counts. */
  #forgetSent(): void {
    this.#sent.clear()
    this.#emitter.touched.clear()
    this.#emitter.known.clear()
    this.queue.clear()
    this.comparison.reset()
    this.root.settleRemote()
  }

  #takeBack(): void {
    const entries = this.#sent.takeBack()
    this.#emitter.known.clear()
    this.comparison.reset()
    this.queue.takeBack(entries.filter(entry => !isQuestion(entry)))
  }

  async #run(): Promise<void> {
    // Which names share a file has to be known before anything is compared.
    while (!this.#stopped && this.#watcher.adoptSome()) await nextTurn()
    while (!this.#stopped) {
      this.#root.look()
      this.#watcher.drain()
      this.queue.settle(this.#part.now())
      const isBusy = [this.#watcher.adoptSome(), this.links.sweepSome(), this.#sendSlice()].includes(true)
      if (isBusy) await nextTurn()
      else await this.#rest()
    }
    this.detach()
  }

  async #rest(): Promise<void> {
    // What was waited for may have ended without an answer of the backup: it was gone when its turn came.
    this.#checkBarriers()
    const nowMs = this.#part.now()
    const resumeMs = Math.max(this.#out.bulkFromMs, this.#blockage.untilMs)
    const contentsMs = this.isAttached ? this.contents.dueMs : nowMs + idleMs
    const resting = resumeMs > nowMs ? resumeMs : nowMs + idleMs
    await this.#idle.rest(Math.min(this.queue.nextDueMs(), contentsMs, resting) - nowMs, this.#watcher)
  }

  /** Sends for a few milliseconds; false when there is nothing to send, or no room. */
  #sendSlice(): boolean {
    const endMs = this.#part.now() + sliceMs
    let worked = false
    while (this.#part.now() < endMs) {
      if (!this.#step()) return worked
      worked = true
    }
    return worked
  }

  #step(): boolean {
    if (!this.#root.isKept) return false
    return this.#part.now() >= this.#blockage.untilMs && this.#lanes.step()
  }

  #operation(operation: NewOperation, entry: Entry, known: { ino: number; known: Known } | null): number {
    const seq = this.#sent.nextSeq()
    this.#sent.add(seq, { entry, bytes: this.#out.frame({ ...operation, seq } as Operation), known })
    // What follows in this log can build on it: operations are applied in order.
    if (known !== null) this.#emitter.known.remember(known.ino, known.known)
    return seq
  }

  #askHashes(path: string, entry: NameEntry): Promise<Known | null> {
    const seq = this.#operation({ op: 'hashes', path }, { ...entry }, null)
    return this.#hashes.ask(seq).finally(() => this.#idle.wake())
  }

  #checkBarriers(): void {
    if (this.#barriers.size === 0 || !this.isAttached || !this.#watcher.isSettled) return
    this.#barriers.check(mark => this.#open.hasUpTo(mark))
  }
}
