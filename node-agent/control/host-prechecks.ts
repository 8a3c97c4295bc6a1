import { createSocket } from 'node:dgram'
import { existsSync, readdirSync, readlinkSync } from 'node:fs'
import { createServer, isIPv6 } from 'node:net'
import { networkInterfaces } from 'node:os'
import { dirname } from 'node:path'
import type { z } from 'zod'
import type { PrecheckResult } from '../../shared/contract/api/pairs.ts'
import type { verbs } from '../../shared/contract/documents.ts'
import { contains, parseAddress, parsePrefix } from '../../shared/ip.ts'
import type { Config } from '../config.ts'
import { showFault } from '../config-faults.ts'
import { addressOf } from '../drivers/host-addresses.ts'
import { exec } from '../exec.ts'
import { freeBytes } from '../files/partition-check.ts'
import { mebibyte } from '../files/set-up-agreement.ts'
import { oneTreeFaults } from '../files/set-up-check.ts'
import { treeSchema } from '../files/settings.ts'
import { loadHost } from '../host-file.ts'
import { RouteSocket } from '../kernel/rtnetlink.ts'
import { lookAtDataDirectory } from '../pair/data-directory.ts'
import { readState } from '../state-file/state-file.ts'
import { probe } from '../vip/probe.ts'
import { madeBeside, wishedTree } from './wished-config.ts'
import { witnessReached } from './witness-precheck.ts'

/** What only this host can measure of a set-up or a switchover to come. Reads and asks; changes nothing. */
export type HostFinding = Omit<PrecheckResult, 'host'>

const samples = 5
const pingLimitMs = 5_000
/** Ethernet's 1500 without the headers of IPv4 (28) and IPv6 (48). */
const payloadBytes = { 4: 1472, 6: 1452 } as const
const roundTripMaxMs = 50
const shownMax = 5

export async function measure(args: z.output<typeof verbs.prechecks>, configPath: string): Promise<HostFinding[]> {
  const { base, config } = loadHost(configPath)
  const isMember = readState(base.stateDir).ok
  return [
    ...(await Promise.all(args.peerAddresses.map(reaches))),
    ...(args.witness === undefined ? [] : [await witnessReached(args.witness)]),
    ...(await Promise.all(args.vips.map(vip => vipFree(vip, isMember ? 'passed' : 'blocking')))),
    ...(isMember ? [] : await portsFree(config?.peer.paths[0]?.port ?? peerPort, base.postgres.port)),
    ...(args.sync === undefined ? [] : [await syncPartition(args.sync, { ...base, node: config?.node ?? null })]),
    ...(isMember ? [] : [dataDirectory(base.postgres.dataDir), processesUnder(base.postgres.dataDir)]),
  ]
}
const peerPort = 7400

/** The partition that is wished, or the directory: whether it can be had here, and how much room there is. */
async function syncPartition(
  { path, sizeGb }: NonNullable<z.output<typeof verbs.prechecks>['sync']>,
  host: Pick<Config, 'stateDir' | 'limits'> & { node: Config['node'] | null },
): Promise<HostFinding> {
  const partition = sizeGb === null ? null : madeBeside(path, sizeGb)
  const tree = treeSchema.safeParse({ name: wishedTree, path, partition })
  const how = { part: 'adds', resumed: false, erase: null, other: [] } as const
  const faults = tree.success
    ? (await oneTreeFaults(tree.data, { ...how, field: 'syncPartition', host })).map(showFault)
    : tree.error.issues.map(issue => `syncPartition.${issue.path.join('.')} ${issue.message}`)
  const folder = existsSync(path) ? path : dirname(path)
  const freeMb = existsSync(folder) ? Math.floor(freeBytes(folder) / mebibyte) : 0
  return {
    code: 'sync_partition',
    severity: faults.length === 0 ? 'passed' : 'blocking',
    measured: faults.length === 0 ? `${freeMb} MiB free at ${folder}` : faults.join('; '),
    limit: sizeGb === null ? `the directory ${path}` : `${sizeGb} GiB for ${path}, which nobody uses`,
    remedy: faults.length === 0 ? '' : 'mend that, or choose another path or size',
  }
}

/** ping(8) with the packet that just fits: what is lost, how long it takes, and whether the path takes whole frames. */
async function reaches(address: string): Promise<HostFinding> {
  const family = isIPv6(address) ? 6 : 4
  const size = ['-M', 'do', '-s', String(payloadBytes[family])]
  const asked = await exec(
    ['ping', `-${family}`, '-n', '-q', '-c', `${samples}`, '-i', '0.2', '-W', '1', ...size, address],
    {
      limitMs: pingLimitMs,
    },
  )
  const text = asked.stdout
  const lost = Number(/([\d.]+)% packet loss/.exec(text)?.[1] ?? Number.NaN)
  const averageMs = Number(/= [\d.]+\/([\d.]+)\//.exec(text)?.[1] ?? Number.NaN)
  const finding = {
    code: 'peer_network',
    limit: `no loss, ${roundTripMaxMs} ms there and back, whole frames of 1500 bytes`,
    remedy: 'look at the cable, the switch, the MTU and the firewall between the hosts',
  }
  if (Number.isNaN(lost)) return { ...finding, severity: 'unknown', measured: `${address}: ping could not be run here` }
  const measured = `${address}: ${lost} % lost${Number.isNaN(averageMs) ? '' : `, ${averageMs} ms`}`
  const severity = lost === 100 ? 'blocking' : lost > 0 || averageMs > roundTripMaxMs ? 'warning' : 'passed'
  return { ...finding, severity, measured }
}

async function vipFree(vip: string, whenTaken: 'passed' | 'blocking'): Promise<HostFinding> {
  const address = addressOf(vip)
  const finding = {
    code: 'vip_free',
    limit: `nobody but this pair answers for ${vip}`,
    remedy: 'free the address there, or choose another one',
  }
  const iface = interfaceInSubnet(vip)
  if (iface === null)
    return { ...finding, severity: 'blocking', measured: `no interface here has an address in the subnet of ${vip}` }
  const route = new RouteSocket()
  try {
    const mac = route.link(iface)?.mac
    if (mac === undefined) return { ...finding, severity: 'unknown', measured: `${iface} has no hardware address` }
    const result = await probeApart({ iface, mac, address })
    if (result.kind === 'unknown') return { ...finding, severity: 'unknown', measured: result.why }
    if (result.kind === 'free') return { ...finding, severity: 'passed', measured: `nobody answers on ${iface}` }
    // Of a pair that runs, the host that serves answers.
    return { ...finding, severity: whenTaken, measured: `${result.mac} answers on ${iface}` }
  } finally {
    route.close()
  }
}

/**
 * Both hosts of a pair to be are asked at the same time, and a probe of the other one looks like a claim (RFC 5227,
 * 2.1.1): who really has the address answers each time.
 */
async function probeApart(part: { iface: string; mac: string; address: string }): ReturnType<typeof probe> {
  for (let tries = 1; ; tries++) {
    const result = await probe(part)
    if (result.kind !== 'taken' || tries === probesMax) return result
    await new Promise(resolve => setTimeout(resolve, apartMs * (0.5 + Math.random())))
  }
}
const probesMax = 4
/** Longer than one probe takes. */
const apartMs = 500

function interfaceInSubnet(vip: string): string | null {
  const wanted = parseAddress(addressOf(vip))
  const found = Object.entries(networkInterfaces()).find(([, held]) =>
    (held ?? []).some(one => {
      const subnet = parsePrefix(one.cidr ?? '')
      return !one.internal && subnet !== null && wanted !== null && contains(subnet, wanted)
    }),
  )
  return found?.[0] ?? null
}

async function portsFree(peer: number, database: number): Promise<HostFinding[]> {
  const asked: [string, number, Promise<boolean>][] = [
    ['UDP', peer, udpFree(peer)],
    ['TCP', database, tcpFree(database)],
  ]
  return Promise.all(
    asked.map(
      async ([kind, port, free]): Promise<HostFinding> => ({
        code: 'port_free',
        severity: (await free) ? 'passed' : 'blocking',
        measured: `${kind} port ${port} is ${(await free) ? 'free' : 'in use'}`,
        limit: 'the agent and its database get their ports',
        remedy: '`ss -lntup` names the program: stop it, or choose another port',
      }),
    ),
  )
}

function udpFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = createSocket('udp4')
    socket.once('error', () => resolve(false))
    socket.bind(port, () => socket.close(() => resolve(true)))
  })
}

function tcpFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, () => server.close(() => resolve(true)))
  })
}

function dataDirectory(path: string): HostFinding {
  const found = lookAtDataDirectory(path)
  const shown = found.kind === 'cluster' ? `a cluster of PostgreSQL ${found.major}` : found.kind
  return {
    code: 'data_directory',
    severity: found.kind === 'foreign' ? 'blocking' : 'passed',
    measured: found.kind === 'foreign' ? `${path} holds ${found.found}` : `${path}: ${shown}`,
    limit: 'absent, empty, or a cluster that is adopted',
    remedy: 'name another directory, or move that away',
  }
}

/** Somebody whose working directory lies there writes there, or keeps it from being unmounted. */
function processesUnder(path: string): HostFinding {
  const found = readdirSync('/proc')
    .filter(name => /^\d+$/.test(name) && name !== String(process.pid))
    .flatMap(pid => {
      try {
        const at = readlinkSync(`/proc/${pid}/cwd`)
        return at === path || at.startsWith(`${path}/`) ? [`${readlinkSync(`/proc/${pid}/exe`)} (${pid})`] : []
      } catch {
        return []
      }
    })
  return {
    code: 'nobody_in_data_directory',
    severity: found.length === 0 ? 'passed' : 'blocking',
    measured: found.length === 0 ? 'no process works there' : found.slice(0, shownMax).join(', '),
    limit: `no process works under ${path}`,
    remedy: 'stop these programs first',
  }
}
