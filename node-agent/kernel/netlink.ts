/**
 * Netlink (RFC 3549; netlink(7)): a writer for messages with nested attributes, a reader, and a synchronous socket.
 *
 * Requests are answered within send(): when it returns every acknowledgement lies in the receive buffer, so a
 * transaction is one send and one non-blocking receive, without waiting.
 */
import { assert } from '../../shared/assert.ts'
import {
  AF_NETLINK,
  attachFilter,
  bindSocket,
  closeFd,
  EAGAIN,
  EINTR,
  ENOBUFS,
  forceReceiveBuffer,
  KernelError,
  openSocket,
  ReceiveRoom,
  SOCK_RAW,
  setOption,
  socketName,
  tryReceive,
  trySend,
} from './libc.ts'

/** Netlink families used here (linux/netlink.h). */
export const NETLINK_ROUTE = 0
export const NETLINK_SOCK_DIAG = 4
export const NETLINK_NETFILTER = 12

export const NLM_F_REQUEST = 0x1
export const NLM_F_ACK = 0x4
export const NLM_F_DUMP = 0x300
export const NLM_F_REPLACE = 0x100
export const NLM_F_EXCL = 0x200
export const NLM_F_CREATE = 0x400
export const NLM_F_APPEND = 0x800

/** What was listed changed while it was read (linux/netlink.h). */
const NLM_F_DUMP_INTR = 0x10

const NLMSG_ERROR = 2
const NLMSG_DONE = 3
const SOL_NETLINK = 270
const NETLINK_ADD_MEMBERSHIP = 1
const NETLINK_DROP_MEMBERSHIP = 2
const NETLINK_CAP_ACK = 10
const HEADER_BYTES = 16
const NLA_TYPE_MASK = 0x3fff
const NLA_F_NESTED = 0x8000

/** Classic BPF (linux/bpf_common.h). */
const BPF_LD_W_ABS = 0x20
const BPF_JEQ_K = 0x15
const BPF_RET_K = 0x06

/** The largest batch built here, a ruleset with every set at its limit, is below 64 KiB; twice that is the limit. */
const WRITER_BYTES = 128 * 1024
/** The kernel sends dumps in pieces of at most 32 KiB (NLMSG_GOODSIZE), events are smaller. */
const RECEIVE_BYTES = 64 * 1024
/** Room for the events of a large firewall reload between two looks; overflow is noticed and means "look again". */
const RECEIVE_BUFFER_BYTES = 1024 * 1024
/** No answer here comes near this many datagrams; beyond it the socket is not what we think it is. */
const MAX_DATAGRAMS = 20_000
/** Whoever changes a list as often as this while it is read does so all the time. */
const DUMP_TRIES = 5
/** A transaction of the gate has eleven acknowledgements. */
const DATAGRAMS_AT_ONCE = 16

/** Everything here is synchronous, and what it holds is copied before the next call. */
const into = Buffer.alloc(RECEIVE_BYTES)
const room = new ReceiveRoom({ datagrams: DATAGRAMS_AT_ONCE, bytesEach: RECEIVE_BYTES })

/** Builds one or more messages in one reused buffer: begin, attributes, end; then `bytes()`. */
export class MessageWriter {
  readonly #buffer: Buffer
  #at = 0
  #messageStart = -1
  readonly #nests: number[] = []

  constructor(maxBytes: number = WRITER_BYTES) {
    this.#buffer = Buffer.alloc(maxBytes)
  }

  reset(): this {
    this.#at = 0
    this.#messageStart = -1
    this.#nests.length = 0
    return this
  }

  begin(message: { type: number; flags: number; seq: number }): this {
    assert(this.#messageStart === -1, 'the message before was not ended')
    this.#messageStart = this.#at
    const b = this.#buffer
    b.writeUInt32LE(0, this.#at)
    b.writeUInt16LE(message.type, this.#at + 4)
    b.writeUInt16LE(message.flags | NLM_F_REQUEST, this.#at + 6)
    b.writeUInt32LE(message.seq, this.#at + 8)
    b.writeUInt32LE(0, this.#at + 12)
    this.#at += HEADER_BYTES
    return this
  }

  end(): this {
    assert(this.#nests.length === 0, 'a nested attribute was not ended')
    this.#buffer.writeUInt32LE(this.#at - this.#messageStart, this.#messageStart)
    this.#messageStart = -1
    return this
  }

  /** Bytes as they are: the fixed part of a message, between its header and its attributes. */
  raw(data: Buffer): this {
    data.copy(this.#buffer, this.#at)
    this.#at += data.length
    this.#pad()
    return this
  }

  attribute(type: number, data: Buffer): this {
    this.#head(type, data.length)
    data.copy(this.#buffer, this.#at)
    this.#at += data.length
    this.#pad()
    return this
  }

  /** A text with the zero at its end. */
  text(type: number, value: string): this {
    this.#head(type, Buffer.byteLength(value) + 1)
    this.#at += this.#buffer.write(value, this.#at)
    this.#buffer[this.#at++] = 0
    this.#pad()
    return this
  }

  /** 32 bits in network order, as nfnetlink has them. */
  be32(type: number, value: number): this {
    this.#head(type, 4)
    this.#buffer.writeInt32BE(value | 0, this.#at)
    this.#at += 4
    return this
  }

  be64(type: number, value: bigint): this {
    this.#head(type, 8)
    this.#buffer.writeBigUInt64BE(value, this.#at)
    this.#at += 8
    return this
  }

  nest(type: number, content: (w: MessageWriter) => unknown): this {
    this.#nests.push(this.#at)
    this.#head(type | NLA_F_NESTED, 0)
    content(this)
    const start = this.#nests.pop()!
    this.#buffer.writeUInt16LE(this.#at - start, start)
    return this
  }

  /** The messages so far; valid until the next `reset`. */
  bytes(): Buffer {
    assert(this.#messageStart === -1, 'the last message was not ended')
    return this.#buffer.subarray(0, this.#at)
  }

  #head(type: number, length: number): void {
    this.#buffer.writeUInt16LE(4 + length, this.#at)
    this.#buffer.writeUInt16LE(type, this.#at + 2)
    this.#at += 4
  }

  #pad(): void {
    while (this.#at % 4 !== 0) this.#buffer[this.#at++] = 0
  }
}

export type Message = { type: number; flags: number; seq: number; portId: number; body: Buffer }

/** Splits a datagram into its messages; a message that contradicts the datagram's length ends the walk. */
export function* messages(datagram: Buffer): Generator<Message> {
  for (let at = 0; at + HEADER_BYTES <= datagram.length; ) {
    const length = datagram.readUInt32LE(at)
    if (length < HEADER_BYTES || at + length > datagram.length) return
    yield {
      type: datagram.readUInt16LE(at + 4),
      flags: datagram.readUInt16LE(at + 6),
      seq: datagram.readUInt32LE(at + 8),
      portId: datagram.readUInt32LE(at + 12),
      body: datagram.subarray(at + HEADER_BYTES, at + length),
    }
    at += (length + 3) & ~3
  }
}

/** `nested` is what the sender said of it; the kernel's dumps mostly leave the flag out. */
export type Attribute = { type: number; nested: boolean; data: Buffer }

/** The attributes of a message body from `offset` (behind the fixed part), flags of the type removed. */
export function* attributes(body: Buffer, offset = 0): Generator<Attribute> {
  for (let at = offset; at + 4 <= body.length; ) {
    const length = body.readUInt16LE(at)
    if (length < 4 || at + length > body.length) return
    const type = body.readUInt16LE(at + 2)
    const data = body.subarray(at + 4, at + length)
    yield { type: type & NLA_TYPE_MASK, nested: (type & NLA_F_NESTED) !== 0, data }
    at += (length + 3) & ~3
  }
}

/** The attributes by type; of several with one type the last stays. */
export function attributeMap(body: Buffer, offset = 0): Map<number, Buffer> {
  const map = new Map<number, Buffer>()
  for (const { type, data } of attributes(body, offset)) map.set(type, data)
  return map
}

/** A text attribute without the zero at its end; '' if the attribute is missing. */
export function textOf(data: Buffer | undefined): string {
  if (data === undefined) return ''
  const end = data.indexOf(0)
  return data.toString('utf8', 0, end === -1 ? data.length : end)
}

/**
 * What came back for a request: acknowledgements without error, errors by message, and everything else. `done`: the end
 * of a list was among it; `interrupted`: the list changed while it was read.
 */
export type Answer = {
  acks: number
  errors: { seq: number; errno: number }[]
  messages: Message[]
  done: boolean
  interrupted: boolean
}

export class NetlinkSocket {
  /** -1 once it is closed: its number may be another one's by then. */
  fd: number
  /** The kernel's name for this socket; events carry it, so that own changes can be told from others'. */
  readonly portId: number
  #seq = 0
  /** The last request's answers were read to their end. */
  #emptied = false

  constructor(protocol: number, options: { groups?: readonly number[] } = {}) {
    this.fd = openSocket({ domain: AF_NETLINK, type: SOCK_RAW, protocol })
    const address = Buffer.alloc(12)
    address.writeUInt16LE(AF_NETLINK)
    try {
      bindSocket(this.fd, address)
      this.portId = socketName(this.fd, 12).readUInt32LE(4)
      setOption(this.fd, { level: SOL_NETLINK, name: NETLINK_CAP_ACK, value: 1 })
      forceReceiveBuffer(this.fd, RECEIVE_BUFFER_BYTES)
      for (const group of options.groups ?? []) {
        setOption(this.fd, { level: SOL_NETLINK, name: NETLINK_ADD_MEMBERSHIP, value: group })
      }
    } catch (fault) {
      // Whoever is refused for want of memory tries again and again.
      closeFd(this.fd)
      throw fault
    }
  }

  /** No more messages of that multicast group. */
  leave(group: number): void {
    setOption(this.fd, { level: SOL_NETLINK, name: NETLINK_DROP_MEMBERSHIP, value: group })
  }

  /** Messages that another socket of this process caused are not even received: each would be a wake-up. */
  ignoreCausedBy(portId: number): void {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(portId)
    attachFilter(this.fd, [
      // Socket filters load in network order, the header (nlmsg_pid at 12) is in that of the host.
      [BPF_LD_W_ABS, 0, 0, 12],
      [BPF_JEQ_K, 0, 1, bytes.readUInt32BE()],
      [BPF_RET_K, 0, 0, 0],
      [BPF_RET_K, 0, 0, 0xffffffff],
    ])
  }

  nextSeq(): number {
    this.#seq = (this.#seq + 1) >>> 0
    return this.#seq
  }

  /**
   * Sends and collects all that is answered. The content of `messages` is copied.
   * Throws {@link KernelError} when the send itself is refused or the answers did not fit into the receive buffer.
   */
  request(bytes: Buffer): Answer {
    if (!this.#emptied) this.#discard()
    this.#emptied = false
    const errno = trySend(this.fd, bytes)
    if (errno !== 0) throw new KernelError(`netlink send of ${bytes.length} bytes`, errno)
    return this.#collect()
  }

  /**
   * A request for a list (NLM_F_DUMP), which is either whole or an error: one that ended early, or was read while it
   * changed (netlink documentation of the kernel, "Dump consistency"), would pass for a smaller one, so it is asked for
   * again. Throws {@link KernelError} EINTR when it never was whole.
   */
  dump(bytes: Buffer): Answer {
    for (let i = 0; i < DUMP_TRIES; i++) {
      const answer = this.request(bytes)
      if (answer.errors.length > 0 || (answer.done && !answer.interrupted)) return answer
    }
    throw new KernelError(`a list of netlink was not whole in ${DUMP_TRIES} attempts`, EINTR)
  }

  /** A request of one message that must succeed; `what` begins the error's sentence. */
  must(bytes: Buffer, what: string): Answer {
    const answer = this.request(bytes)
    const error = answer.errors[0]
    if (error !== undefined) throw new KernelError(what, error.errno)
    return answer
  }

  /** Takes the multicast messages that wait. `overrun`: some were lost, so the caller must look at the whole state. */
  drain(handle: (message: Message) => void): { overrun: boolean } {
    let overrun = false
    for (let i = 0; i < MAX_DATAGRAMS; i++) {
      const length = tryReceive(this.fd, into)
      if (length === -EAGAIN) break
      if (length === -ENOBUFS) overrun = true
      else if (length < 0) throw new KernelError('netlink receive', -length)
      else if (length > into.length) overrun = true
      else for (const message of messages(into.subarray(0, length))) handle(message)
    }
    return { overrun }
  }

  close(): void {
    closeFd(this.fd)
    this.fd = -1
  }

  /** Answers to a request that ended early (a dump cut by an error) must not be taken for those of the next. */
  #discard(): void {
    for (let i = 0; i < MAX_DATAGRAMS && tryReceive(this.fd, into) !== -EAGAIN; i++);
  }

  #collect(): Answer {
    const answer: Answer = { acks: 0, errors: [], messages: [], done: false, interrupted: false }
    for (let i = 0; i < MAX_DATAGRAMS && !answer.done; i += room.datagrams) {
      const count = room.receive(this.fd)
      if (count < 0 && count !== -EAGAIN) throw new KernelError('netlink receive', -count)
      for (let index = 0; index < count; index++) {
        const { bytes, length } = room.datagram(index)
        // The sentence only where it is needed: a second has some hundred of these.
        if (length > RECEIVE_BYTES)
          assert(false, `a netlink answer of ${length} bytes did not fit into ${RECEIVE_BYTES}`)
        for (const message of messages(bytes)) sortMessage(answer, message)
      }
      this.#emptied = count < room.datagrams
      if (this.#emptied) break
    }
    return answer
  }
}

function sortMessage(answer: Answer, message: Message): void {
  if ((message.flags & NLM_F_DUMP_INTR) !== 0) answer.interrupted = true
  if (message.type === NLMSG_DONE) {
    const status = message.body.length >= 4 ? message.body.readInt32LE(0) : 0
    if (status < 0) answer.errors.push({ seq: message.seq, errno: -status })
    answer.done = true
  } else if (message.type === NLMSG_ERROR) {
    const status = message.body.readInt32LE(0)
    if (status === 0) answer.acks++
    else answer.errors.push({ seq: message.seq, errno: -status })
  } else answer.messages.push({ ...message, body: Buffer.from(message.body) })
}
