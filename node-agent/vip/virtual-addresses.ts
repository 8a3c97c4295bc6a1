/**
 * The virtual addresses of this host: held only while it serves, never written to any configuration, so that a host
 * that boots has none before it has asked the register.
 */
import { familyOf, sameAddress } from '../kernel/address.ts'
import { keepingOthers } from '../kernel/removing-first.ts'
import { RouteSocket } from '../kernel/rtnetlink.ts'
import { type Announced, AnnouncementSender, Announcer } from './announce.ts'

export type VirtualAddress = {
  iface: string
  address: string
  /** Default 32 or 128: the subnet's own address of the host carries the route. */
  prefixLength?: number
}

export class VirtualAddresses {
  readonly #route = new RouteSocket()
  readonly #sender = new AnnouncementSender()
  readonly #announcer = new Announcer(vip => this.#sender.announce(vip))
  readonly #vips: readonly Required<VirtualAddress>[]
  #withheld: ReadonlySet<string> = new Set()

  constructor(vips: readonly VirtualAddress[]) {
    this.#vips = vips.map(vip => ({ prefixLength: familyOf(vip.address) === 4 ? 32 : 128, ...vip }))
  }

  /** These are left alone from now on: neither added nor announced, and not missed. */
  withhold(addresses: ReadonlySet<string>): void {
    this.#withheld = addresses
  }

  /** Adds what is missing; idempotent. IPv6 addresses go when a link goes down, so this is called again and again. */
  add(): { added: string[] } {
    const added = this.#claimed.filter(vip => this.#route.addAddress(vip) === 'added')
    return { added: added.map(vip => vip.address) }
  }

  /** Removes them all and ends the announcements; idempotent. */
  remove(): { removed: string[] } {
    this.#announcer.cancel()
    const isRemoved = (vip: Required<VirtualAddress>) => this.#route.removeAddress(vip) === 'removed'
    // The host's own address may have come after this one.
    const removed = this.#vips.filter(vip =>
      familyOf(vip.address) === 4 ? keepingOthers(vip.iface, () => isRemoved(vip)) : isRemoved(vip),
    )
    return { removed: removed.map(vip => vip.address) }
  }

  /** Those that are not on their interface. */
  missing(): string[] {
    const held = new Map([...new Set(this.#vips.map(vip => vip.iface))].map(i => [i, this.#route.addresses(i)]))
    const isHeld = (vip: VirtualAddress) => held.get(vip.iface)?.some(h => sameAddress(h.address, vip.address)) === true
    return this.#claimed.filter(vip => !isHeld(vip)).map(vip => vip.address)
  }

  /** Begins a round of announcements, the first at once. After the gate was opened: before, the kernel stops them. */
  announce(nowMs: number): { failed: number } {
    return this.#announcer.start(this.#announced(), nowMs)
  }

  /** Sends the announcements that are due; for the agent's tick. */
  tick(nowMs: number): { failed: number } {
    return this.#announcer.tick(nowMs)
  }

  /** When the gate shuts. */
  cancelAnnouncements(): void {
    this.#announcer.cancel()
  }

  close(): void {
    this.#announcer.cancel()
    this.#sender.close()
    this.#route.close()
  }

  get #claimed(): readonly Required<VirtualAddress>[] {
    return this.#vips.filter(vip => !this.#withheld.has(vip.address))
  }

  #announced(): Announced[] {
    return this.#claimed.flatMap(({ iface, address }) => {
      const link = this.#route.link(iface)
      return link === undefined ? [] : [{ iface, address, mac: link.mac }]
    })
  }
}
