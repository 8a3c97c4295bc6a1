import { KernelError } from '../kernel/libc.ts'
import { RouteSocket } from '../kernel/rtnetlink.ts'
import type { UplinkPort } from '../ports.ts'
import { Uplink, type UplinkReading } from '../vip/links.ts'

/** Down only for what is certain, or where the gateway answered before and stopped: not knowing is no reason to move. */
export class UplinkDriver implements UplinkPort {
  readonly #route = new RouteSocket()
  readonly #uplink: Uplink
  readonly #iface: string

  constructor(config: { interface: string; gateway: string }) {
    this.#iface = config.interface
    this.#uplink = new Uplink({ route: this.#route, iface: config.interface, gateway: config.gateway })
  }

  tick(nowMs: number): { up: boolean; why: string } {
    const { state, gateway } = this.#look(nowMs)
    switch (state) {
      case 'reachable':
      case 'unknown':
        return { up: true, why: '' }
      case 'silent':
        return { up: false, why: `the gateway ${gateway ?? ''} does not answer on ${this.#iface}` }
      case 'no-carrier':
        return { up: false, why: `${this.#iface} has no carrier` }
      case 'no-interface':
        return { up: false, why: `there is no interface ${this.#iface}` }
    }
  }

  /** Where the kernel gives no answer, for want of memory or descriptors, nothing is known. */
  #look(nowMs: number): Pick<UplinkReading, 'state' | 'gateway'> {
    try {
      return this.#uplink.tick(nowMs)
    } catch (error) {
      if (error instanceof KernelError) return { state: 'unknown', gateway: undefined }
      throw error
    }
  }

  close(): void {
    this.#uplink.close()
    this.#route.close()
  }
}
