/**
 * A datagram socket (udp(7)) between two addresses. Node's own takes half as long again for each packet, with a buffer of
 * 64 KiB for each that comes, and an idle agent does little else than send and receive.
 */
import koffi from 'koffi'
import { addressBytes, familyOf } from './address.ts'
import {
  AF_INET,
  AF_INET6,
  bindSocket,
  closeFd,
  EAGAIN,
  forceReceiveBuffer,
  interfaceIndex,
  KernelError,
  openSocket,
  ReceiveRoom,
  SOCK_DGRAM,
  setOption,
  trySend,
} from './libc.ts'

const IPPROTO_IPV6 = 41
const IPV6_V6ONLY = 26
/** What fits is enough: no packet here is longer than 1200 bytes, and of a longer one its length is told. */
const DATAGRAM_BYTES = 2048
/** Taken with one call. More that wait are taken with the next turn of the loop, so that a flood does not hold it up. */
const DATAGRAMS_AT_ONCE = 16

/** Its datagrams are valid until the next call, and copied before. */
const room = new ReceiveRoom({ datagrams: DATAGRAMS_AT_ONCE, bytesEach: DATAGRAM_BYTES })

export interface DatagramSocketOptions {
  /** An address may have a zone (%eth0). */
  local: string
  peer: string
  /** The same on both sides. */
  port: number
  receiveBufferBytes: number
  /** A datagram, cut at 2048 bytes, and whether it came from the peer's address, whatever its port. */
  receive: (bytes: Buffer, from: 'peer' | 'stranger') => void
  /** It is of no use any more and was closed. */
  failed: (fault: KernelError) => void
}

export class DatagramSocket {
  readonly #options: DatagramSocketOptions
  readonly #to: Buffer
  #open: { fd: number; watch: { close: () => void } } | null

  /** @throws KernelError where the address is not there, or taken */
  constructor(options: DatagramSocketOptions) {
    const { local, peer, port, receiveBufferBytes } = options
    this.#options = options
    this.#to = socketAddress(peer, port)
    const address = socketAddress(local, port)
    const domain = address.readUInt16LE(0)
    const fd = openSocket({ domain, type: SOCK_DGRAM, protocol: 0 })
    try {
      if (domain === AF_INET6) setOption(fd, { level: IPPROTO_IPV6, name: IPV6_V6ONLY, value: 1 })
      forceReceiveBuffer(fd, receiveBufferBytes)
      bindSocket(fd, address)
    } catch (fault) {
      closeFd(fd)
      throw fault
    }
    this.#open = { fd, watch: koffi.node.poll(fd, { readable: true }, () => this.#readable()) }
  }

  /** Without waiting. Returns 0 or the errno: a link that is down, a refusal by the firewall. */
  send(packet: Buffer): number {
    return this.#open === null ? 0 : trySend(this.#open.fd, packet, this.#to)
  }

  close(): void {
    if (this.#open === null) return
    const { fd, watch } = this.#open
    this.#open = null
    watch.close()
    closeFd(fd)
  }

  #readable(): void {
    if (this.#open === null) return
    const count = room.receive(this.#open.fd)
    if (count < 0) {
      if (count === -EAGAIN) return
      this.close()
      this.#options.failed(new KernelError('receive datagrams', -count))
      return
    }
    const datagrams = Array.from({ length: count }, (_, index) => {
      const { bytes, length, from } = room.datagram(index)
      return { bytes: Buffer.from(bytes.subarray(0, length)), from: sameHost(from, this.#to) }
    })
    // Whoever receives one may close this socket, or open another one.
    for (const { bytes, from } of datagrams) if (this.#open !== null) this.#options.receive(bytes, from)
  }
}

/** sockaddr_in or sockaddr_in6 (ip(7), ipv6(7)). */
function socketAddress(address: string, port: number): Buffer {
  const [plain = '', zone] = address.split('%')
  const isIpv4 = familyOf(plain) === 4
  const bytes = Buffer.alloc(isIpv4 ? 16 : 28)
  bytes.writeUInt16LE(isIpv4 ? AF_INET : AF_INET6, 0)
  bytes.writeUInt16BE(port, 2)
  addressBytes(plain).copy(bytes, isIpv4 ? 4 : 8)
  if (zone !== undefined) bytes.writeUInt32LE(interfaceIndex(zone), 24)
  return bytes
}

/** Family and address; a link-local one is of the link that this socket is on. */
function sameHost(one: Buffer, other: Buffer): 'peer' | 'stranger' {
  const isIpv4 = other.length === 16
  const [start, end] = isIpv4 ? [4, 8] : [8, 24]
  const same = one.readUInt16LE(0) === other.readUInt16LE(0) && one.compare(other, start, end, start, end) === 0
  return same ? 'peer' : 'stranger'
}
