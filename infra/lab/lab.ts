/** A whole lab: machines with a formed pair on them. What the command line, the demo, the tests and benchmarks use. */

import { setTimeout as sleep } from 'node:timers/promises'
import { addressOf, BRIDGE, HOSTS, type HostName, labPaths, namespaceName, VIP, WEB_PORT } from './addresses.ts'
import { isDiskFilled } from './disk.ts'
import { describeFabricFaults } from './fabric-faults.ts'
import { hostPaths, isPoweredOn } from './hosts.ts'
import type { ObserverTargets } from './instruments.ts'
import { type LabState, labExists, readLabState } from './lab-state.ts'
import { createMachines, destroyMachines, remainsOf } from './machine.ts'
import { databaseUri, databaseUriAt, formPair, isPairFormed, lastWords, statuses } from './pair.ts'
import { hostProcesses, isAlive, processState } from './processes.ts'
import { type AgentStatus, agentPaths, type PairOptions } from './product.ts'
import { removeWhenInterrupted } from './program.ts'

export const DEFAULT_NAME = 'lab'
const defaults: PairOptions = { profile: 'default', database: 'made', services: ['web'] }

export interface LabOptions extends Partial<PairOptions> {
  name: string
  /** A small disk for each host, that `fault disk-full` can fill; 0: the machine's own disk. */
  diskMib?: number
  /** Gets a line for each step. */
  say?: (line: string) => void
}

/** Labs of this process, and how to say that an interruption need not remove them any more. */
const made = new Map<string, () => void>()

/** Brings up machines and pair. On failure everything is removed again, and the error has the agents' last words. */
export async function up(options: LabOptions): Promise<void> {
  const { name, diskMib = 0, say = () => {}, ...wishes } = options
  // Not ours to remove when it fails for this.
  if (labExists(name))
    throw new Error(`A lab named "${name}" is there already: \`npm run lab -- down --name ${name}\` ends it.`)
  made.set(
    name,
    removeWhenInterrupted(() => downWhileUp(name)),
  )
  try {
    say('two hosts, a witness and a client are made')
    await createMachines({ name, diskMib })
    await formPair(name, { ...defaults, ...wishes, say })
  } catch (error) {
    const words = lastWords(name)
    await down(name)
    throw new Error(`${error instanceof Error ? error.message : String(error)}\n${words}`)
  }
}

/** Removes everything of the lab; also what a crash left, and nothing at all. */
export async function down(name: string): Promise<void> {
  await destroyMachines(name)
  made.get(name)?.()
  made.delete(name)
}

/** An `up` that was interrupted and has not noticed yet goes on making things for a moment. */
const DOWN_ROUNDS_LIMIT = 20
const DOWN_SETTLE_MS = 300

/** As {@link down}, while an `up` of this very process may still be under way: until nothing of it appears any more. */
async function downWhileUp(name: string): Promise<void> {
  for (let round = 0; round < DOWN_ROUNDS_LIMIT; round += 1) {
    // What appears while it is removed makes the removal fail; the next round finds it.
    await down(name).catch(() => {})
    await sleep(DOWN_SETTLE_MS)
    if (remainsOf(name).length === 0) return
  }
  await down(name)
}

export interface HostInfo {
  netns: string
  address: string
  peerAddress: string
  powered: boolean
  agentPid: number | null
  dataDir: string
  socket: string
  config: string
}

export interface LabInfo {
  name: string
  hosts: { [host in HostName]: HostInfo }
  witness: { netns: string; address: string; pid: number | null }
  client: { netns: string; address: string }
  /** The switch all members hang on, in the namespace `fabric`. */
  bridge: string
  fabric: string
  vip: string
  vip6: string
  /** null until the pair is formed. */
  database: { uri: string | null }
  web: string
  logDir: string
}

export function info(name: string): LabInfo {
  const state = readLabState(name)
  const host = (which: HostName): HostInfo => ({
    netns: namespaceName(name, which),
    address: addressOf(which).v4,
    peerAddress: addressOf(which, 'peer').v4,
    powered: isPoweredOn(name, which),
    agentPid: state.agentPid[which],
    dataDir: agentPaths(name, which).dataDir,
    socket: agentPaths(name, which).socket,
    config: agentPaths(name, which).config,
  })
  return {
    name,
    hosts: { a: host('a'), b: host('b') },
    witness: { netns: namespaceName(name, 'w'), address: addressOf('w').v4, pid: state.witnessPid },
    client: { netns: namespaceName(name, 'c'), address: addressOf('c').v4 },
    bridge: BRIDGE.lan,
    fabric: namespaceName(name, 'net'),
    vip: VIP.v4,
    vip6: VIP.v6,
    database: { uri: databaseUri(name) },
    web: `http://${VIP.v4}:${WEB_PORT}/`,
    logDir: `${labPaths(name).runDir}/log`,
  }
}

/** Where the observers look: the VIP, each host's own addresses, and from inside each host. */
export function observerTargets(name: string): ObserverTargets {
  const at = (address: string): string => databaseUriAt(name, address)
  return {
    client: {
      vip: at(VIP.v4),
      vip6: at(VIP.v6),
      'a:lan': at(addressOf('a').v4),
      'b:lan': at(addressOf('b').v4),
    },
    inside: { a: { 'a:inside': at('127.0.0.1') }, b: { 'b:inside': at('127.0.0.1') } },
  }
}

export interface LabStatus {
  hosts: { [host in HostName]: AgentStatus | null }
  powered: { [host in HostName]: boolean }
  /** A sentence for each. */
  faults: string[]
}

export async function status(name: string): Promise<LabStatus> {
  const state = readLabState(name)
  return {
    hosts: await statuses(name),
    powered: { a: isPoweredOn(name, 'a'), b: isPoweredOn(name, 'b') },
    faults: [...describeFabricFaults(state.fabric), ...describeOtherFaults(state)],
  }
}

function describeOtherFaults(state: LabState): string[] {
  const { name, witnessPid, wallClockOffsetMs, agentPid } = state
  const onHosts = HOSTS.filter(host => isPoweredOn(name, host)).flatMap(host => {
    const stopped = hostProcesses(name, host, 'all').filter(pid => processState(pid) === 'T').length
    const pid = agentPid[host]
    return [
      ...(stopped > 0 ? [`${stopped} processes of host ${host} are stopped`] : []),
      ...(pid !== null && !isAlive(pid) ? [`the agent of host ${host} is dead`] : []),
      ...(wallClockOffsetMs[host] !== 0
        ? [`the wall clock of host ${host} is off by ${wallClockOffsetMs[host]} ms`]
        : []),
      ...(isDiskFilled(hostPaths(name, host).diskDir) ? [`the disk of host ${host} was filled`] : []),
    ]
  })
  const witness = witnessPid !== null && isAlive(witnessPid) ? [] : ['the witness is down']
  return [...(isPairFormed(name) ? witness : []), ...onHosts]
}

/** A line for each host and each fault. */
export function showStatus(seen: LabStatus): string[] {
  const hosts = HOSTS.map(host => {
    const told = seen.hosts[host]
    if (!seen.powered[host]) return `${host}: power is off`
    if (told === null) return `${host}: its agent does not answer`
    const lag = told.replication.lagBytes === null ? '' : `, lag ${told.replication.lagBytes} bytes`
    return `${host}: ${told.role}, epoch ${told.epoch}, ${told.protection}${lag}: ${told.why}`
  })
  return [...hosts, ...seen.faults.map(fault => `fault: ${fault}`)]
}
