/**
 * Carries frames from one port of the fabric to another, late: what netem does where the kernel has it. The bridge drops
 * the same direction meanwhile (fabric-faults.ts), so that a frame arrives once.
 *
 * Runs in the fabric's namespace: `slow-wire.ts JSON`, JSON an array of {@link WireSpec}. Needs CAP_NET_RAW.
 * packet(7): PACKET_VNET_HDR keeps checksum and segmentation offload of a frame intact over receive and send.
 */

import koffi from 'koffi'

export interface WireSpec {
  fromPort: string
  toPort: string
  /** Hardware address behind `toPort`, as 02:00:00:00:00:01. */
  toAddress: string
  delayMs: number
  jitterMs: number
  duplicatePerMille: number
  lossPerMille: number
}

const AF_PACKET = 17
const SOCK_RAW = 3
const SOL_PACKET = 263
const PACKET_VNET_HDR = 15
const PACKET_IGNORE_OUTGOING = 23
const MSG_DONTWAIT = 0x40
/** ETH_P_ALL in network byte order. */
const ALL_PROTOCOLS = 0x0300
const VNET_HEADER_BYTES = 10
/** The largest frame with segmentation offload, and the header before it. */
const FRAME_LIMIT_BYTES = 65_550 + VNET_HEADER_BYTES
/** At 200 ms delay this is 50 000 frames a second, more than one thread can carry; beyond it frames are lost. */
const QUEUE_LIMIT = 10_000
/** Frames taken from one port in one turn, so that a flood on one port does not starve the others. */
const BURST_LIMIT = 256
const POLL_MS = 1

const libc = koffi.load('libc.so.6')
const nameToIndex = libc.func('uint32_t if_nametoindex(const char *)')
const socket = libc.func('int socket(int, int, int)')
const bind = libc.func('int bind(int, const void *, uint32_t)')
const setsockopt = libc.func('int setsockopt(int, int, int, const void *, uint32_t)')
const recv = libc.func('long recv(int, void *, size_t, int)')
const send = libc.func('long send(int, const void *, size_t, int)')

interface Due {
  atMs: number
  frame: Buffer
  spec: WireSpec
}

function openPort(port: string, options: { receive: boolean }): number {
  const index: number = nameToIndex(port)
  if (index === 0) throw new Error(`There is no port ${port} in this network namespace.`)
  const fd: number = socket(AF_PACKET, SOCK_RAW, 0)
  if (fd < 0) throw new Error(`No packet socket for ${port}: the slow wire needs root.`)
  const one = Buffer.alloc(4)
  one.writeInt32LE(1)
  for (const option of [PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING]) setsockopt(fd, SOL_PACKET, option, one, 4)
  const address = Buffer.alloc(20)
  address.writeUInt16LE(AF_PACKET, 0)
  address.writeUInt16LE(options.receive ? ALL_PROTOCOLS : 0, 2)
  address.writeInt32LE(index, 4)
  if (bind(fd, address, address.length) !== 0) throw new Error(`The packet socket could not be bound to ${port}.`)
  return fd
}

function isFor(spec: WireSpec, frame: Buffer): boolean {
  const toGroup = (frame[VNET_HEADER_BYTES]! & 1) === 1
  return toGroup || frame.subarray(VNET_HEADER_BYTES, VNET_HEADER_BYTES + 6).toString('hex') === spec.toAddress
}

function carry(specs: readonly WireSpec[]): void {
  const receivers = new Map(specs.map(spec => [spec.fromPort, openPort(spec.fromPort, { receive: true })]))
  const senders = new Map(specs.map(spec => [spec.toPort, openPort(spec.toPort, { receive: false })]))
  const plain = specs.map(spec => ({ ...spec, toAddress: spec.toAddress.replaceAll(':', '') }))
  const queue: Due[] = []
  const buffer = Buffer.alloc(FRAME_LIMIT_BYTES)

  const enqueue = (due: Due): void => {
    if (queue.length >= QUEUE_LIMIT) return
    let position = queue.length
    while (position > 0 && queue[position - 1]!.atMs > due.atMs) position -= 1
    queue.splice(position, 0, due)
  }
  const take = (spec: WireSpec, frame: Buffer): void => {
    if (Math.random() * 1000 < spec.lossPerMille) return
    const copies = Math.random() * 1000 < spec.duplicatePerMille ? 2 : 1
    for (let copy = 0; copy < copies; copy += 1) {
      const lateMs = spec.delayMs + (Math.random() * 2 - 1) * spec.jitterMs
      enqueue({ atMs: performance.now() + lateMs, frame, spec })
    }
  }
  setInterval(() => {
    for (const [port, fd] of receivers) {
      for (let count = 0; count < BURST_LIMIT; count += 1) {
        const length = Number(recv(fd, buffer, buffer.length, MSG_DONTWAIT))
        if (length <= VNET_HEADER_BYTES) break
        const frame = Buffer.from(buffer.subarray(0, length))
        for (const spec of plain) if (spec.fromPort === port && isFor(spec, frame)) take(spec, frame)
      }
    }
    const now = performance.now()
    while (queue.length > 0 && queue[0]!.atMs <= now) {
      const { frame, spec } = queue.shift()!
      // A full or vanished port loses the frame, as a wire would.
      send(senders.get(spec.toPort)!, frame, frame.length, MSG_DONTWAIT)
    }
  }, POLL_MS)
}

if (import.meta.main) {
  carry(JSON.parse(process.argv[2] ?? '[]') as WireSpec[])
  process.stdout.write('carrying\n')
}
