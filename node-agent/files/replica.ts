import { setImmediate as nextTurn } from 'node:timers/promises'
import { ConflictKeeper } from './conflicts.ts'
import { makeFilter } from './filter.ts'
import type { Hello } from './messages.ts'
import { mountAt } from './mounts.ts'
import { Proof } from './proof.ts'
import { keepNothing, Receiver } from './receiver.ts'
import { NoRoom, RoleFile } from './role-file.ts'
import { Sender } from './sender.ts'
import type { TreeConfig } from './settings.ts'
import { type Admission, LinkClient, type TlsIdentity } from './tls-link.ts'
import { Tree } from './tree.ts'

export interface ReplicaPart {
  pair: string
  node: string
  tree: TreeConfig
  stateDir: string
  peer: { hosts: readonly string[]; port: number }
  identity: TlsIdentity
  note: (why: string) => void
}

export type Role = 'primary' | 'backup' | 'none'

/** One tree on one host: in which role, in which epoch, and how far. */
export class Replica {
  readonly #part: ReplicaPart
  readonly #file: RoleFile
  #role: Role = 'none'
  #sender: { sender: Sender; client: LinkClient; tree: Tree; proof: Proof } | null = null
  #receiver: { receiver: Receiver; tree: Tree; keeper: ConflictKeeper | null } | null = null
  #compared: { manifest: string; files: number; differences: number; atMs: number } | null = null
  #changing: Promise<void> = Promise.resolve()
  onCut: (tree: string) => void = () => {}
  /** The epoch in which this host's services may write to the tree. */
  openIn: number | null = null

  private constructor(part: ReplicaPart, file: RoleFile) {
    this.#part = part
    this.#file = file
  }

  static async open(part: ReplicaPart): Promise<Replica> {
    return new Replica(part, await RoleFile.open(part.stateDir, part.tree.name))
  }

  get name(): string {
    return this.#part.tree.name
  }
  get contentEveryH(): number {
    return this.#part.tree.contentEveryH
  }
  get role(): Role {
    return this.#role
  }
  get epoch(): number {
    return this.#file.record.epoch
  }
  get sender(): Sender | null {
    return this.#sender?.sender ?? null
  }

  /** Nothing is on its way, and nothing is compared. */
  get isAtRest(): boolean {
    return (this.#sender?.sender.isSettled ?? true) && (this.#receiver?.receiver.isIdle ?? true)
  }

  /** The tree's path leads to another directory by now, or to none. */
  get isOutOfPlace(): boolean {
    return (this.#sender ?? this.#receiver)?.tree.isInPlace === false
  }

  /**
   * One change of role after the other. `opened`: the tree is this host's to write, although it is not watched yet.
   * @throws when the epoch is older than one that was known here
   */
  become(role: Role, part: { epoch: number; opened?: () => void }): Promise<void> {
    const change = this.#changing.then(() => this.#become(role, part))
    this.#changing = change.catch(() => undefined)
    return change
  }

  async #become(role: Role, { epoch, opened }: { epoch: number; opened?: () => void }): Promise<void> {
    const { record } = this.#file
    if (epoch < record.epoch) {
      throw new Error(`${this.#part.tree.name}: epoch ${epoch} is older than ${record.epoch}, which this host has seen`)
    }
    if (role === this.#role && epoch === record.epoch) {
      opened?.()
      return
    }
    const isMount = role === 'none' ? record.isMount : this.#mounted()
    const end = await this.#leave()
    this.#file.record = { ...record, isMount }
    if (role === 'primary') await this.#open(epoch, opened)
    else if (role === 'backup') await this.#follow(epoch, end)
    this.#role = role
  }

  /** Whether the tree is a mount of its own. @throws when it was one, or is to be one, and is none now */
  #mounted(): boolean {
    const { name, path, partition } = this.#part.tree
    const isMount = mountAt(path) !== null
    if (isMount || (partition === null && !this.#file.record.isMount)) return isMount
    const remedy = partition === null ? 'mount it' : 'mount it: `understudy sync set-up` does'
    throw new Error(
      `${name}: nothing is mounted on ${path}, where its partition belongs, and the empty directory is not taken for it; ${remedy}, or give the tree another name if it is to be a plain directory from now on`,
    )
  }

  /** in sync: the other host is known to have everything. */
  async #leave(): Promise<'in sync' | 'unknown'> {
    this.#role = 'none'
    this.openIn = null
    const [sender, receiver] = [this.#sender, this.#receiver]
    this.#sender = null
    this.#receiver = null
    if (sender !== null) {
      sender.proof.end()
      sender.sender.look()
      const end = sender.sender.isInSync ? 'in sync' : 'unknown'
      sender.client.close()
      await sender.sender.stop()
      sender.tree.close()
      return end
    }
    if (receiver !== null) {
      this.onCut(this.#part.tree.name)
      await receiver.receiver.close()
      receiver.keeper?.close()
      receiver.tree.close()
    }
    return 'unknown'
  }

  /** The epoch is durable, then what arrived is finished or dropped, then the tree is this host's to write. */
  async #open(epoch: number, opened?: () => void): Promise<void> {
    const { tree: config, identity, pair, node, note, peer } = this.#part
    const before = this.#file.record
    const unresolved = before.role === 'backup' ? before.ownChanges : null
    if (unresolved !== null)
      note(`${config.name}: becomes primary while its own changes of epoch ${unresolved.epoch} are unresolved`)
    await this.#file.write({ ...before, epoch, role: 'primary', ownChanges: { epoch, provenUntilMs: 0, copy: '' } })
    const tree = new Tree(config.path)
    try {
      const finishing = await Receiver.open({ tree, keeper: keepNothing, note, onCompared: () => undefined })
      await finishing.close()
      this.openIn = epoch
      opened?.()
      // The word is out before the tree is walked; what is written meanwhile is found by the first comparison.
      await nextTurn()
      const { include, exclude, name } = config
      const proof = new Proof({ file: this.#file, epoch, name, note })
      const sender = new Sender({
        tree,
        filter: makeFilter(config),
        now: () => performance.now(),
        bulkBytesPerS: config.bulkMbPerS * 1e6,
        contentBytesPerS: config.contentMbPerS * 1e6,
        mayBeSent: changedMs => proof.mayBeSent(changedMs),
        note,
      })
      const hello = () => ({ pair, node, tree: name, epoch, include, exclude, copy: this.#file.record.copy })
      const onBackup = (copy: string): void => {
        proof.copy = copy
      }
      sender.start()
      proof.begin(sender)
      const client = new LinkClient({ ...peer, identity, hello, sender, onBackup, note })
      this.#sender = { sender, client, tree, proof }
    } catch (error) {
      // Tried again each second: nothing may be left of it each time.
      tree.close()
      throw error
    }
  }

  async #follow(epoch: number, end: 'in sync' | 'unknown'): Promise<void> {
    const { tree: config, note } = this.#part
    const { ownChanges: before } = this.#file.record
    const ownChanges = end === 'in sync' ? null : before
    await this.#file.write({ ...this.#file.record, epoch, role: 'backup', ownChanges })
    const tree = new Tree(config.path)
    let keeper: ConflictKeeper | null = null
    const receiver = await Receiver.open({
      tree,
      note,
      keeper: folder => {
        if (ownChanges === null) return keepNothing(folder)
        keeper = new ConflictKeeper(folder, ownChanges)
        return keeper
      },
      onCompared: verdict => this.#onCompared(verdict),
    }).catch(error => {
      tree.close()
      throw error
    })
    this.#compared = null
    this.#receiver = { receiver, tree, keeper }
  }

  /** What this host had and the primary had not is put aside by now. */
  #onCompared(verdict: { manifest: string; files: number; differences: number }): void {
    this.#compared = { ...verdict, atMs: Date.now() }
    const present = this.#receiver
    const { record } = this.#file
    if (present === null || record.ownChanges === null) return
    // The next comparison tries again.
    this.#resolved(present).catch(error => {
      if (!(error instanceof NoRoom)) throw error
      this.#part.note(`${this.#part.tree.name}: ${error.message}`)
    })
  }

  async #resolved(present: { receiver: Receiver; keeper: ConflictKeeper | null }): Promise<void> {
    const { name } = this.#part.tree
    const { keeper } = present
    await this.#file.write({ ...this.#file.record, ownChanges: null })
    present.receiver.keepNothing()
    present.keeper = null
    if (keeper === null) return
    if (keeper.kept > 0) {
      const some = keeper.named.join(', ')
      this.#part.note(
        `${name}: ${keeper.kept} versions that the primary did not have are kept in ${keeper.place}: ${some}`,
      )
    }
    keeper.close()
  }

  /** Whether this sender may write here. */
  admit(hello: Hello): Admission {
    const { name } = this.#part.tree
    if (hello.pair !== this.#part.pair) return { ok: false, why: `this is pair ${this.#part.pair}`, remedy: 'never' }
    if (hello.epoch !== this.epoch) {
      const remedy = hello.epoch > this.epoch ? 'later' : 'never'
      return { ok: false, why: `${name} is in epoch ${this.epoch} here, the sender is of epoch ${hello.epoch}`, remedy }
    }
    if (this.#receiver === null) return { ok: false, why: `${name} is not the backup's copy here`, remedy: 'later' }
    return { ok: true, receiver: this.#receiver.receiver, copy: this.#file.record.copy }
  }

  async close(): Promise<void> {
    await this.become('none', { epoch: this.epoch })
    await this.#file.close()
  }

  /** What stands in the way of being in sync, for people. */
  why(): string {
    const { name } = this.#part.tree
    if (this.#sender === null) return `${name} is not written on this host`
    const { sender, client } = this.#sender
    const { behindChanges, blocked, problems } = sender.status()
    const reason = client.refusal ?? blocked ?? (sender.isAttached ? (problems[0] ?? 'it is on its way') : 'no backup')
    return `${name} is ${behindChanges} changes behind: ${reason}`
  }

  status() {
    const { name, path, policy, lagLimitS } = this.#part.tree
    const common = { tree: name, path, role: this.#role, epoch: this.epoch, policy, lagLimitS }
    if (this.#sender !== null) {
      const { sender, client } = this.#sender
      return { ...common, state: stateOf(sender), refusal: client.refusal, ...sender.status() }
    }
    const receiver = this.#receiver
    return {
      ...common,
      state: receiver === null ? ('closed' as const) : ('receiving' as const),
      applied: receiver?.receiver.applied ?? 0,
      receivedBytes: receiver?.receiver.receivedBytes ?? 0,
      unresolved: this.#file.record.ownChanges,
      compared: this.#compared,
    }
  }
}

export type SyncState = 'in sync' | 'behind' | 'seeding' | 'diverged' | 'no backup'

function stateOf(sender: Sender): SyncState {
  const { running } = sender.comparison.status()
  if (!sender.isInPlace) return 'diverged'
  if (!sender.isAttached) return 'no backup'
  if (sender.isSeeding) return 'seeding'
  if ((running?.why === 'scrub' && running.differences > 0) || sender.isDiverged) return 'diverged'
  return sender.behind() === 0 && sender.unwatched === null ? 'in sync' : 'behind'
}
