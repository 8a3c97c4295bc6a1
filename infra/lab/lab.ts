/** A whole lab: machines with a formed pair on them. What the command line, the demo, the tests and benchmarks use. */

import { addressOf, BRIDGE, HOSTS, type HostName, labPaths, namespaceName, VIP, WEB_PORT } from './addresses.ts'
import { describeFabricFaults } from './fabric-faults.ts'
import { isPoweredOn } from './hosts.ts'
import type { ObserverTargets } from './instruments.ts'
import { readLabState } from './lab-state.ts'
import { createMachines, destroyMachines } from './machine.ts'
import { databaseUri, databaseUriAt, formPair, lastWords, statuses } from './pair.ts'
import { type AgentStatus, agentPaths, type PairOptions } from './product.ts'

export const DEFAULT_NAME = 'lab'
const defaults: PairOptions = { profile: 'default', database: 'made', services: ['web'] }

export interface LabOptions extends Partial<PairOptions> {
  name: string
  /** A small disk for each host, that `fault disk-full` can fill; 0: the machine's own disk. */
  diskMib?: number
  /** Gets a line for each step. */
  say?: (line: string) => void
}

/** Brings up machines and pair. On failure everything is removed again, and the error has the agents' last words. */
export async function up(options: LabOptions): Promise<void> {
  const { name, diskMib = 0, say = () => {}, ...wishes } = options
  say('two hosts, a witness and a client are made')
  await createMachines({ name, diskMib })
  try {
    await formPair(name, { ...defaults, ...wishes, say })
  } catch (error) {
    const words = lastWords(name)
    await destroyMachines(name)
    throw new Error(`${error instanceof Error ? error.message : String(error)}\n${words}`)
  }
}

/** Removes everything of the lab; also what a crash left, and nothing at all. */
export function down(name: string): Promise<void> {
  return destroyMachines(name)
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
    faults: describeFabricFaults(state.fabric),
  }
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
