/**
 * The heartbeats of a real pair while its agents look at a large host, for `bench:adapters`: two lab hosts with 200 more
 * interfaces and 2 000 disks each, and on the direct link between them the times of every packet.
 */

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { HOSTS, type HostName } from '../../infra/lab/addresses.ts'
import { groupPath, processesIn } from '../../infra/lab/control-groups.ts'
import { nodeCommand } from '../../infra/lab/fabric.ts'
import { runOnHost } from '../../infra/lab/hosts.ts'
import { down, up } from '../../infra/lab/lab.ts'
import { statuses, until, untilProtected } from '../../infra/lab/pair.ts'
import { commandLine } from '../../infra/lab/processes.ts'
import { askAgent } from '../../infra/lab/product.ts'
import type { Compared } from '../../node-agent/inventory/compared.ts'
import { lookVerb } from '../../node-agent/inventory/look-process.ts'
import { type Figures, figuresOf } from '../../shared/figures.ts'
import { timingOf } from '../../shared/protocol/timing.ts'
import { DEVICES, interfacesBatch } from './adapters-large-host.ts'
import { watchPeerLink } from './arrivals.ts'
import { buildBundles } from './bundles.ts'

const LAB = 'bench-adapters'
const LARGE_HOST = join(import.meta.dirname, 'adapters-large-host.ts')
/** The first looks, the warm-up of the standby and the proof of replication are over by then. */
const SETTLE_MS = 10_000
const SEEN_LIMIT_MS = 60_000
/** A look takes longer. */
const TURN_MS = 50
/** The agent itself looks each 5 s at most, however often it is asked to. */
const ASK_EVERY_TURNS = 10
/** Later than this after the one before, a heartbeat would be called late: half an interval. */
const LATE_SHARE = 1.5

export interface Beats {
  /** Between two packets of that host on the direct link. */
  primary: Figures
  backup: Figures
  /** Gaps of half an interval too much. */
  late: number
}

export interface PairBeats {
  seconds: number
  heartbeatMs: number
  calm: Beats
  beside: Beats
  /** Of both hosts together. */
  looks: number
  stillProtected: boolean
}

export async function heartbeatsOfAPair(seconds: number, say: (line: string) => void): Promise<PairBeats> {
  await buildBundles()
  await up({ name: LAB, profile: 'default', services: [], say })
  try {
    const primary = await untilProtected(LAB)
    for (const host of HOSTS) await enlarge(host)
    await Promise.all(HOSTS.map(untilSeen))
    await sleep(SETTLE_MS)
    const epoch = (await statuses(LAB))[primary]?.epoch
    say(`a pair of large hosts in calm for ${seconds} s`)
    const calm = await beats(primary, () => sleep(seconds * 1000))
    say(`and with an inventory after the other for ${seconds} s`)
    let looks = 0
    const beside = await beats(primary, async () => {
      looks = await lookingFor(seconds * 1000)
    })
    const status = (await statuses(LAB))[primary]
    const stillProtected = status?.epoch === epoch && status?.protection === 'protected'
    return { seconds, heartbeatMs: timingOf('default').heartbeatMs, calm, beside, looks, stillProtected }
  } finally {
    await down(LAB)
  }
}

/** In the host's own namespaces, so that nothing of it is left behind. Its real /sys is there but for adapters and disks. */
async function enlarge(host: HostName): Promise<void> {
  const root = (await runOnHost(LAB, host, nodeCommand(LARGE_HOST, []))).trim()
  const kept = ['fs', 'kernel', 'module', 'class/net', 'devices/system', 'devices/virtual']
  const script = [
    'set -eu',
    ...kept.map(path => `mkdir -p "$0/sys/${path}"; mount --rbind "/sys/${path}" "$0/sys/${path}"`),
    'mount --rbind "$0/sys" /sys',
    ...interfacesBatch().map(line => `ip ${line}`),
  ]
  await runOnHost(LAB, host, ['sh', '-c', script.join('\n'), root])
}

/** Until an agent knows all the disks of its host. */
async function untilSeen(host: HostName): Promise<void> {
  await until(SEEN_LIMIT_MS, `${host} does not see its disks`, async () => {
    await askAgent(LAB, host, 'lookAround')
    const answer = (await askAgent(LAB, host, 'hosts')) as { result?: Compared } | null
    const own = answer?.result?.own
    return own && own.luns.length + own.lunsLeftOut === DEVICES ? true : null
  })
}

async function beats(primary: HostName, work: () => Promise<void>): Promise<Beats> {
  const watcher = watchPeerLink(LAB, primary)
  await work()
  const seen = watcher.end()
  const gapsOf = (outgoing: boolean): number[] => {
    const times = seen.filter(one => one.outgoing === outgoing).map(one => one.atMs)
    return times.slice(1).map((time, index) => time - times[index]!)
  }
  const [own, theirs] = [gapsOf(true), gapsOf(false)]
  const lateMs = timingOf('default').heartbeatMs * LATE_SHARE
  const late = [...own, ...theirs].filter(gap => gap > lateMs).length
  return { primary: figuresOf(own), backup: figuresOf(theirs), late }
}

/** @returns how many looks of both hosts were seen, by their processes */
async function lookingFor(ms: number): Promise<number> {
  const looks = new Set<number>()
  const end = performance.now() + ms
  for (let turn = 0; performance.now() < end; turn += 1) {
    for (const host of HOSTS) {
      if (turn % ASK_EVERY_TURNS === 0) await askAgent(LAB, host, 'lookAround')
      for (const pid of processesIn(groupPath(LAB, host))) if (commandLine(pid).includes(lookVerb)) looks.add(pid)
    }
    await sleep(TURN_MS)
  }
  return looks.size
}
