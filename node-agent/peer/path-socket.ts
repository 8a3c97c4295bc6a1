import { DatagramSocket } from '../kernel/udp-socket.ts'

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
  readonly #receive: (bytes: Buffer, from: 'peer' | 'stranger') => void
  #socket: DatagramSocket | null = null
  #timer: NodeJS.Timeout | null = null

  constructor(config: PathConfig, receive: (bytes: Buffer, from: 'peer' | 'stranger') => void) {
    this.config = config
    this.#receive = receive
    this.#open()
  }

  send(packet: Buffer): void {
    if (this.#socket !== null && this.#socket.send(packet) !== 0) this.sendFaults++
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#socket?.close()
    this.#socket = null
    this.fault = 'closed'
  }

  #open(): void {
    this.#timer = null
    const { localAddress, peerAddress, port } = this.config
    try {
      this.#socket = new DatagramSocket({
        local: localAddress,
        peer: peerAddress,
        port,
        receiveBufferBytes,
        receive: this.#receive,
        failed: fault => this.#failed(fault),
      })
      this.fault = null
    } catch (fault) {
      if (!(fault instanceof Error)) throw fault
      this.#failed(fault)
    }
  }

  #failed(fault: Error): void {
    this.#socket = null
    this.fault = fault.message
    this.#timer = setTimeout(() => this.#open(), rebindMs)
  }
}
