/** Asks the network whether an address is in use, without claiming it: RFC 5227 for IPv4, RFC 4862 (5.4) for IPv6. */
import { setTimeout as sleep } from 'node:timers/promises'
import { addressBytes, familyOf } from '../kernel/address.ts'
import { monotonicMs } from '../kernel/clock.ts'
import type { FilterInstruction } from '../kernel/libc.ts'
import { ETH_P_ARP, ETH_P_IPV6, PacketSocket } from '../kernel/packet.ts'
import { arpProbe, duplicateSolicitation, readArp, readNeighbour } from './frames.ts'

export type ProbeResult =
  | { kind: 'free' }
  | { kind: 'taken'; mac: string }
  /** Nothing could be sent: no answer means nothing. */
  | { kind: 'unknown'; why: string }

/** Three probes within the window; the RFC's seconds are for hosts without a hurry and without a register. */
const PROBE_COUNT = 3
export const PROBE_WINDOW_MS = 300
/** Longer than this nobody waits for a probe; the caller's window is cut to it. */
const MAX_PROBE_WINDOW_MS = 10_000
/** How often the socket is looked at. */
const LOOK_EVERY_MS = 5
/** A flood of frames must not hold the loop up. */
const MAX_FRAMES_PER_LOOK = 64
/** What waited while nobody was asked is dropped; a flood goes on in any case. */
const MAX_FRAMES_MEANWHILE = 1024

/** ICMPv6 neighbour solicitations and advertisements only: next header at 20, type at 54. */
export const NEIGHBOUR_FILTER: readonly FilterInstruction[] = [
  [0x30, 0, 0, 20],
  [0x15, 0, 4, 58],
  [0x30, 0, 0, 54],
  [0x15, 1, 0, 135],
  [0x15, 0, 1, 136],
  [0x06, 0, 0, 0xffff],
  [0x06, 0, 0, 0],
]

/** Probes for `windowMs` at the most; returns as soon as somebody answers. Never blocks the loop. */
export async function probe(options: {
  iface: string
  mac: string
  address: string
  windowMs?: number
  /** Whoever probes for it as well counts as its holder: before a claim, not while it is held. Default: yes. */
  othersProbes?: 'count' | 'ignored'
  /** Whoever answers is asked once more so long after, and counts if he answers then too: not who announces it in passing. */
  confirmAfterMs?: number
  signal?: AbortSignal
}): Promise<ProbeResult> {
  const { iface, mac, address, confirmAfterMs, signal } = options
  const windowMs = Math.min(options.windowMs ?? PROBE_WINDOW_MS, MAX_PROBE_WINDOW_MS)
  const isIpv4 = familyOf(address) === 4
  const frame = isIpv4 ? arpProbe(mac, address) : duplicateSolicitation(mac, address)
  const socket = isIpv4
    ? new PacketSocket({ iface, etherType: ETH_P_ARP })
    : new PacketSocket({ iface, etherType: ETH_P_IPV6, filter: NEIGHBOUR_FILTER })
  const asking = { mac, address, othersProbes: options.othersProbes ?? 'count', frame, windowMs, signal }
  try {
    const first = await ask(socket, asking)
    if (first.kind !== 'taken' || confirmAfterMs === undefined) return first
    await sleep(confirmAfterMs, undefined, { signal })
    for (let i = 0; i < MAX_FRAMES_MEANWHILE && socket.receive() !== undefined; i++);
    return await ask(socket, asking)
  } finally {
    socket.close()
  }
}

async function ask(
  socket: PacketSocket,
  { frame, windowMs, signal, ...sought }: Sought & { frame: Buffer; windowMs: number; signal: AbortSignal | undefined },
): Promise<ProbeResult> {
  const startMs = monotonicMs()
  for (let sent = 0; monotonicMs() - startMs < windowMs; await sleep(LOOK_EVERY_MS, undefined, { signal })) {
    if (sent < PROBE_COUNT && monotonicMs() - startMs >= (sent * windowMs) / PROBE_COUNT) {
      const errno = socket.send(frame)
      const what = `The probe for ${sought.address} on ${socket.iface}`
      if (errno !== 0) return { kind: 'unknown', why: `${what} failed: errno ${errno}.` }
      sent++
    }
    const holder = findHolder(socket, sought)
    if (holder !== undefined) return { kind: 'taken', mac: holder }
  }
  // The window may have ended while this process waited for a processor: what was answered meanwhile lies in the socket.
  const holder = findHolder(socket, sought)
  return holder === undefined ? { kind: 'free' } : { kind: 'taken', mac: holder }
}

interface Sought {
  mac: string
  address: string
  othersProbes: 'count' | 'ignored'
}

function findHolder(socket: PacketSocket, own: Sought): string | undefined {
  const wanted = addressBytes(own.address)
  for (let i = 0; i < MAX_FRAMES_PER_LOOK; i++) {
    const frame = socket.receive()
    if (frame === undefined) return undefined
    const found = wanted.length === 4 ? arpHolder(frame, wanted) : neighbourHolder(frame, wanted)
    const holder = found?.wantsIt && own.othersProbes === 'ignored' ? undefined : found?.mac
    if (holder !== undefined && holder !== own.mac.toLowerCase()) return holder
  }
  return undefined
}

/** `wantsIt`: it probes, and does not have it yet. */
interface Holder {
  mac: string
  wantsIt: boolean
}

/** Whoever speaks from the address has it; whoever probes for it too wants it (RFC 5227, 2.1.1). */
function arpHolder(frame: Buffer, wanted: Buffer): Holder | undefined {
  const packet = readArp(frame)
  if (packet === undefined) return undefined
  const speaks = packet.senderIp.equals(wanted)
  const probes =
    packet.operation === 'request' && packet.senderIp.readUInt32BE() === 0 && packet.targetIp.equals(wanted)
  return speaks || probes ? { mac: packet.senderMac, wantsIt: !speaks } : undefined
}

function neighbourHolder(frame: Buffer, wanted: Buffer): Holder | undefined {
  const packet = readNeighbour(frame)
  if (packet === undefined) return undefined
  const advertises = packet.kind === 'advertisement' && packet.target.equals(wanted)
  const fromNobody = packet.senderIp.every(byte => byte === 0)
  const wantsToo = packet.kind === 'solicitation' && fromNobody && packet.target.equals(wanted)
  return advertises || wantsToo ? { mac: packet.senderMac, wantsIt: !advertises } : undefined
}
