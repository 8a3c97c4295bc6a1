import type { Config } from '../config.ts'
import { bootMs } from '../kernel/clock.ts'
import { KernelError } from '../kernel/libc.ts'
import { RouteSocket } from '../kernel/rtnetlink.ts'
import type { ClientConnection, VipPort, VipState } from '../ports.ts'
import { Connections } from '../vip/connections.ts'
import { probe } from '../vip/probe.ts'
import { tickle } from '../vip/tickle.ts'
import { VirtualAddresses } from '../vip/virtual-addresses.ts'
import { addressOf, lengthOf } from './host-addresses.ts'

/** Addresses that are lost while they should be there (a link that went down takes IPv6 ones along) are put back. */
const restoreEveryMs = 1000

export class VipDriver implements VipPort {
  readonly #config: Config
  readonly #addresses: VirtualAddresses
  readonly #connections = new Connections()
  readonly #route = new RouteSocket()
  readonly #conflicts = new Map<string, string>()
  #wanted = false
  #checkedAt = 0
  #tell: (why: string) => void = () => {}

  constructor(config: Config) {
    this.#config = config
    const vips = config.vips.map(vip => ({
      iface: vip.interface,
      address: addressOf(vip.address),
      prefixLength: lengthOf(vip.address),
    }))
    this.#addresses = new VirtualAddresses(vips)
  }

  up(): void {
    this.#wanted = true
    this.#guarded('put the addresses up', () => this.#addresses.add())
    void this.#probeBeside()
  }

  down(): void {
    this.#wanted = false
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
    if (!this.#wanted || nowMs - this.#checkedAt < restoreEveryMs) return
    this.#checkedAt = nowMs
    this.#guarded('put a lost address back', () => {
      if (this.#addresses.missing().length === 0) return
      const { added } = this.#addresses.add()
      if (added.length === 0) return
      this.#tell(`${added.join(', ')} had been removed by somebody else and was put back`)
      this.#addresses.announce(nowMs)
    })
  }

  clients(): readonly ClientConnection[] {
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
    await Promise.all(this.#config.vips.map(vip => this.#probeOne(vip.interface, addressOf(vip.address))))
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
    this.#addresses.close()
    this.#connections.close()
    this.#route.close()
  }

  /** Beside a takeover, never before it: the lease is the proof that the other host is gone, a stranger is an alarm. */
  async #probeBeside(): Promise<void> {
    for (const { address, conflict } of await this.probe()) {
      if (conflict !== null) {
        this.#tell(
          `${address} is also answered by ${conflict}, which belongs to neither host: clients may reach it instead`,
        )
      }
    }
  }

  /** While the address is here, or on the other host, its own answers are no conflict. */
  async #probeOne(iface: string, address: string): Promise<void> {
    const link = this.#route.link(iface)
    if (link === undefined) return
    const result = await probe({ iface, mac: link.mac, address })
    if (result.kind === 'taken' && this.#wanted) this.#conflicts.set(address, result.mac)
    else this.#conflicts.delete(address)
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
