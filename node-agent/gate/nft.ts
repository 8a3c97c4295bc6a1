/**
 * nftables over raw netlink: transactions, single elements, read-back (linux/netfilter/nf_tables.h, nfnetlink.h).
 * Everything is synchronous; a transaction takes about 10 µs.
 */
import { ENOENT, KernelError } from '../kernel/libc.ts'
import {
  type Answer,
  attributeMap,
  attributes,
  type Message,
  MessageWriter,
  NETLINK_NETFILTER,
  NetlinkSocket,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
} from '../kernel/netlink.ts'
import type { TableFamily } from './ruleset.ts'

const NFNL_SUBSYS_NFTABLES = 10
const NFNL_MSG_BATCH_BEGIN = 16
const NFNL_MSG_BATCH_END = 17
/** Multicast group of ruleset changes. */
export const NFNLGRP_NFTABLES = 7

export const NFT_MSG = {
  newTable: 0,
  getTable: 1,
  delTable: 2,
  newChain: 3,
  getChain: 4,
  delChain: 5,
  newRule: 6,
  getRule: 7,
  delRule: 8,
  newSet: 9,
  getSet: 10,
  delSet: 11,
  newElement: 12,
  getElement: 13,
  delElement: 14,
  newObject: 18,
  getObject: 19,
  delObject: 20,
} as const
export type NftMessage = keyof typeof NFT_MSG

const PROTO: Record<TableFamily, number> = { inet: 1, arp: 3, netdev: 5 }

const NFTA_SET_ELEM_LIST_TABLE = 1
const NFTA_SET_ELEM_LIST_SET = 2
const NFTA_SET_ELEM_LIST_ELEMENTS = 3
const NFTA_LIST_ELEM = 1
const NFTA_SET_ELEM_KEY = 1
const NFTA_SET_ELEM_TIMEOUT = 4
const NFTA_SET_ELEM_EXPIRATION = 5
const NFTA_DATA_VALUE = 1

/** A set of one of the gate's tables. */
export type SetName = { family: TableFamily; table: string; set: string }

/** The message type and family of a ruleset event, or undefined for anything else. */
export function nftEvent(
  message: Message,
): { event: NftMessage | undefined; attributes: Map<number, Buffer> } | undefined {
  if (message.type >> 8 !== NFNL_SUBSYS_NFTABLES || message.body.length < 4) return undefined
  const code = message.type & 0xff
  const event = (Object.keys(NFT_MSG) as NftMessage[]).find(name => NFT_MSG[name] === code)
  return { event, attributes: attributeMap(message.body, 4) }
}

export type BatchResult = { ok: true } | { ok: false; errors: { step: string; errno: number }[] }

/** One transaction in the making. Each step has a name, by which an error is told. */
export class Batch {
  readonly #socket: NetlinkSocket
  readonly #writer: MessageWriter
  readonly #steps = new Map<number, string>()

  constructor(socket: NetlinkSocket, writer: MessageWriter) {
    this.#socket = socket
    this.#writer = writer.reset()
    this.#frame(NFNL_MSG_BATCH_BEGIN)
  }

  /** Any message. `flags` without NLM_F_REQUEST and NLM_F_ACK, which every step has. */
  add(
    step: string,
    message: { type: NftMessage; family: TableFamily; flags?: number },
    content: (w: MessageWriter) => void,
  ): this {
    const seq = this.#socket.nextSeq()
    this.#steps.set(seq, step)
    const type = (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG[message.type]
    this.#writer.begin({ type, flags: (message.flags ?? 0) | NLM_F_ACK, seq }).raw(nfgen(PROTO[message.family]))
    content(this.#writer)
    this.#writer.end()
    return this
  }

  /** Creates an element and fails (EEXIST) where a live one is: a plain add would extend it on recent kernels. */
  createElement(step: string, set: SetName, element: { key: Buffer; timeoutMs?: number }): this {
    return this.#element(step, 'newElement', NLM_F_CREATE | NLM_F_EXCL, set, element)
  }

  /** Adds elements without a timeout; those that are there already stay. */
  addElements(step: string, set: SetName, keys: readonly Buffer[]): this {
    return this.add(step, { type: 'newElement', family: set.family, flags: NLM_F_CREATE }, w => {
      setHeader(w, set).nest(NFTA_SET_ELEM_LIST_ELEMENTS, list => {
        for (const key of keys) list.nest(NFTA_LIST_ELEM, entry => elementBody(entry, { key }))
      })
    })
  }

  /** Removes a live element; fails (ENOENT) if it has expired or never was. */
  deleteElement(step: string, set: SetName, key: Buffer): this {
    return this.#element(step, 'delElement', 0, set, { key })
  }

  /** Empties a set, whatever is in it. */
  flushSet(step: string, set: SetName): this {
    return this.add(step, { type: 'delElement', family: set.family }, w => setHeader(w, set))
  }

  /** Sends the transaction. It was applied, as a whole, only if every step was acknowledged and none failed. */
  commit(): BatchResult {
    this.#frame(NFNL_MSG_BATCH_END)
    const answer = this.#socket.request(this.#writer.bytes())
    const errors = answer.errors.map(({ seq, errno }) => ({ step: this.#steps.get(seq) ?? 'the transaction', errno }))
    // Some kernels acknowledge the frame of the batch too, hence "at least".
    if (errors.length === 0 && answer.acks >= this.#steps.size) return { ok: true }
    return { ok: false, errors }
  }

  #element(
    step: string,
    type: 'newElement' | 'delElement',
    flags: number,
    set: SetName,
    element: { key: Buffer; timeoutMs?: number },
  ): this {
    return this.add(step, { type, family: set.family, flags }, w => {
      setHeader(w, set).nest(NFTA_SET_ELEM_LIST_ELEMENTS, list => {
        list.nest(NFTA_LIST_ELEM, entry => elementBody(entry, element))
      })
    })
  }

  #frame(type: number): void {
    this.#writer.begin({ type, flags: 0, seq: this.#socket.nextSeq() }).raw(nfgen(0, NFNL_SUBSYS_NFTABLES)).end()
  }
}

function nfgen(family: number, resource = 0): Buffer {
  return Buffer.from([family, 0, resource >> 8, resource & 0xff])
}

function setHeader(w: MessageWriter, set: SetName): MessageWriter {
  return w.text(NFTA_SET_ELEM_LIST_TABLE, set.table).text(NFTA_SET_ELEM_LIST_SET, set.set)
}

function elementBody(w: MessageWriter, element: { key: Buffer; timeoutMs?: number }): void {
  w.nest(NFTA_SET_ELEM_KEY, key => key.attribute(NFTA_DATA_VALUE, element.key))
  if (element.timeoutMs !== undefined) w.be64(NFTA_SET_ELEM_TIMEOUT, BigInt(element.timeoutMs))
}

/** A query has a few names and one key; at most one for each table goes at once. */
const QUERY_BYTES = 4096

/** An element the kernel holds; `expiresInMs` is Infinity where it has no timeout. */
export type HeldElement = { key: Buffer; expiresInMs: number }

export class Nftables {
  readonly socket: NetlinkSocket
  readonly #batchWriter = new MessageWriter()
  readonly #queryWriter = new MessageWriter(QUERY_BYTES)

  /** `groups`: multicast groups to listen to, see {@link NFNLGRP_NFTABLES}. */
  constructor(options: { groups?: readonly number[] } = {}) {
    this.socket = new NetlinkSocket(NETLINK_NETFILTER, options)
  }

  /** Begins a transaction; one that was begun before and not committed is dropped. */
  batch(): Batch {
    return new Batch(this.socket, this.#batchWriter)
  }

  /** The live element of that key, or undefined where it, its set or its table is missing. */
  getElement(set: SetName, key: Buffer): HeldElement | undefined {
    return this.getElements([set], key)[0]
  }

  /** The same of several sets with one question to the kernel; the answers are in the order of the sets. */
  getElements(sets: readonly SetName[], key: Buffer): (HeldElement | undefined)[] {
    const w = this.#queryWriter.reset()
    const type = (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG.getElement
    const seqs = sets.map(set => {
      const seq = this.socket.nextSeq()
      w.begin({ type, flags: 0, seq }).raw(nfgen(PROTO[set.family]))
      setHeader(w, set).nest(NFTA_SET_ELEM_LIST_ELEMENTS, list => {
        list.nest(NFTA_LIST_ELEM, entry => elementBody(entry, { key }))
      })
      w.end()
      return seq
    })
    const answer = this.socket.request(w.bytes())
    return seqs.map((seq, index) => {
      const error = answer.errors.find(one => one.seq === seq)
      if (error !== undefined && error.errno !== ENOENT)
        throw new KernelError(`nftables getElement (${sets[index]!.family})`, error.errno)
      return heldElements(answer.messages.filter(message => message.seq === seq))[0]
    })
  }

  /** All elements of a set. */
  listElements(set: SetName): HeldElement[] {
    const answer = this.get({ type: 'getElement', family: set.family, flags: NLM_F_DUMP }, w => setHeader(w, set))
    return answer === undefined ? [] : heldElements(answer.messages)
  }

  /** A query; undefined means that the kernel has no such thing (ENOENT). Throws {@link KernelError} otherwise. */
  get(
    message: { type: NftMessage; family: TableFamily; flags?: number },
    content: (w: MessageWriter) => void = () => undefined,
  ): Answer | undefined {
    const type = (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG[message.type]
    const w = this.#queryWriter.reset()
    w.begin({ type, flags: message.flags ?? 0, seq: this.socket.nextSeq() }).raw(nfgen(PROTO[message.family]))
    content(w)
    const bytes = w.end().bytes()
    const answer = message.flags === NLM_F_DUMP ? this.socket.dump(bytes) : this.socket.request(bytes)
    const error = answer.errors[0]
    if (error === undefined) return answer
    if (error.errno === ENOENT) return undefined
    throw new KernelError(`nftables ${message.type} (${message.family})`, error.errno)
  }

  close(): void {
    this.socket.close()
  }
}

function heldElements(messages: readonly Message[]): HeldElement[] {
  const held: HeldElement[] = []
  for (const message of messages) {
    const list = attributeMap(message.body, 4).get(NFTA_SET_ELEM_LIST_ELEMENTS)
    if (list === undefined) continue
    for (const { data } of attributes(list)) {
      const element = attributeMap(data)
      const key = attributeMap(element.get(NFTA_SET_ELEM_KEY) ?? Buffer.alloc(0)).get(NFTA_DATA_VALUE)
      const expiration = element.get(NFTA_SET_ELEM_EXPIRATION)
      if (key === undefined) continue
      held.push({ key, expiresInMs: expiration === undefined ? Infinity : Number(expiration.readBigUInt64BE()) })
    }
  }
  return held
}
