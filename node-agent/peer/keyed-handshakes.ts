import { assert } from '../../shared/assert.ts'
import type { DataNode } from '../../shared/protocol/types.ts'
import { Handshake, type HelloResult, type VersionRange } from './handshake.ts'
import type { Session } from './session.ts'
import type { DataPacket, HelloPacket } from './wire.ts'

/** The newest one and the one before. */
const keysMax = 2

/**
 * Handshakes by each of the pair's keys: one, and two while the hosts get another in turn. One conversation counts at a
 * time: by the first key where both hosts have it, and by the other one as long as only that is common to both.
 */
export class KeyedHandshakes {
  readonly pairTags: readonly Buffer[]
  readonly #all: readonly Handshake[]
  /** Of the conversation that counts. */
  #key = 0

  constructor(part: { pairKeys: readonly Buffer[]; self: DataNode; agentVersion: string; speaks?: VersionRange }) {
    const { pairKeys, ...rest } = part
    assert(
      pairKeys.length >= 1 && pairKeys.length <= keysMax,
      `a link has 1 or ${keysMax} keys, not ${pairKeys.length}`,
    )
    this.#all = pairKeys.map(
      (pairKey, key) => new Handshake({ ...rest, pairKey, mayCount: session => this.#mayCount(session, key) }),
    )
    this.pairTags = this.#all.map(one => one.pairTag)
  }

  get current(): Session | null {
    return this.#all[this.#key]!.current
  }

  /** There is a conversation, and it is by the first key. */
  get byFirstKey(): boolean {
    return this.#key === 0 && this.current !== null
  }

  hellos(): Buffer[] {
    return this.#all.map(one => one.hello())
  }

  receive(packet: HelloPacket, nowMs: number): HelloResult {
    const result = this.#all[packet.key]!.receive(packet, nowMs)
    if (result.outcome === 'established') this.#count(result.session, packet.key)
    return result
  }

  /** The session a data packet belongs to; whoever opens it tells by `confirm`. */
  sessionOf(packet: DataPacket, nowMs: number): Session | null {
    return this.#all[packet.key]!.sessionOf(packet.session, nowMs)
  }

  /** A packet of this session was opened. True when that made it the current one. */
  confirm(session: Session, packet: DataPacket, nowMs: number): boolean {
    if (!this.#all[packet.key]!.confirm(session, nowMs)) return false
    this.#count(session, packet.key)
    return true
  }

  /** With the same start of the peer the first key goes before; another start counts by whatever key it comes. */
  #mayCount(session: Session, key: number): boolean {
    const { current } = this
    return current === null || key <= this.#key || current.peer.start !== session.peer.start
  }

  /** What its predecessors sealed by any key must not be heard any more; nor, with the first key in use, by the other. */
  #count(session: Session, key: number): void {
    this.#key = key
    for (const [at, one] of this.#all.entries()) if (at !== key) one.giveWay(at < key ? session.peer.start : null)
  }
}
