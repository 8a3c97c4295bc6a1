import { createSocket, type Socket } from 'node:dgram'
import { isIPv6 } from 'node:net'

/** One way to the other host. Both ends use the same port. */
export interface PathConfig {
  localAddress: string
  peerAddress: string
  port: number
}

/** An address may come later (a link that is down, duplicate address detection): tried again this often. */
const rebindMs = 1000
/** What the kernel keeps while this process has no time: about five seconds of the busiest traffic. */
const receiveBufferBytes = 512 * 1024

/**
 * The socket of one path, opened again for ever while it can't be had. Nothing else shares its fate: a path whose
 * address is missing is only a path that hears nothing.
 */
export class PathSocket {
  readonly config: PathConfig
  /** Why it is not open, null = it is. */
  fault: string | null = 'not opened yet'
  sendFaults = 0
  readonly #receive: (bytes: Buffer, from: string) => void
  #socket: Socket | null = null
  #timer: NodeJS.Timeout | null = null
  #closed = false

  constructor(config: PathConfig, receive: (bytes: Buffer, from: string) => void) {
    this.config = config
    this.#receive = receive
    this.#open()
  }

  send(packet: Buffer): void {
    if (this.#socket === null || this.fault !== null) return
    this.#socket.send(packet, this.config.port, this.config.peerAddress, fault => {
      if (fault !== null) this.sendFaults++
    })
  }

  close(): void {
    this.#closed = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#drop('closed')
  }

  #open(): void {
    this.#timer = null
    const { localAddress, port } = this.config
    const type = isIPv6(localAddress.split('%')[0] ?? '') ? 'udp6' : 'udp4'
    const family = type === 'udp4' ? 4 : 6
    const socket = createSocket({
      type,
      ipv6Only: type === 'udp6',
      recvBufferSize: receiveBufferBytes,
      // Addresses here are addresses. Node's own lookup answers in a later turn even then, and the packet would leave after
      // whatever else this step does: 15 ms of killing a database, for one.
      lookup: (address, _options, found) => found(null, address, family),
    })
    this.#socket = socket
    socket.on('error', fault => this.#failed(socket, fault))
    socket.on('message', (bytes, from) => this.#receive(bytes, from.address))
    socket.bind({ address: localAddress, port, exclusive: true }, () => {
      if (this.#socket === socket) this.fault = null
    })
  }

  #failed(socket: Socket, fault: Error): void {
    if (this.#socket !== socket || this.#closed) return
    this.#drop(fault.message)
    this.#timer = setTimeout(() => this.#open(), rebindMs)
  }

  #drop(why: string): void {
    this.fault = why
    const socket = this.#socket
    this.#socket = null
    try {
      socket?.close()
    } catch {
      // It never came to be open.
    }
  }
}

/** True for the configured peer; a link-local address carries its interface only on one of the two sides. */
export function sameAddress(one: string, other: string): boolean {
  if (one === other) return true
  const [a, b] = [one.split('%'), other.split('%')]
  return a[0]?.toLowerCase() === b[0]?.toLowerCase() && (a.length === 1 || b.length === 1)
}
