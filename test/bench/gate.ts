/**
 * What the gate costs and how exact it is, measured in a network namespace of its own. Needs root.
 *
 *     node test/bench/gate.ts            a table
 *     node test/bench/gate.ts --json     and one JSON object as the last line
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { KernelGate } from '../../node-agent/gate/kernel-gate.ts'
import { GateWatch } from '../../node-agent/gate/watch.ts'
import { bootMs, monotonicMs } from '../../node-agent/kernel/clock.ts'
import { AF_INET, closeFd, openSocket, trySend } from '../../node-agent/kernel/libc.ts'
import { Connections } from '../../node-agent/vip/connections.ts'
import { VirtualAddresses } from '../../node-agent/vip/virtual-addresses.ts'
import { whyNoNamespaces } from '../integration/support/netns.ts'
import { createPair, PROTECTED_PORT, SPEC, type TestPair, VIP4, VIP6 } from '../integration/support/pair.ts'

const HOT_RENEWALS = 3000
const PACED_RENEWALS = 100
const PACE_MS = 20
const GRANTS_MS = [50, 100, 333, 1000]
const EXPIRIES_PER_GRANT = 4
const CLIENTS = 200

type Figures = Record<string, number>

function percentile(sorted: readonly number[], fraction: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))]!
}

/** p50, p99 and max of what `times` calls take, in µs. */
function timed(name: string, times: number, work: () => void): Figures {
  for (let i = 0; i < times / 10; i++) work()
  const taken: number[] = []
  for (let i = 0; i < times; i++) {
    const startMs = monotonicMs()
    work()
    taken.push((monotonicMs() - startMs) * 1000)
  }
  return summary(name, taken)
}

function summary(name: string, takenUs: number[]): Figures {
  const sorted = takenUs.toSorted((a, b) => a - b)
  const round = (us: number) => Math.round(us * 10) / 10
  return {
    [`${name}P50Us`]: round(percentile(sorted, 0.5)),
    [`${name}P99Us`]: round(percentile(sorted, 0.99)),
    [`${name}MaxUs`]: round(sorted.at(-1)!),
  }
}

/** At the agent's pace caches are cold: this is what a renewal costs in service. */
async function pacedRenewals(net: TestPair, gate: KernelGate): Promise<Figures> {
  const taken: number[] = []
  for (let i = 0; i < PACED_RENEWALS; i++) {
    const startMs = monotonicMs()
    net.host.run(() => gate.open(bootMs() + 1000))
    taken.push((monotonicMs() - startMs) * 1000)
    await sleep(PACE_MS)
  }
  return summary('renewPaced', taken)
}

/** Opens for a while and sends packets until the first is stopped: by how much does that miss what was asked for? */
function expiryPrecision(gate: KernelGate): Figures {
  const fd = openSocket({ domain: AF_INET, type: 2, protocol: 17 })
  const to = Buffer.from([AF_INET, 0, 0x23, 0x28, 10, 9, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0])
  const packet = Buffer.from('x')
  const errorsMs: number[] = []
  const marginsMs: number[] = []
  for (const grantMs of GRANTS_MS) {
    for (let i = 0; i < EXPIRIES_PER_GRANT; i++) {
      gate.freeze()
      // What the guard form gives away is added, so that the kernel's timeout is grantMs or a fraction below.
      const untilBootMs = bootMs() + grantMs + 28.5
      const result = gate.open(untilBootMs)
      const openedMs = bootMs()
      if (!result.ok) throw new Error(result.why)
      while (trySend(fd, packet, to) === 0 && bootMs() < untilBootMs + 100);
      errorsMs.push(bootMs() - openedMs - grantMs)
      marginsMs.push(untilBootMs - bootMs())
    }
  }
  closeFd(fd)
  const round = (ms: number) => Math.round(ms * 100) / 100
  return {
    expiryEarliestMs: round(Math.min(...errorsMs)),
    expiryLatestMs: round(Math.max(...errorsMs)),
    shutBeforeLeaseEndLeastMs: round(Math.min(...marginsMs)),
    shutBeforeLeaseEndMostMs: round(Math.max(...marginsMs)),
  }
}

/** A firewall reload on a kernel without owners: how long until the tables stand again, from the look at the events. */
function restoreAfterFlush(net: TestPair): Figures {
  const gate = new KernelGate(SPEC, { own: false })
  gate.install()
  const watch = new GateWatch(gate)
  watch.poll(monotonicMs())
  const taken: number[] = []
  for (let i = 0; i < 20; i++) {
    gate.open(bootMs() + 5000)
    net.host.exec('nft', 'flush', 'ruleset')
    const startMs = monotonicMs()
    if (watch.poll(monotonicMs())?.kind !== 'restored') throw new Error('the flush was not noticed')
    taken.push((monotonicMs() - startMs) * 1000)
  }
  const idle = timed('watchIdlePoll', 1000, () => watch.poll(monotonicMs()))
  gate.uninstall()
  gate.dispose()
  void watch.stop()
  return { ...summary('restore', taken), ...idle }
}

/** Both addresses, up and down by turns. */
function addresses(vips: VirtualAddresses): Figures {
  return timed('addressesDownAndUp', 200, () => {
    vips.remove()
    vips.add()
  })
}

async function clientList(net: TestPair): Promise<Figures> {
  const [host, client] = await Promise.all([net.host.peer(), net.client.peer()])
  await host.ask('listen', { host: '::', port: PROTECTED_PORT })
  for (let i = 0; i < CLIENTS; i++) {
    await client.ask('dial', { id: String(i), host: VIP4, port: PROTECTED_PORT, limitMs: 2000 })
  }
  const connections = net.host.run(() => new Connections())
  const query = { addresses: [VIP4, VIP6], ports: [PROTECTED_PORT] }
  const found = connections.clients(query).clients.length
  const figures = timed('listClients', 200, () => connections.clients(query))
  connections.close()
  return { clients: found, ...figures }
}

async function measure(net: TestPair): Promise<Figures> {
  const vips = net.host.run(() => new VirtualAddresses([VIP4, VIP6].map(address => ({ iface: 'lan0', address }))))
  net.host.run(() => vips.add())
  const gate = net.host.run(() => new KernelGate(SPEC))
  const figures: Figures = {}
  const note = (more: Figures) => Object.assign(figures, more)
  net.host.run(() => {
    gate.install()
    note(timed('renew', HOT_RENEWALS, () => gate.open(bootMs() + 1000)))
    note(timed('freeze', 500, () => gate.freeze()))
    note(timed('close', 500, () => gate.close()))
    note(timed('read', 500, () => gate.read()))
    note(timed('compare', 200, () => gate.difference()))
    note(expiryPrecision(gate))
  })
  note(await pacedRenewals(net, gate))
  net.host.run(() => {
    gate.uninstall()
    gate.dispose()
    note(restoreAfterFlush(net))
    note(addresses(vips))
    note(timed('announce', 200, () => vips.announce(bootMs())))
  })
  note(await clientList(net))
  vips.close()
  return figures
}

const skip = whyNoNamespaces()
if (skip !== false) {
  process.stderr.write(`The gate can't be measured here: ${skip}.\n`)
  process.exit(1)
}
const net = createPair('usgb')
try {
  const figures = await measure(net)
  if (process.argv.includes('--json')) process.stdout.write(`${JSON.stringify(figures)}\n`)
  else for (const [name, value] of Object.entries(figures)) process.stdout.write(`${name.padEnd(32)} ${value}\n`)
} finally {
  await net.remove()
}
