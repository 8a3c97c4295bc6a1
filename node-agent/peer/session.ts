import {
  type CipherGCM,
  createCipheriv,
  createDecipheriv,
  createSecretKey,
  hkdfSync,
  type KeyObject,
} from 'node:crypto'
import { assert } from '../../shared/assert.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import type { DataNode } from '../../shared/protocol/types.ts'
import { ReplayWindow } from './replay-window.ts'
import { counterMax, type DataPacket, dataHeader, nonceBytes, numberHeader, sealBytes, tagBytes } from './wire.ts'

const cipherName = 'aes-256-gcm'
/** Also when it is lowered nothing but a new session follows; NIST SP 800-38D allows 2^32 packets under one key. */
export const sessionPacketsMax = 2 ** 31

/**
 * Ciphers made ahead, many at once: on a core that has slept the first costs more than all else of a heartbeat's sealing, as
 * OpenSSL has to find it, and each further one a thirtieth of that. Enough for three seconds of the default profile.
 */
const aheadMax = 64

export const pairKeyBytes = 32
const nothing = Buffer.alloc(0)

export function derive(part: { pairKey: Buffer; salt: Buffer; info: string; bytes: number }): Buffer {
  assert(part.pairKey.length === pairKeyBytes, `a pair key has ${pairKeyBytes} bytes, not ${part.pairKey.length}`)
  return Buffer.from(hkdfSync('sha256', part.pairKey, part.salt, `understudy peer ${part.info}`, part.bytes))
}

export const pairTagOf = (pairKey: Buffer): Buffer => derive({ pairKey, salt: nothing, info: 'tag', bytes: tagBytes })

/** For one packet: a nonce is never used twice under one key. */
export const cipherFor = (key: KeyObject, nonce: Buffer): CipherGCM => createCipheriv(cipherName, key, nonce)

/**
 * The whole packet: `lead`, which begins with the header, and behind it the sealed body. In one piece, for each heartbeat goes
 * by here on each path, on a core that has slept meanwhile: there every further function is code from afar.
 */
export function seal(part: { cipher: CipherGCM; header: Buffer; lead?: Buffer; body: Buffer }): Buffer {
  const { cipher, header, lead = header, body } = part
  cipher.setAAD(header)
  const packet = Buffer.allocUnsafe(lead.length + body.length + sealBytes)
  packet.set(lead)
  // A stream cipher holds nothing back for its end.
  packet.set(cipher.update(body), lead.length)
  cipher.final()
  packet.set(cipher.getAuthTag(), lead.length + body.length)
  return packet
}

/** null when it was not made with this key, or was changed. */
export function unseal(part: { key: KeyObject; nonce: Buffer; header: Buffer; sealed: Buffer }): Buffer | null {
  const decipher = createDecipheriv(cipherName, part.key, part.nonce, { authTagLength: sealBytes })
  decipher.setAAD(part.header)
  decipher.setAuthTag(part.sealed.subarray(part.sealed.length - sealBytes))
  try {
    const body = decipher.update(part.sealed.subarray(0, -sealBytes))
    decipher.final()
    return body
  } catch {
    return null
  }
}

/** Who the other side says it is; authenticated. */
export interface PeerIdentity {
  /** Random for each start of its agent. */
  start: string
  agentVersion: string
}

/**
 * Keys of one conversation, made of a fresh random of either side. A packet that opens with them was sealed by a peer
 * that knew our random, so after it was chosen; see README.md for what follows.
 */
export class Session {
  readonly tag: string
  readonly peer: PeerIdentity
  /** The version both sides speak. */
  readonly version: number
  /** For copies of one message that came over several paths. */
  readonly messages = new ReplayWindow()
  /** Of the packet that is being sealed. */
  readonly #header: Buffer
  readonly #sendKey: KeyObject
  readonly #receiveKey: KeyObject
  readonly #counters = new ReplayWindow()
  #sent = 0
  /** For the packets with the next numbers. */
  readonly #ahead: { counter: number; cipher: CipherGCM }[] = []

  constructor(part: {
    pairKey: Buffer
    pairTag: Buffer
    self: DataNode
    randomOf: { a: Buffer; b: Buffer }
    version: number
    peer: PeerIdentity
  }) {
    const { pairKey, self, version } = part
    const salt = Buffer.concat([part.randomOf.a, part.randomOf.b])
    const other = otherNode(self)
    const keyOf = (from: DataNode): KeyObject =>
      createSecretKey(derive({ pairKey, salt, info: `session ${version} from ${from}`, bytes: 32 }))
    const tag = derive({ pairKey, salt, info: `session ${version} tag`, bytes: tagBytes })
    this.tag = tag.toString('hex')
    this.peer = part.peer
    this.version = version
    this.#header = dataHeader({ pairTag: part.pairTag, session: tag })
    this.#sendKey = keyOf(self)
    this.#receiveKey = keyOf(other)
  }

  get packetsSent(): number {
    return this.#sent
  }

  /** To be called now and then while nothing is urgent, and never needed. */
  prepare(): void {
    if (this.#ahead.length > aheadMax / 2) return
    for (let counter = this.#sent + this.#ahead.length; this.#ahead.length < aheadMax; counter++)
      this.#ahead.push({ counter, cipher: cipherFor(this.#sendKey, nonceOf(counter)) })
  }

  seal(body: Buffer): Buffer {
    assert(this.#sent < counterMax, 'a session ran out of numbers')
    const counter = this.#sent++
    const ahead = this.#ahead.shift()
    const cipher = ahead?.counter === counter ? ahead.cipher : cipherFor(this.#sendKey, nonceOf(counter))
    return seal({ cipher, header: numberHeader(this.#header, counter), body })
  }

  open(packet: DataPacket): { ok: true; body: Buffer } | { ok: false; why: 'forged' | 'replayed' } {
    const { header, sealed, counter } = packet
    const body = unseal({ key: this.#receiveKey, nonce: nonceOf(counter), header, sealed })
    if (body === null) return { ok: false, why: 'forged' }
    return this.#counters.take(counter) ? { ok: true, body } : { ok: false, why: 'replayed' }
  }
}

function nonceOf(counter: number): Buffer {
  const nonce = Buffer.alloc(nonceBytes)
  nonce.writeUIntBE(counter, nonceBytes - 6, 6)
  return nonce
}
