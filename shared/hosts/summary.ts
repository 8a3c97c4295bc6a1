import { type HostSummary, summaryLimits } from '../contract/host-summary.ts'
import { showFault } from './fault.ts'
import { type Difference, type HostNetwork, networkDifferences } from './network.ts'
import { type LunList, lunDifferences, type StorageInventory, sharedLuns, softwareInitiatorName } from './storage.ts'
import { serviceVipFaults } from './vswitch-rules.ts'

/** What of a host the other one is compared with. */
export function summaryOf(host: {
  network: Pick<HostNetwork, 'nics' | 'vswitches'>
  storage: StorageInventory
  vips: readonly { address: string; interface: string }[]
}): HostSummary {
  const { network, storage, vips } = host
  const devices = [...network.vswitches, ...network.nics].filter(one => one.addresses.length > 0)
  const luns = sharedLuns(storage)
  return {
    v: 1,
    vswitches: network.vswitches
      .filter(one => one.types.length > 0)
      .slice(0, summaryLimits.vswitches)
      .map(({ name, backend, vlan, mtu, types }) => ({ name, backend, vlan, mtu, types: [...types].sort() })),
    networks: devices
      .slice(0, summaryLimits.networks)
      .map(({ name, addresses }) => ({ name, addresses: addresses.slice(0, summaryLimits.addresses) })),
    vips: vips.slice(0, summaryLimits.vips).map(vip => ({ address: vip.address, interface: vip.interface })),
    initiatorName: softwareInitiatorName(storage),
    luns: luns.slice(0, summaryLimits.luns),
    lunsLeftOut: Math.max(0, luns.length - summaryLimits.luns),
  }
}

type Both = Record<'a' | 'b', HostSummary>

/** What differs between two hosts so that a takeover would miss it. [] = nothing that is known. */
export function summaryDifferences(hosts: Both): Difference[] {
  return [
    ...networkDifferences({ a: hosts.a.vswitches, b: hosts.b.vswitches }),
    ...vipDifferences(hosts),
    ...lunDifferences({ a: lunListOf(hosts.a), b: lunListOf(hosts.b) }),
    ...sameInitiator(hosts),
  ]
}

export const lunListOf = ({ luns, lunsLeftOut }: HostSummary): LunList => ({ luns, whole: lunsLeftOut === 0 })

function vipDifferences(hosts: Both): Difference[] {
  const found: Difference[] = []
  for (const [here, there] of [
    ['a', 'b'],
    ['b', 'a'],
  ] as const) {
    for (const vip of hosts[here].vips) {
      const same = hosts[there].vips.find(other => other.address === vip.address)
      if (same === undefined)
        found.push({
          why: `the virtual address ${vip.address} is in the configuration of ${here} and not of ${there}: it would not follow the service`,
          blocks: true,
        })
      else if (here === 'a' && same.interface !== vip.interface)
        found.push({
          why: `the virtual address ${vip.address} is on ${vip.interface} on a and on ${same.interface} on b`,
          blocks: false,
        })
      else if (here === 'a') found.push(...segmentFaults(vip, hosts).map(why => ({ why, blocks: true })))
    }
  }
  return found
}

/** Where each host has addresses on that interface; a link that is down has none of IPv6, and nothing is known of it then. */
function segmentFaults(vip: HostSummary['vips'][number], hosts: Both): string[] {
  const on = (host: 'a' | 'b') => hosts[host].networks.find(one => one.name === vip.interface) ?? null
  const [a, b] = [on('a'), on('b')]
  if (a === null || b === null) return []
  return serviceVipFaults({ address: vip.address, vswitch: vip.interface }, { a, b }).map(
    one => `the virtual ${showFault(one)}`,
  )
}

/** Before a virtual address is taken into the configuration: strict, a host without the interface has no address there. */
export function newVipFaults(vip: { address: string; interface: string }, hosts: Both): string[] {
  const on = (host: 'a' | 'b') => hosts[host].networks.find(one => one.name === vip.interface) ?? { addresses: [] }
  return serviceVipFaults({ address: vip.address, vswitch: vip.interface }, { a: on('a'), b: on('b') }).map(showFault)
}

function sameInitiator({ a, b }: Both): Difference[] {
  if (a.initiatorName === null || a.initiatorName !== b.initiatorName) return []
  const why = `both hosts have the iSCSI name ${a.initiatorName}: a target takes the two for one; change it on one of them`
  return [{ why, blocks: false }]
}
