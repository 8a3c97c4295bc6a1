/** Addresses, links and routes (rtnetlink(7)), synchronous. */
import { addressBytes, addressText, familyOf, macText } from './address.ts'
import { AF_INET, AF_INET6, EADDRNOTAVAIL, EEXIST, ENODEV, interfaceIndex, KernelError } from './libc.ts'
import {
  type Answer,
  attributeMap,
  type Message,
  MessageWriter,
  NETLINK_ROUTE,
  NetlinkSocket,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
} from './netlink.ts'

const RTM_GETLINK = 18
const RTM_NEWADDR = 20
const RTM_DELADDR = 21
const RTM_GETADDR = 22
const RTM_GETROUTE = 26
const IFA_ADDRESS = 1
const IFA_LOCAL = 2
const IFA_FLAGS = 8
/** No duplicate address detection: the address works at once, not after 1.5 s. */
const IFA_F_NODAD = 0x02
/** Not usable (yet): a duplicate was found, or the search is going on. */
const IFA_F_UNUSABLE = 0x08 | 0x40
const IFLA_ADDRESS = 1
const IFLA_IFNAME = 3
const IFLA_EXT_MASK = 29
/** RTEXT_FILTER_SKIP_STATS in the host's order: the counters, most of an answer, are not wanted. */
const SKIP_STATS = Buffer.from(Uint32Array.of(1 << 3).buffer)
const IFF_UP = 0x1
const IFF_LOWER_UP = 0x10000
const RTA_OIF = 4
const RTA_GATEWAY = 5
const RTA_PRIORITY = 6
const RTN_UNICAST = 1
const RT_TABLE_MAIN = 254
/** A request here has a header and a few attributes. */
const REQUEST_BYTES = 1024

export type AddressOnLink = { iface: string; address: string; prefixLength: number }
export type Link = {
  /** Set up by the administrator. */
  up: boolean
  /** The carrier is there (LOWER_UP); `up` stays set when a cable is pulled. */
  carrier: boolean
  mac: string
}

export class RouteSocket {
  readonly #socket = new NetlinkSocket(NETLINK_ROUTE)
  readonly #writer = new MessageWriter(REQUEST_BYTES)

  /** Idempotent. Throws {@link KernelError} where the interface is missing, or IPv6 is off. */
  addAddress(wanted: AddressOnLink): 'added' | 'present' {
    const answer = this.#address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, wanted)
    return this.#outcome(answer, { wanted, what: 'add', benign: EEXIST }) ? 'added' : 'present'
  }

  /** Idempotent. */
  removeAddress(wanted: AddressOnLink): 'removed' | 'absent' {
    const answer = this.#address(RTM_DELADDR, 0, wanted)
    return this.#outcome(answer, { wanted, what: 'remove', benign: EADDRNOTAVAIL }) ? 'removed' : 'absent'
  }

  /** The usable addresses of an interface, also while its link is down; empty where the interface is missing. */
  addresses(iface: string): { address: string; prefixLength: number }[] {
    const index = interfaceIndex(iface)
    const found: { address: string; prefixLength: number }[] = []
    for (const { body } of this.#list(RTM_GETADDR, Buffer.alloc(8))) {
      const attributes = attributeMap(body, 8)
      const bytes = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS)
      const flags = attributes.get(IFA_FLAGS)?.readUInt32LE() ?? body[2]!
      if (body.readUInt32LE(4) !== index || bytes === undefined || (flags & IFA_F_UNUSABLE) !== 0) continue
      found.push({ address: addressText(bytes), prefixLength: body[1]! })
    }
    return found
  }

  /** The state of a link, or undefined where the interface is missing. Throws {@link KernelError} where the kernel does not say. */
  link(iface: string): Link | undefined {
    // By name, which spares asking for its number first: this is looked at all the time.
    const answer = this.#request(RTM_GETLINK, 0, Buffer.alloc(16), w => {
      w.text(IFLA_IFNAME, iface).attribute(IFLA_EXT_MASK, SKIP_STATS)
    })
    // Any other error, such as want of memory, does not say that it is missing.
    const errno = answer.errors[0]?.errno ?? 0
    if (errno !== 0 && errno !== ENODEV) throw new KernelError(`look at ${iface}`, errno)
    const body = answer.messages[0]?.body
    if (body === undefined) return undefined
    const flags = body.readUInt32LE(8)
    const mac = attributeMap(body, 16).get(IFLA_ADDRESS)
    return {
      up: (flags & IFF_UP) !== 0,
      carrier: (flags & IFF_LOWER_UP) !== 0,
      mac: mac === undefined ? '00:00:00:00:00:00' : macText(mac),
    }
  }

  /** The IPv4 default gateway reached over an interface, of several the one with the lowest metric. */
  defaultGateway(iface: string): string | undefined {
    const index = interfaceIndex(iface)
    const header = Buffer.alloc(12)
    header[0] = AF_INET
    let best: { gateway: string; metric: number } | undefined
    for (const { body } of this.#list(RTM_GETROUTE, header)) {
      const isDefault = body[1] === 0 && body[4] === RT_TABLE_MAIN && body[7] === RTN_UNICAST
      const attributes = attributeMap(body, 12)
      const gateway = attributes.get(RTA_GATEWAY)
      if (!isDefault || gateway === undefined || attributes.get(RTA_OIF)?.readUInt32LE() !== index) continue
      const metric = attributes.get(RTA_PRIORITY)?.readUInt32LE() ?? 0
      if (best === undefined || metric < best.metric) best = { gateway: addressText(gateway), metric }
    }
    return best?.gateway
  }

  close(): void {
    this.#socket.close()
  }

  #address(type: number, flags: number, wanted: AddressOnLink): Answer {
    const bytes = addressBytes(wanted.address)
    const header = Buffer.alloc(8)
    header[0] = familyOf(wanted.address) === 4 ? AF_INET : AF_INET6
    header[1] = wanted.prefixLength
    header[2] = familyOf(wanted.address) === 6 && type === RTM_NEWADDR ? IFA_F_NODAD : 0
    const index = interfaceIndex(wanted.iface)
    if (index === 0)
      return { acks: 0, errors: [{ seq: 0, errno: ENODEV }], messages: [], done: true, interrupted: false }
    header.writeUInt32LE(index, 4)
    return this.#request(type, flags | NLM_F_ACK, header, w => {
      w.attribute(IFA_LOCAL, bytes).attribute(IFA_ADDRESS, bytes)
    })
  }

  /** True: changed. False: it was so already. */
  #outcome(answer: Answer, context: { wanted: AddressOnLink; what: string; benign: number }): boolean {
    const { wanted, what, benign } = context
    const errno = answer.errors[0]?.errno
    if (errno === undefined) return true
    if (errno === benign || (what === 'remove' && errno === ENODEV)) return false
    throw new KernelError(`${what} ${wanted.address}/${wanted.prefixLength} on ${wanted.iface}`, errno)
  }

  #request(type: number, flags: number, header: Buffer, content: (w: MessageWriter) => void = () => undefined): Answer {
    const w = this.#begin(type, flags, header)
    content(w)
    return this.#socket.request(w.end().bytes())
  }

  /** The whole list. Throws {@link KernelError} where the kernel does not give it. */
  #list(type: number, header: Buffer): Message[] {
    const answer = this.#socket.dump(this.#begin(type, NLM_F_DUMP, header).end().bytes())
    const error = answer.errors[0]
    if (error !== undefined) throw new KernelError(`list by rtnetlink (${type})`, error.errno)
    return answer.messages
  }

  #begin(type: number, flags: number, header: Buffer): MessageWriter {
    return this.#writer.reset().begin({ type, flags, seq: this.#socket.nextSeq() }).raw(header)
  }
}
