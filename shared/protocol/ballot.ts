import { assert } from '../assert.ts'
import type { Ballot, NodeId } from './types.ts'

/**
 * A ballot (gen, n, node) packed into one integer, totally ordered: gen·2^40 + n·16 + node.
 * It stays below 2^53, so that it is exact as a JavaScript number, in JSON and as a bigint column of the witness.
 * That leaves more than 4 000 forced takeovers and 2^36 rounds for the life of a pair.
 */
const genUnit = 2 ** 40
const roundUnit = 16
export const genMax = 2 ** 13 - 1
export const roundMax = 2 ** 36 - 1
const nodeIndex: Record<NodeId, number> = { a: 1, b: 2, w: 3 }
const nodeOf: Record<number, NodeId> = { 1: 'a', 2: 'b', 3: 'w' }

export function ballotOf(part: { gen: number; n: number; node: NodeId }): Ballot {
  assert(part.gen >= 0 && part.gen <= genMax, `gen ${part.gen} of a ballot lies outside 0..${genMax}`)
  assert(part.n >= 0 && part.n <= roundMax, `round ${part.n} of a ballot lies outside 0..${roundMax}`)
  return part.gen * genUnit + part.n * roundUnit + nodeIndex[part.node]
}

/**
 * The gen of a forced takeover: above everything known, and of this host alone, since a takes the odd ones and b the even
 * ones. Two hosts that were forced one after the other, without having heard of each other, would else share a gen, and
 * the data of one would be given up as if it were the other's.
 */
export function genAfter(gen: number, node: 'a' | 'b'): number {
  const parity = node === 'a' ? 1 : 0
  return gen + ((gen + 1) % 2 === parity ? 1 : 2)
}

export const genOf = (ballot: Ballot): number => Math.floor(ballot / genUnit)
export const roundOf = (ballot: Ballot): number => Math.floor((ballot % genUnit) / roundUnit)
export const proposerOf = (ballot: Ballot): NodeId | null => nodeOf[ballot % roundUnit] ?? null

/** "2.17.a" for people and logs. */
export const showBallot = (ballot: Ballot): string =>
  ballot === 0 ? 'none' : `${genOf(ballot)}.${roundOf(ballot)}.${proposerOf(ballot)}`
