import type { GateReport } from '../../shared/protocol/types.ts'
import type { Config } from '../config.ts'
import { KernelGate } from '../gate/kernel-gate.ts'
import type { GateSpec } from '../gate/ruleset.ts'
import { type GateAlarm, GateWatch } from '../gate/watch.ts'
import { bootMs } from '../kernel/clock.ts'
import { KernelError } from '../kernel/libc.ts'
import { RouteSocket } from '../kernel/rtnetlink.ts'
import type { GatePort } from '../ports.ts'
import { addressOf, interfaceHolding } from './host-addresses.ts'

/** Tables of this name belong to the agent; one agent for each network namespace. */
const tableName = 'understudy'

/** What of the configuration the kernel has to enforce. */
const gateSpecOf = (config: Config): GateSpec => ({
  table: tableName,
  vips: config.vips.map(vip => addressOf(vip.address)),
  ports: config.protectedPorts,
  peers: [],
  devices: [...new Set(config.vips.map(vip => vip.interface))],
  forwarded: false,
})

/**
 * By which interfaces the other host is reached: of each path the one that has this host's address. A direct link whose other
 * end is off may have none yet when the agent starts, so that is looked for until it is found, and stays when it goes again.
 */
export function peersOf(
  paths: Config['peer']['paths'],
  find: (address: string) => string | null,
): () => GateSpec['peers'] {
  const found = new Map<string, string>()
  return () =>
    paths.flatMap(({ local, peer }) => {
      const iface = found.get(local) ?? find(local)
      if (iface === null) return []
      found.set(local, iface)
      return [{ iface, address: peer }]
    })
}

/** null also where the kernel does not say: it is asked again. */
function interfaceNow(address: string): string | null {
  let route: RouteSocket | null = null
  try {
    route = new RouteSocket()
    return interfaceHolding(route, address)
  } catch (error) {
    if (error instanceof KernelError) return null
    throw error
  } finally {
    route?.close()
  }
}

export class GateDriver implements GatePort {
  readonly #gate: KernelGate
  readonly #watch: GateWatch
  /** Said before anybody listened. */
  readonly #untold: string[] = []
  #tell: (why: string) => void = why => void this.#untold.push(why)

  constructor(config: Config) {
    this.#gate = new KernelGate(gateSpecOf(config), { peers: peersOf(config.peer.paths, interfaceNow) })
    this.#watch = new GateWatch(this.#gate)
  }

  adopt(): GateReport {
    const { replaced } = this.#gate.install()
    if (replaced !== undefined) this.#tell(replacedSentence(replaced))
    this.#watch.start({ now: bootMs, alarm: alarm => this.#tell(sentenceOf(alarm)) })
    return this.read()
  }

  open(untilMs: number): { refused: string; report: GateReport } {
    const result = this.#gate.open(untilMs)
    if (!result.ok) return { refused: result.why, report: this.read() }
    return { refused: '', report: { state: 'open', expiresUntil: result.acknowledgedUntilBootMs } }
  }

  freeze(): void {
    this.#gate.freeze()
  }

  close(): void {
    this.#gate.close()
  }

  /** Tables that are gone stop nothing: until the watch has restored them, that is as good as open. */
  read(): GateReport {
    const { state, expiresInMs } = this.#gate.readState()
    if (state === 'absent') return { state: 'open', expiresUntil: Number.MAX_SAFE_INTEGER }
    return { state, expiresUntil: state === 'open' ? bootMs() + expiresInMs : 0 }
  }

  onTampered(tell: (why: string) => void): void {
    this.#tell = tell
    for (const why of this.#untold.splice(0)) tell(why)
  }

  counters(): Record<string, number> {
    const { frozenPackets, refusedPackets, arpSilencedPackets, announcementsStoppedPackets } =
      this.#gate.read().counters
    return {
      frozen: frozenPackets,
      refused: refusedPackets,
      arp_silenced: arpSilencedPackets,
      announcements_stopped: announcementsStoppedPackets,
    }
  }

  /** The tables and a grant in force stay; the next agent adopts them. */
  async detach(): Promise<void> {
    await this.#watch.stop()
    this.#gate.dispose()
  }
}

const replacedSentence = (why: string): string =>
  `the gate's tables from before this start were not those of this configuration (${why}); they were made anew, frozen`

function sentenceOf(alarm: GateAlarm): string {
  switch (alarm.kind) {
    case 'restored':
      return `somebody else changed the gate's tables (${alarm.why}); they are restored and ${alarm.now}. Keep firewall reloads from flushing the table "${tableName}"`
    case 'followed':
      return `${alarm.why}: the gate's tables were made anew for it, and are ${alarm.now}`
    case 'grant-changed':
      return `${alarm.why}; it is ${alarm.now} now. Find out who writes to the table "${tableName}"`
    case 'not-restored':
      return `the gate's tables are damaged and could not be restored: ${alarm.why}. This host may not serve`
  }
}
