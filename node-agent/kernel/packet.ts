/**
 * Ethernet frames through a packet socket (packet(7)). Frames sent here pass the ip and arp hooks of the firewall; only
 * the gate's egress hook sees them. Frames received here are seen before any hook, so a probe works in every state.
 */
import {
  AF_PACKET,
  attachFilter,
  bindSocket,
  closeFdLater,
  ENODEV,
  type FilterInstruction,
  interfaceIndex,
  KernelError,
  openSocket,
  SOCK_RAW,
  tryReceive,
  trySend,
} from './libc.ts'

export const ETH_P_IP = 0x0800
export const ETH_P_ARP = 0x0806
export const ETH_P_IPV6 = 0x86dd

/** Ethernet's usual maximum with a VLAN tag; longer frames are cut, none that we read is. */
const MAX_FRAME_BYTES = 1518

export class PacketSocket {
  readonly iface: string
  readonly #fd: number
  readonly #into = Buffer.alloc(MAX_FRAME_BYTES)

  /**
   * Throws {@link KernelError} where the interface is missing.
   * `filter` is a classic BPF program over the whole frame; without one every frame of the type is received.
   */
  constructor(options: { iface: string; etherType: number; filter?: readonly FilterInstruction[] }) {
    const index = interfaceIndex(options.iface)
    if (index === 0) throw new KernelError(`packet socket on ${options.iface}`, ENODEV, 'there is no such interface')
    this.iface = options.iface
    // Protocol 0: nothing is received before the filter is in place and the socket is bound to its interface.
    this.#fd = openSocket({ domain: AF_PACKET, type: SOCK_RAW, protocol: 0 })
    const address = Buffer.alloc(20)
    address.writeUInt16LE(AF_PACKET, 0)
    address.writeUInt16BE(options.etherType, 2)
    address.writeInt32LE(index, 4)
    try {
      if (options.filter !== undefined) attachFilter(this.#fd, options.filter)
      bindSocket(this.#fd, address)
    } catch (error) {
      closeFdLater(this.#fd)
      throw error
    }
  }

  /** Returns 0 or the errno: ENETDOWN (link down) and a refusal by the gate are expected outcomes. */
  send(frame: Buffer): number {
    return trySend(this.#fd, frame)
  }

  /** The next frame that waits, valid until the next call; undefined when none does, or the link went down. */
  receive(): Buffer | undefined {
    const length = tryReceive(this.#fd, this.#into)
    return length > 0 ? this.#into.subarray(0, Math.min(length, MAX_FRAME_BYTES)) : undefined
  }

  /** Does not wait. */
  close(): void {
    closeFdLater(this.#fd)
  }
}
