/**
 * Announcements of the virtual addresses: gratuitous ARP and unsolicited neighbour advertisements, repeated, because a
 * switch or a neighbour may miss one and nothing acknowledges them.
 */
import { familyOf } from '../kernel/address.ts'
import { ENODEV, ENXIO, KernelError } from '../kernel/libc.ts'
import { PacketSocket } from '../kernel/packet.ts'
import { gratuitousArp, unsolicitedAdvertisement } from './frames.ts'

/** When to announce, counted from the start: at once, then ever rarer, for as long as a slow switch may learn. */
export const ANNOUNCE_AT_MS = [0, 100, 500, 1000, 2000, 5000, 10_000] as const

/** Where a round of announcements stands. Pure: time comes in with each question. */
export type AnnounceRound = { startedMs: number; sent: number }

/**
 * Whether an announcement is due at `nowMs`, and the round after it. One that was missed is not made up for: several
 * at once tell a neighbour no more than one.
 */
export function dueAnnouncement(
  round: AnnounceRound,
  nowMs: number,
): { due: boolean; round: AnnounceRound | undefined } {
  const elapsedMs = nowMs - round.startedMs
  const passed = ANNOUNCE_AT_MS.filter(atMs => atMs <= elapsedMs).length
  if (passed <= round.sent) return { due: false, round }
  return { due: true, round: passed === ANNOUNCE_AT_MS.length ? undefined : { ...round, sent: passed } }
}

export type Announced = { iface: string; mac: string; address: string }

/** Announces addresses, with one socket for each interface: closing one takes the kernel 20 ms. */
export class AnnouncementSender {
  readonly #sockets = new Map<string, PacketSocket>()

  /** Sends one announcement now. Returns 0, or the errno of the first frame that could not be sent. */
  announce(vip: Announced): number {
    const isIpv4 = familyOf(vip.address) === 4
    const frames = isIpv4 ? gratuitousArp(vip.mac, vip.address) : [unsolicitedAdvertisement(vip.mac, vip.address)]
    for (const frame of frames) {
      const errno = this.#send(vip.iface, frame)
      if (errno !== 0) return errno
    }
    return 0
  }

  close(): void {
    for (const socket of this.#sockets.values()) socket.close()
    this.#sockets.clear()
  }

  #send(iface: string, frame: Buffer): number {
    try {
      // Not bound to a protocol: the socket sends, and the kernel has no copies to deliver to it.
      const socket = this.#sockets.get(iface) ?? new PacketSocket({ iface, etherType: 0 })
      this.#sockets.set(iface, socket)
      const errno = socket.send(frame)
      // An interface that was made anew has another number; the socket is bound to the old one.
      if (errno === ENXIO || errno === ENODEV) this.#drop(iface)
      return errno
    } catch (error) {
      if (error instanceof KernelError) return error.errno
      throw error
    }
  }

  #drop(iface: string): void {
    this.#sockets.get(iface)?.close()
    this.#sockets.delete(iface)
  }
}

/** Repeats announcements by the schedule; `tick` is called by the agent's loop, `cancel` at once when the gate shuts. */
export class Announcer {
  readonly #announce: (vip: Announced) => number
  #vips: readonly Announced[] = []
  #round: AnnounceRound | undefined

  /** `announce` sends one announcement and returns 0 or an errno. */
  constructor(announce: (vip: Announced) => number) {
    this.#announce = announce
  }

  /** Begins anew, with the first announcement at once. At each opening of the gate, thaws included. */
  start(vips: readonly Announced[], nowMs: number): { failed: number } {
    this.#vips = vips
    this.#round = { startedMs: nowMs, sent: 0 }
    return this.tick(nowMs)
  }

  /** Sends what is due. `failed`: how many addresses could not be announced (link down, gate shut). */
  tick(nowMs: number): { failed: number } {
    if (this.#round === undefined) return { failed: 0 }
    const { due, round } = dueAnnouncement(this.#round, nowMs)
    this.#round = round
    return { failed: due ? this.#vips.filter(vip => this.#announce(vip) !== 0).length : 0 }
  }

  cancel(): void {
    this.#round = undefined
  }

  get active(): boolean {
    return this.#round !== undefined
  }
}
