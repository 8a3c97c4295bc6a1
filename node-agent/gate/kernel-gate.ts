/**
 * The gate: the permission to serve, held by the kernel for a limited time.
 *
 * Without a grant packets of the protected addresses and ports do not pass, so a dead, stopped or hanging agent closes
 * the gate by doing nothing. A grant can't be applied late: see shared/protocol/grants.ts for the two steps and why.
 *
 * Who may write is a token, a random element that each transaction has to find: a process that was replaced, and wakes
 * up with a transaction in its hands, is refused. Where the kernel can (6.9), the tables also belong to our socket.
 */
import { randomFillSync } from 'node:crypto'
import { assert } from '../../shared/assert.ts'
import { GRANT_OVERHEAD_MS, GUARD_MS, grantMs, latestExpiryMs, SLOP_MS } from '../../shared/protocol/grants.ts'
import { bootMs } from '../kernel/clock.ts'
import { ENOBUFS, EOPNOTSUPP, EPERM, interfaceIndex, KernelError } from '../kernel/libc.ts'
import { tableDifference } from './compare.ts'
import type { Gate, GateCounters, GateReading, GateState, OpenResult } from './gate.ts'
import {
  claimTable,
  createTable,
  deleteTable,
  readCounter,
  TABLE_DORMANT,
  TABLE_OWNER_PERSIST,
  tableFlags,
} from './install.ts'
import { type Batch, type BatchResult, Nftables, type SetName } from './nft.ts'
import { refusal, tooShort } from './refusal.ts'
import {
  type GateSpec,
  gateLayout,
  type SetLayout,
  type TableFamily,
  type TableLayout,
  type TableName,
} from './ruleset.ts'

const FAMILIES: readonly TableFamily[] = ['inet', 'arp', 'netdev']

const KEY_BYTES = 4
/** The key of the one element of `open` and of `closed`: the mark, masked to nothing. */
const FLAG_KEY = Buffer.alloc(KEY_BYTES)
/** Keys of a minute and a half of grants. */
const CHANCE_BYTES = 1024 * KEY_BYTES

/**
 * A stop of more than GUARD_MS between the two steps fails the transaction and says nothing about the lease, so one
 * more attempt is made at once; the caller's next tick makes further ones.
 */
const OPEN_ATTEMPTS = 2

export type KernelGateOptions = {
  /** Those of the specification as they are now: an address may come to an interface only later. Asked at each comparison. */
  peers?: () => GateSpec['peers']
  /** False: leave the tables to everybody, as on a kernel that knows no owner. For tests of what then protects them. */
  own?: boolean
  /** For tests: called before the guard is armed, after it, when the grant is built and not yet sent, and when a state was read. */
  betweenSteps?: (step: 'asked' | 'armed' | 'built' | 'read') => void
}

export class KernelGate implements Gate {
  #spec: GateSpec
  #tables: TableLayout[]
  readonly #nft: Nftables
  readonly #options: KernelGateOptions
  readonly #chance = Buffer.alloc(CHANCE_BYTES)
  #chanceAt = CHANCE_BYTES
  #token = this.#randomKey()
  #owned = false
  #expiresByBootMs = 0
  #closed = false

  constructor(spec: GateSpec, options: KernelGateOptions = {}) {
    this.#spec = spec
    this.#options = options
    this.#tables = this.#layout()
    this.#nft = new Nftables()
  }

  get table(): string {
    return this.#spec.table
  }

  /** True where other processes can't change the tables; else somebody has to watch them. */
  get owned(): boolean {
    return this.#owned
  }

  /** The latest instant at which what this process granted, or found, can be in force (CLOCK_BOOTTIME); 0 if none. */
  get expiresByBootMs(): number {
    return this.#expiresByBootMs
  }

  /** The kernel's name for our socket: ruleset events that carry it are our own. */
  get portId(): number {
    return this.#nft.socket.portId
  }

  install(): { found: GateState; expiresInMs: number; replaced?: string } {
    this.#tables = this.#layout()
    // To make them anew costs the clients packets, to look again nothing: only a difference that stays counts.
    const differs = this.difference() === undefined ? undefined : this.difference()
    const why = differs ?? (this.#adopt() ? undefined : 'they cannot be owned as the others are')
    if (why !== undefined) {
      const before = this.#present()
      this.#createFrozen(before)
      return { found: 'frozen', expiresInMs: 0, ...(before.length > 0 && { replaced: why }) }
    }
    const { state, expiresInMs } = this.readState()
    assert(state !== 'absent', 'the tables vanished while they were adopted')
    this.#expiresByBootMs = state === 'open' ? bootMs() + expiresInMs : 0
    this.#closed = state === 'closed'
    return { found: state, expiresInMs }
  }

  open(untilBootMs: number): OpenResult {
    let result = this.#grant(untilBootMs)
    for (let i = 1; i < OPEN_ATTEMPTS && !result.ok && result.code === 'late'; i++) result = this.#grant(untilBootMs)
    return result
  }

  freeze(): void {
    this.#shut('frozen')
  }

  close(): void {
    this.#shut('closed')
  }

  read(): GateReading {
    return { ...this.readState(), counters: this.#counters() }
  }

  /** The same without the counters: one question while all tables are open, since an element says that its table is there. */
  readState(): { state: GateReading['state']; expiresInMs: number } {
    const sets = this.#tables.map(({ family }) => this.#set(family, 'open'))
    const held = this.#nft.getElements(sets, FLAG_KEY).map(element => element?.expiresInMs ?? 0)
    const isThere = (table: TableLayout, index: number): boolean =>
      held[index]! > 0 || tableFlags(this.#nft, table) !== undefined
    if (!this.#tables.every(isThere)) return { state: 'absent', expiresInMs: Infinity }
    const expiresInMs = Math.max(...held)
    if (expiresInMs > 0) return { state: 'open', expiresInMs }
    return { state: this.#held('inet', 'closed') === undefined ? 'frozen' : 'closed', expiresInMs: 0 }
  }

  uninstall(): void {
    const batch = this.#nft.batch()
    for (const table of this.#present()) deleteTable(batch, table)
    this.#must(batch.commit(), 'remove the gate')
    this.#expiresByBootMs = 0
  }

  /** Lets go of the socket. The tables stay, and an open grant runs out by itself. */
  dispose(): void {
    this.#nft.close()
  }

  /** Changes addresses, ports or peers: created anew, frozen, and reopened for what was left of the grant; or closed. */
  reconfigure(spec: GateSpec): GateState {
    gateLayout(spec)
    const before = this.#present()
    this.#spec = spec
    return this.#recreate(before)
  }

  /** Why the tables in the kernel are not the ones that should be there; undefined where they are. About 1 ms. */
  difference(): string | undefined {
    const moved = this.interfaceDifference()
    if (moved !== undefined) return moved
    const extra = this.#present().find(({ family }) => !this.#tables.some(table => table.family === family))
    if (extra !== undefined) return `there is a table ${extra.family} ${extra.name} without use`
    for (const table of this.#tables) {
      const flags = tableFlags(this.#nft, table)
      if (flags === undefined) return `table ${table.family} ${table.name} is missing`
      if ((flags & TABLE_DORMANT) !== 0) return `table ${table.family} ${table.name} is switched off`
      const difference = tableDifference(this.#nft, table)
      if (difference !== undefined) return difference
    }
    return undefined
  }

  /** The part of it that comes about without anybody changing the tables. */
  interfaceDifference(): string | undefined {
    const wanted = this.#layout()
    const devices = (tables: readonly TableLayout[]) => tables.flatMap(table => table.chains).map(chain => chain.hook)
    if (JSON.stringify(devices(wanted)) !== JSON.stringify(devices(this.#tables)))
      return 'an interface on which addresses are announced has come or gone'
    const peers = (tables: readonly TableLayout[]) => tables.flatMap(table => table.sets).flatMap(linkElements)
    if (String(peers(wanted)) === String(peers(this.#tables))) return undefined
    return 'an interface by which the other host is reached has come'
  }

  /** Why the gate's state is not the one this process set: changed by another. Undefined where it is. */
  stateDifference(): string | undefined {
    // Whoever waits for a processor between a look at the kernel and one at the clock must not find a difference that is
    // none: by the clock before it the grant has more left than when it was read, by the one after it less.
    const leftBeforeMs = this.#leftMs()
    const { state, expiresInMs } = this.readState()
    if (state === 'absent') return 'the tables are missing'
    this.#options.betweenSteps?.('read')
    // What the kernel reports may be a tick above what is left.
    if (state === 'open' && expiresInMs > leftBeforeMs + SLOP_MS) {
      const excessMs = expiresInMs - Math.max(0, leftBeforeMs)
      return `the gate is open for ${excessMs.toFixed(0)} ms longer than this agent granted`
    }
    const shut = this.#tables.find(({ family }) => this.#held(family, 'open') === undefined)
    const leftAfterMs = this.#leftMs()
    // The kernel shuts up to the guard's life, the slop and a tick before the bound.
    if (shut !== undefined && leftAfterMs > GRANT_OVERHEAD_MS + SLOP_MS) {
      return `the ${shut.family} table is shut, ${leftAfterMs.toFixed(0)} ms before its grant ends`
    }
    return this.#closed && state === 'frozen' ? 'the gate is frozen and not closed' : undefined
  }

  #leftMs(): number {
    return this.#expiresByBootMs - bootMs()
  }

  /** Creates the tables anew, frozen, and reopens for what is left of the last grant, never for more; or closes. */
  restore(): GateState {
    return this.#recreate(this.#present())
  }

  #recreate(before: readonly TableName[]): GateState {
    const untilBootMs = this.#expiresByBootMs
    const wasClosed = this.#closed
    this.#tables = this.#layout()
    this.#createFrozen(before)
    if (wasClosed) {
      this.close()
      return 'closed'
    }
    return this.open(untilBootMs).ok ? 'open' : 'frozen'
  }

  #layout(): TableLayout[] {
    // A chain can't hang at an interface that is not there (yet); the watch adds it when it comes.
    const devices = this.#spec.devices.filter(device => interfaceIndex(device) !== 0)
    return gateLayout({ ...this.#spec, devices, peers: this.#options.peers?.() ?? this.#spec.peers })
  }

  /** The tables of our name, also of a family that is not wanted (any more). */
  #present(): TableName[] {
    const all = FAMILIES.map(family => ({ family, name: this.#spec.table }))
    return all.filter(table => tableFlags(this.#nft, table) !== undefined)
  }

  /** False where the tables can't be taken over as they are. Throws if a living process owns them. */
  #adopt(): boolean {
    const flags = this.#tables.map(table => tableFlags(this.#nft, table) ?? 0)
    const persistent = flags.every(f => (f & TABLE_OWNER_PERSIST) !== 0)
    if (!persistent && flags.some(f => f !== 0)) return false
    const batch = this.#nft.batch()
    if (persistent) for (const table of this.#tables) claimTable(batch, table)
    batch.flushSet('end pending transactions', this.#set('inet', 'guard'))
    this.#newToken(batch)
    const result = batch.commit()
    this.#must(result, 'take the gate over')
    this.#owned = persistent
    return true
  }

  #createFrozen(before: readonly TableName[] = this.#present()): void {
    const attempt = (flags: number): BatchResult => {
      const batch = this.#nft.batch()
      for (const table of before) deleteTable(batch, table)
      for (const table of this.#tables) createTable(batch, table, flags)
      this.#newToken(batch)
      return batch.commit()
    }
    let flags = this.#options.own === false ? 0 : TABLE_OWNER_PERSIST
    let result = attempt(flags)
    if (flags !== 0 && !result.ok && result.errors.some(error => error.errno === EOPNOTSUPP)) {
      flags = 0
      result = attempt(flags)
    }
    this.#must(result, 'create the gate')
    this.#owned = flags !== 0
    this.#expiresByBootMs = 0
    this.#closed = false
  }

  #grant(untilBootMs: number): OpenResult {
    const nowMs = bootMs()
    if (grantMs({ armedMs: nowMs, untilMs: untilBootMs }) === 0) return tooShort(untilBootMs, nowMs)
    this.#options.betweenSteps?.('asked')
    const guard = this.#randomKey()
    const armed = this.#nft
      .batch()
      .createElement('arm the guard', this.#set('inet', 'guard'), { key: guard, timeoutMs: GUARD_MS })
      .commit()
    if (!armed.ok) return refusal(armed)
    const armedMs = bootMs()
    this.#options.betweenSteps?.('armed')
    const timeoutMs = grantMs({ armedMs, untilMs: untilBootMs })
    if (timeoutMs === 0) return tooShort(untilBootMs, armedMs)
    const batch = this.#grantBatch(guard, timeoutMs)
    this.#options.betweenSteps?.('built')
    const expiresByBootMs = latestExpiryMs({ armedMs, grantedMs: timeoutMs })
    if (expiresByBootMs > untilBootMs) assert(false, `a grant until ${expiresByBootMs} exceeds ${untilBootMs}`)
    const beforeBootMs = this.#expiresByBootMs
    // Both may be in force until the kernel has answered, and for good if its answer is lost.
    this.#expiresByBootMs = Math.max(beforeBootMs, expiresByBootMs)
    const granted = batch.commit()
    if (!granted.ok) {
      if (granted.errors.length > 0) this.#expiresByBootMs = beforeBootMs
      return refusal(granted)
    }
    this.#closed = false
    this.#expiresByBootMs = expiresByBootMs
    return { ok: true, expiresByBootMs, acknowledgedUntilBootMs: Math.min(expiresByBootMs, bootMs() + timeoutMs) }
  }

  #grantBatch(guard: Buffer, timeoutMs: number): Batch {
    const batch = this.#nft.batch()
    batch.deleteElement('guard', this.#set('inet', 'guard'), guard)
    batch.deleteElement('token', this.#set('inet', 'writer'), this.#token)
    batch.createElement('token', this.#set('inet', 'writer'), { key: this.#token })
    batch.flushSet('closed', this.#set('inet', 'closed'))
    for (const { family } of this.#tables) {
      batch.flushSet('grant', this.#set(family, 'open'))
      batch.createElement('grant', this.#set(family, 'open'), { key: FLAG_KEY, timeoutMs })
    }
    return batch
  }

  #shut(to: 'frozen' | 'closed'): void {
    const result = this.#shutBatch(to).commit()
    if (!result.ok) {
      // Gone or changed: what is not there can't be emptied. Made anew it is frozen.
      if (result.errors.some(error => error.errno === EPERM)) this.#must(result, `make the gate ${to}`)
      this.#createFrozen()
      if (to === 'closed') this.#must(this.#shutBatch(to).commit(), 'close the gate')
    }
    this.#expiresByBootMs = 0
    this.#closed = to === 'closed'
  }

  #shutBatch(to: 'frozen' | 'closed'): Batch {
    const batch = this.#nft.batch()
    batch.flushSet('end pending transactions', this.#set('inet', 'guard'))
    for (const { family } of this.#tables) batch.flushSet('end the grant', this.#set(family, 'open'))
    if (to === 'closed') batch.addElements('closed', this.#set('inet', 'closed'), [FLAG_KEY])
    else batch.flushSet('frozen', this.#set('inet', 'closed'))
    this.#newToken(batch)
    return batch
  }

  #newToken(batch: Batch): void {
    this.#token = this.#randomKey()
    batch.flushSet('end other writers', this.#set('inet', 'writer'))
    batch.createElement('become the writer', this.#set('inet', 'writer'), { key: this.#token })
  }

  /** Drawn many at once: each draw costs as much as the rest of a transaction. */
  #randomKey(): Buffer {
    if (this.#chanceAt === CHANCE_BYTES) {
      randomFillSync(this.#chance)
      this.#chanceAt = 0
    }
    const key = Buffer.from(this.#chance.subarray(this.#chanceAt, this.#chanceAt + KEY_BYTES))
    this.#chanceAt += KEY_BYTES
    return key
  }

  #set(family: TableFamily, set: 'open' | 'guard' | 'closed' | 'writer'): SetName {
    return { family, table: this.#spec.table, set }
  }

  #held(family: TableFamily, set: 'open' | 'closed') {
    return this.#nft.getElement(this.#set(family, set), FLAG_KEY)
  }

  #counters(): GateCounters {
    const count = (family: TableFamily, name: string) => {
      const table = this.#tables.find(candidate => candidate.family === family)
      return table === undefined ? 0 : readCounter(this.#nft, table, name)
    }
    return {
      frozenPackets: count('inet', 'frozen'),
      refusedPackets: count('inet', 'refused'),
      arpSilencedPackets: count('arp', 'arp_silenced'),
      announcementsStoppedPackets: count('netdev', 'announcements_stopped'),
    }
  }

  #must(result: BatchResult, what: string): void {
    if (result.ok) return
    const [error] = result.errors
    if (error === undefined)
      throw new KernelError(`could not ${what}`, ENOBUFS, 'steps of the transaction are unanswered')
    const hint = error.errno === EPERM ? 'another agent owns the tables, or CAP_NET_ADMIN is missing' : error.step
    throw new KernelError(`could not ${what}`, error.errno, hint)
  }
}

const linkElements = ({ type, elements }: SetLayout): string[] =>
  type === 'link-ipv4' || type === 'link-ipv6' ? elements.map(element => element.text) : []
