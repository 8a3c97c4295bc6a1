import { roundOf } from '../../shared/protocol/ballot.ts'
import type { Accepted, Ballot, Value } from '../../shared/protocol/types.ts'

/**
 * A row of small integers, filled cell by cell: times relative to now, ballots and versions counted from the lowest in
 * use. The rows are hashed; nothing is ever read back from them.
 */
export class Row {
  readonly cells = new Int32Array(4096)
  size = 0
  now = 0
  version = 0
  epoch = 0
  gen = 0
  /** Round numbers in use; and the highest that each host has seen: its next is one more, so a gap above it counts. */
  rounds: number[] = []
  tops: number[] = []
  /** Up to which heartbeat each host's database was alive, 0 if its place is not given up. */
  readonly killedSeq = { a: 0, b: 0, w: 0 }

  put(n: number): void {
    this.cells[this.size++] = n
  }
  flag(b: boolean): void {
    this.put(b ? 1 : 0)
  }
  /** A time to come; past ones are alike, and far ones too. Half units, because back-offs are half a unit. */
  future(at: number): void {
    this.put(at <= this.now ? 0 : Math.min(Math.ceil((at - this.now) / half), far))
  }
  /** A time gone by; what is further back than the longest comparison made with it is alike. */
  past(at: number, longestMs: number): void {
    this.put(at === 0 ? -1 : Math.ceil(Math.min(this.now - at, longestMs) / half))
  }
  ballot(b: Ballot): void {
    if (b === 0) return this.put(-1)
    const n = roundOf(b)
    this.put((Math.floor(b / 2 ** 40) - this.gen) * 1024 + this.rank(n) * 4 + (b % 16))
  }
  rank(n: number): number {
    const { rounds, tops } = this
    let rank = 0
    for (let i = 0; i < rounds.length && rounds[i]! < n; i++) {
      const gap = i + 1 < rounds.length ? rounds[i + 1]! - rounds[i]! : 1
      rank += gap > 1 && tops.includes(rounds[i]!) ? 2 : 1
    }
    return rank
  }
  inc(inc: string | null | undefined): void {
    this.put(inc ? inc.charCodeAt(0) * 64 + inc.length + inc.charCodeAt(inc.length - 1) : 0)
  }
  reign(gen: number, epoch: number, version: number): void {
    this.put(((gen - this.gen) * 64 + (epoch - this.epoch)) * 64 + (version - this.version))
  }
  value(v: Value | null): void {
    if (v === null) return this.put(-7)
    this.reign(v.gen, v.epoch, v.version)
    this.put(v.primary.charCodeAt(0) * 2 + (v.successor ? 1 : 0))
    this.inc(v.voters.a)
    this.inc(v.voters.b)
    this.inc(v.voters.w)
  }
  accepted(acc: Accepted | null): void {
    this.ballot(acc?.ballot ?? 0)
    this.value(acc?.value ?? null)
  }
}

export const half = 50
/** Longer than any lease, grant or limit of a round; only probes of the witness and a maintenance are further away. */
const far = 30
export type Table<T> = { [K in keyof T]-?: (row: Row, value: T[K], whole: T) => void }

/** The table as two arrays, so that a row is filled without looking names up. */
export function filler<T extends object>(table: Table<T>): (row: Row, of: T) => void {
  const keys = Object.keys(table).filter(key => table[key as keyof T] !== skip) as (keyof T)[]
  const cells = keys.map(key => table[key]) as unknown as ((row: Row, value: unknown, whole: T) => void)[]
  return (row, of) => {
    for (let i = 0; i < keys.length; i++) cells[i]!(row, of[keys[i]!], of)
  }
}

/** Says nothing of what may come: names, texts, counters, what never differs, or what follows from the rest. */
export const skip = (): void => {}
export const flag = (row: Row, b: boolean): void => row.flag(b)
export const number = (row: Row, n: number): void => row.put(n)
export const word = (row: Row, s: string): void => row.put(s.length * 256 + s.charCodeAt(0))
export const future = (row: Row, at: number): void => row.future(at)
export const ballot = (row: Row, b: Ballot): void => row.ballot(b)
export const past =
  (longestMs: number) =>
  (row: Row, at: number): void =>
    row.past(at, longestMs)

/** Two 32-bit hashes of the cells. */
export function hash(cells: Int32Array, from: number, to: number): { high: number; low: number } {
  let high = 0x12345671
  let low = 0x7654321f
  for (let i = from; i < to; i++) {
    const cell = cells[i]!
    high = Math.imul(high ^ cell, 0x01000193)
    high ^= high >>> 15
    low = Math.imul(low + cell, 0x2c1b3c6d)
    low ^= low >>> 13
  }
  high = Math.imul(high ^ (high >>> 16), 0x85ebca6b)
  low = Math.imul(low ^ (low >>> 16), 0xc2b2ae35)
  return { high: high ^ (high >>> 13), low: low ^ (low >>> 16) }
}
