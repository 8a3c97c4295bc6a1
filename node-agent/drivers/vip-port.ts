import type { Config } from '../config.ts'
import { bootMs } from '../kernel/clock.ts'
import { KernelError } from '../kernel/libc.ts'
import { RouteEvents } from '../kernel/route-events.ts'
import { RouteSocket } from '../kernel/rtnetlink.ts'
import type { ClientConnection, VipPort, VipState } from '../ports.ts'
import { readClaimed, writeClaimed } from '../vip/claimed-file.ts'
import { ClientList } from '../vip/client-list.ts'
import { ConnectionCount } from '../vip/connection-count.ts'
import { Connections } from '../vip/connections.ts'
import { type ProbeResult, probe } from '../vip/probe.ts'
import { tickle } from '../vip/tickle.ts'
import { VirtualAddresses } from '../vip/virtual-addresses.ts'
import { addressOf, lengthOf } from './host-addresses.ts'

/**
 * Addresses that are lost while they should be there are put back at once: a link that went down takes IPv6 ones along, the
 * host's own address those of its segment that came after it. Where that does not last, not more often than this.
 */
const restoreEveryMs = 1000
/** The kernel tells of addresses that come and go; without a word they are looked at all the same. */
const restoreAnywayMs = 10_000
/** How often the network is asked whether somebody else has taken an address that is here. */
const askEveryMs = 60_000
/**
 * Who takes the addresses over announces them for a second while this host still has them. A stranger answers after that,
 * too, and to a host that has them still.
 */
const askAgainAfterMs = 1200

export class VipDriver implements VipPort {
  readonly #config: Config
  readonly #addresses: VirtualAddresses
  readonly #connections = new Connections()
  readonly #clients: ClientList<ClientConnection>
  readonly #route = new RouteSocket()
  readonly #conflicts = new Map<string, string>()
  #wanted = false
  /** Grows whenever the addresses become this host's or cease to be: what was asked before says nothing then. */
  #tenure = 0
  readonly #events = new RouteEvents()
  #checkedAt = 0
  /** Some were missing. */
  #missedAt = Number.NEGATIVE_INFINITY
  /** All of them were there. */
  #seenAt = Number.NEGATIVE_INFINITY
  #askedAt = 0
  /** Not put up, since somebody else had them when they were new here. */
  readonly #withheld = new Set<string>()
  #tell: (why: string) => void = () => {}
  /** Nobody waits for an answer of the network any more. */
  readonly #closed = new AbortController()

  constructor(config: Config) {
    this.#config = config
    const vips = config.vips.map(vip => ({
      iface: vip.interface,
      address: addressOf(vip.address),
      prefixLength: lengthOf(vip.address),
    }))
    this.#addresses = new VirtualAddresses(vips)
    const count = new ConnectionCount()
    this.#clients = new ClientList({ list: () => this.#listClients(), count: () => count.read() })
  }

  /**
   * The network is asked about addresses that the configuration names for the first time, before this host claims them;
   * only a primary is about to. On a backup they are the primary's, and a takeover waits for no answer.
   */
  async prepare({ isPrimary }: { isPrimary: boolean }): Promise<void> {
    const { stateDir } = this.#config
    const claimed = readClaimed(stateDir)
    if (isPrimary && claimed !== null) {
      const missing = this.#addresses.missing()
      const fresh = this.#config.vips.filter(vip => {
        const address = addressOf(vip.address)
        return !claimed.includes(address) && missing.includes(address)
      })
      await Promise.all(fresh.map(vip => this.#askBeforeClaim(vip.interface, addressOf(vip.address))))
    }
    if (isPrimary || claimed === null) await this.#noteClaimed(claimed)
  }

  async #askBeforeClaim(iface: string, address: string): Promise<void> {
    const result = await this.#ask(iface, address)
    if (result.kind !== 'taken') return
    this.#conflicts.set(address, result.mac)
    this.#withheld.add(address)
    this.#addresses.withhold(this.#withheld)
  }

  /** What this host may put up without asking from now on. */
  async #noteClaimed(before: readonly string[] | null): Promise<void> {
    const now = this.#vips().filter(address => !this.#withheld.has(address))
    if (JSON.stringify(now) === JSON.stringify(before)) return
    try {
      await writeClaimed(this.#config.stateDir, now)
    } catch (error) {
      // At worst the network is asked once more.
      this.#tell(`the claimed addresses could not be noted: ${error instanceof Error ? error.message : String(error)}`)
    }
  }

  up(): void {
    if (!this.#wanted) this.#tenure += 1
    this.#wanted = true
    this.#guarded('put the addresses up', () => {
      if (this.#addresses.add().added.length > 0) void this.#askBeside()
    })
  }

  down(): void {
    this.#wanted = false
    this.#tenure += 1
    // Whoever has them now: it is not this host's affair any more. What was not put up is still asked for before it is.
    for (const address of this.#conflicts.keys()) if (!this.#withheld.has(address)) this.#conflicts.delete(address)
    this.#guarded('remove the addresses', () => {
      // Before the address goes: a reset needs it as its source.
      this.#connections.destroy({
        addresses: this.#vips(),
        ports: this.#config.protectedPorts,
        exceptRemote: this.#peers(),
      })
      this.#addresses.remove()
    })
  }

  announce(): void {
    this.#guarded('announce the addresses', () => this.#addresses.announce(bootMs()))
  }

  tick(nowMs: number): void {
    this.#guarded('announce the addresses', () => this.#addresses.tick(nowMs))
    this.#guarded('hear of changed addresses', () => {
      if (this.#events.changed()) this.#seenAt = Number.NEGATIVE_INFINITY
    })
    if (!this.#wanted) return
    if (nowMs - this.#checkedAt >= restoreEveryMs) {
      this.#checkedAt = nowMs
      this.#guarded('put a freed address up', () => this.#claimFreed())
      if (nowMs - this.#askedAt > askEveryMs) void this.#askBeside()
    }
    if (nowMs - this.#seenAt < restoreAnywayMs || nowMs - this.#missedAt < restoreEveryMs) return
    this.#guarded('put a lost address back', () => {
      this.#missedAt = nowMs
      if (this.#addresses.missing().length === 0) {
        this.#seenAt = nowMs
        this.#missedAt = Number.NEGATIVE_INFINITY
        return
      }
      const { added } = this.#addresses.add()
      if (added.length === 0) return
      this.#tell(`${added.join(', ')} had been removed by somebody else and was put back`)
      this.#addresses.announce(nowMs)
    })
  }

  /** Those of the last list where the kernel gives none, for want of memory: they are news for a takeover, no more. */
  clients(): readonly ClientConnection[] {
    try {
      return this.#clients.look(bootMs())
    } catch (error) {
      if (error instanceof KernelError) return this.#clients.known
      throw error
    }
  }

  #listClients(): ClientConnection[] {
    const { clients } = this.#connections.clients({ addresses: this.#vips(), ports: this.#config.protectedPorts })
    return clients.map(({ local, remote }) => ({
      client: remote.address,
      clientPort: remote.port,
      local: local.address,
      localPort: local.port,
    }))
  }

  tickle(clients: readonly ClientConnection[]): void {
    this.#guarded('reset the clients of the other host', () => {
      tickle(
        clients.map(one => ({
          local: { address: one.local, port: one.localPort },
          remote: { address: one.client, port: one.clientPort },
        })),
      )
    })
  }

  async probe(): Promise<VipState[]> {
    await this.#probeAll()
    return this.state()
  }

  state(): VipState[] {
    const missing = this.#addresses.missing()
    return this.#config.vips.map(({ address, interface: iface }) => ({
      address,
      interface: iface,
      present: !missing.includes(addressOf(address)),
      conflict: this.#conflicts.get(addressOf(address)) ?? null,
    }))
  }

  onAlarm(tell: (why: string) => void): void {
    this.#tell = tell
  }

  close(): void {
    this.#closed.abort()
    this.#addresses.close()
    this.#connections.close()
    this.#route.close()
    this.#events.close()
  }

  /** Which addresses a stranger has, and what to do about it; '' in calm. */
  trouble(): string {
    return [...this.#conflicts]
      .map(([address, mac]) =>
        this.#withheld.has(address)
          ? `${address} is in use by ${mac}, which is not this host, and is not put up here: free it there, or choose another address`
          : `${address} is also answered by ${mac}, which is not this host: clients may reach it instead; find it and give it another address`,
      )
      .join('; ')
  }

  /** Beside a takeover, never before it, and now and then: the lease is the proof that the other host is gone, a stranger is an alarm. */
  async #askBeside(): Promise<void> {
    this.#askedAt = bootMs()
    const before = this.#conflicts.size
    await this.#probeAll()
    // Whoever listened to the stranger is told again where the address is (RFC 5227, 2.4).
    if (this.#wanted && this.#conflicts.size > before) this.announce()
  }

  /** Withheld addresses that nobody has any more are this host's from now on. */
  #claimFreed(): void {
    const freed = [...this.#withheld].filter(address => !this.#conflicts.has(address))
    if (freed.length === 0) return
    for (const address of freed) this.#withheld.delete(address)
    this.#addresses.withhold(this.#withheld)
    this.#addresses.add()
    this.announce()
    void this.#noteClaimed([])
  }

  async #probeAll(): Promise<void> {
    await Promise.all(this.#config.vips.map(vip => this.#probeOne(vip.interface, addressOf(vip.address))))
  }

  /** While the address is here, or on the other host, its own answers are no conflict. */
  async #probeOne(iface: string, address: string): Promise<void> {
    const tenure = this.#tenure
    const confirm = this.#conflicts.has(address) ? {} : { confirmAfterMs: askAgainAfterMs }
    const result = await this.#ask(iface, address, { othersProbes: 'ignored', ...confirm })
    if (this.#tenure !== tenure || result.kind === 'unknown') return
    if (result.kind === 'taken' && this.#wanted) this.#conflicts.set(address, result.mac)
    else this.#conflicts.delete(address)
  }

  /** Unknown where there is no such link, the kernel has no socket to ask by, or the agent stops meanwhile. */
  async #ask(
    iface: string,
    address: string,
    how: Pick<Parameters<typeof probe>[0], 'othersProbes' | 'confirmAfterMs'> = {},
  ): Promise<ProbeResult> {
    try {
      const link = this.#route.link(iface)
      if (link === undefined) return { kind: 'unknown', why: `there is no interface ${iface}` }
      return await probe({ iface, mac: link.mac, address, signal: this.#closed.signal, ...how })
    } catch (error) {
      if (this.#closed.signal.aborted) return { kind: 'unknown', why: 'the agent stops' }
      if (error instanceof KernelError) return { kind: 'unknown', why: error.message }
      throw error
    }
  }

  /** A refusal of the kernel concerns an address, not who serves: it is told and the host goes on. */
  #guarded(what: string, work: () => unknown): void {
    try {
      work()
    } catch (error) {
      if (!(error instanceof KernelError)) throw error
      this.#tell(`could not ${what}: ${error.message}`)
    }
  }

  #vips(): string[] {
    return this.#config.vips.map(vip => addressOf(vip.address))
  }
  #peers(): string[] {
    return this.#config.peer.paths.map(path => path.peer)
  }
}
