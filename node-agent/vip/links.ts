/**
 * The uplink, as this host sees it: is the carrier there, and does the gateway answer? Asked by the agent's tick,
 * without waiting: what is sent in one tick is read in a later one.
 */
import { contains, parseAddress, parsePrefix } from '../../shared/ip.ts'
import { addressBytes, familyOf } from '../kernel/address.ts'
import { ETH_P_ARP, ETH_P_IPV6, PacketSocket } from '../kernel/packet.ts'
import { RouteEvents } from '../kernel/route-events.ts'
import type { Link, RouteSocket } from '../kernel/rtnetlink.ts'
import { arpRequest, neighbourSolicitation, readArp, readNeighbour } from './frames.ts'
import { NEIGHBOUR_FILTER } from './probe.ts'

/**
 * no-carrier and no-interface are certain; silent: the gateway answered before and does not any more; unknown: nothing to
 * go by, such as a gateway that never answered.
 */
export type UplinkState = 'reachable' | 'silent' | 'no-carrier' | 'no-interface' | 'unknown'

/** The gateway is asked this often; a missed answer or two are no reason to hand over. */
export const GATEWAY_ASK_EVERY_MS = 500
/** So many askings in a row without an answer make it silent. */
export const GATEWAY_SILENT_AFTER_MS = 2000
/** The kernel tells of links, addresses and routes that change; without a word what was read counts for so long. */
const READ_ANYWAY_MS = 5000
/** A flood of ARP must not hold the loop up. */
const MAX_FRAMES_PER_TICK = 64

export type UplinkReading = { state: UplinkState; gateway: string | undefined; answeredMs: number | undefined }

/** One instance an interface. All times are the caller's, of one monotonic clock. */
export class Uplink {
  readonly #route: RouteSocket
  readonly #iface: string
  readonly #wanted: string | undefined
  #events: RouteEvents | undefined
  #read: { atMs: number; link: Link | undefined; towards: Map<string, string | undefined> } | undefined
  #socket: PacketSocket | undefined
  #askedMs = -Infinity
  #gateway: string | undefined
  #gatewayBytes: Buffer = Buffer.alloc(0)
  #gatewaySinceMs = 0
  #answeredMs: number | undefined
  /** The gateway that has answered once: its silence means something. */
  #proven: string | undefined

  /** `gateway`: default is the IPv4 default gateway over that interface. */
  constructor(options: { route: RouteSocket; iface: string; gateway?: string }) {
    this.#route = options.route
    this.#iface = options.iface
    this.#wanted = options.gateway
  }

  tick(nowMs: number): UplinkReading {
    const { link } = this.#readAgain(nowMs)
    if (link === undefined || !link.carrier) {
      this.#forget()
      return this.#reading(link === undefined ? 'no-interface' : 'no-carrier')
    }
    this.#listen(nowMs)
    if (nowMs - this.#askedMs >= GATEWAY_ASK_EVERY_MS) this.#ask(link.mac, nowMs)
    if (this.#gateway === undefined) return this.#reading('unknown')
    const quietMs = nowMs - Math.max(this.#answeredMs ?? 0, this.#gatewaySinceMs)
    if (quietMs >= GATEWAY_SILENT_AFTER_MS) return this.#reading(this.#proven === this.#gateway ? 'silent' : 'unknown')
    return this.#reading(this.#answeredMs === undefined ? 'unknown' : 'reachable')
  }

  close(): void {
    this.#forget()
    this.#events?.close()
  }

  /** Asked of the kernel five times a second it would be half of what this takes. */
  #readAgain(nowMs: number): { link: Link | undefined; towards: Map<string, string | undefined> } {
    // Listened to before anything is read, so that no change falls between the two.
    this.#events ??= new RouteEvents()
    const changed = this.#events.changed()
    if (this.#read === undefined || changed || nowMs - this.#read.atMs >= READ_ANYWAY_MS)
      this.#read = { atMs: nowMs, link: this.#route.link(this.#iface), towards: new Map() }
    return this.#read
  }

  #ask(mac: string, nowMs: number): void {
    this.#askedMs = nowMs
    const gateway = this.#wanted ?? this.#route.defaultGateway(this.#iface)
    const own = gateway === undefined ? undefined : this.#addressTowards(gateway)
    if (gateway !== this.#gateway) {
      this.#gateway = gateway
      this.#gatewayBytes = gateway === undefined ? Buffer.alloc(0) : addressBytes(gateway)
      this.#gatewaySinceMs = nowMs
      this.#answeredMs = undefined
    }
    if (gateway === undefined || own === undefined) return
    const question = { mac, from: own, target: gateway }
    if (familyOf(gateway) === 4) {
      this.#socket ??= new PacketSocket({ iface: this.#iface, etherType: ETH_P_ARP })
      this.#socket.send(arpRequest(question))
    } else {
      this.#socket ??= new PacketSocket({ iface: this.#iface, etherType: ETH_P_IPV6, filter: NEIGHBOUR_FILTER })
      this.#socket.send(neighbourSolicitation(question))
    }
  }

  /** An address of ours in the gateway's subnet; never a virtual one (/32), from which only a serving host may speak. */
  #addressTowards(gateway: string): string | undefined {
    const known = this.#read?.towards
    if (known?.has(gateway) === true) return known.get(gateway)
    const found = this.#findAddress(gateway)
    known?.set(gateway, found)
    return found
  }

  #findAddress(gateway: string): string | undefined {
    const wanted = parseAddress(gateway)
    if (wanted === null) return undefined
    const own = this.#route.addresses(this.#iface).find(({ address, prefixLength }) => {
      const subnet = parsePrefix(`${address}/${prefixLength}`)
      if (subnet === null || prefixLength === 0 || prefixLength >= (subnet.family === 4 ? 32 : 128)) return false
      return contains(subnet, wanted)
    })
    return own?.address
  }

  /** Anything the gateway says counts, an answer to somebody else or a question of its own too. */
  #listen(nowMs: number): void {
    if (this.#socket === undefined || this.#gateway === undefined) return
    for (let i = 0; i < MAX_FRAMES_PER_TICK; i++) {
      const frame = this.#socket.receive()
      if (frame === undefined) return
      if (!speaks(frame, this.#gatewayBytes)) continue
      this.#answeredMs = nowMs
      this.#proven = this.#gateway
    }
  }

  /** A socket whose link went down reports that once and is of no more use. */
  #forget(): void {
    this.#socket?.close()
    this.#socket = undefined
    this.#askedMs = -Infinity
    this.#gateway = undefined
    this.#answeredMs = undefined
  }

  #reading(state: UplinkState): UplinkReading {
    return { state, gateway: this.#gateway, answeredMs: this.#answeredMs }
  }
}

/** An advertisement need not come from the address that it is about (RFC 4861, 4.4). */
function speaks(frame: Buffer, wanted: Buffer): boolean {
  if (wanted.length === 4) return readArp(frame)?.senderIp.equals(wanted) === true
  const heard = readNeighbour(frame)
  if (heard === undefined) return false
  return heard.senderIp.equals(wanted) || (heard.kind === 'advertisement' && heard.target.equals(wanted))
}
