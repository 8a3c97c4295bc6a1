/**
 * The lab's network: one namespace for each member, and one (`net`) that holds the switch and the direct cable.
 *
 * Both the switch and the cable are bridges in the fabric's namespace, so that faults are made there, in a table the
 * hosts cannot see: what a host has in its own ruleset is the product's.
 */

import { existsSync, readdirSync } from 'node:fs'
import {
  addressOf,
  BRIDGE,
  GATEWAY,
  hardwareAddress,
  INTERFACE,
  LAN_PREFIX,
  LINK_MEMBERS,
  type LinkName,
  MEMBERS,
  type Member,
  namespaceName,
  namespacePath,
  portName,
} from './addresses.ts'
import { run, tryRun } from './exec.ts'

const LINKS: readonly LinkName[] = ['lan', 'peer']

function linksOf(member: Member): LinkName[] {
  return LINKS.filter(link => LINK_MEMBERS[link].includes(member))
}

async function ipBatch(namespace: string, lines: readonly string[]): Promise<void> {
  await run('ip', ['-n', namespace, '-batch', '-'], { input: `${lines.join('\n')}\n` })
}

/** Makes the fabric and plugs all four members in. Expects that nothing of this lab exists. */
export async function createNetwork(lab: string): Promise<void> {
  const fabric = namespaceName(lab, 'net')
  await run('ip', ['netns', 'add', fabric])
  const bridges = LINKS.flatMap(link => [
    // No spanning tree and no multicast snooping: a port forwards, neighbour discovery included, the moment it is up.
    `link add ${BRIDGE[link]} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
    `link set ${BRIDGE[link]} up`,
  ])
  await ipBatch(fabric, [
    'link set lo up',
    ...bridges,
    `addr add ${GATEWAY.v4}/${LAN_PREFIX.v4} dev ${BRIDGE.lan}`,
    `addr add ${GATEWAY.v6}/${LAN_PREFIX.v6} dev ${BRIDGE.lan} nodad`,
  ])
  for (const member of MEMBERS) await plugIn(lab, member)
}

/**
 * Gives a member a namespace as new as after a boot: no addresses but its own, no ruleset, no neighbours.
 * Its links come up last.
 */
export async function plugIn(lab: string, member: Member): Promise<void> {
  const namespace = namespaceName(lab, member)
  const fabric = namespaceName(lab, 'net')
  await run('ip', ['netns', 'add', namespace])
  for (const link of linksOf(member)) {
    const [inside, port] = [INTERFACE[link], portName(member, link)]
    const end = [inside, 'netns', namespace, 'address', hardwareAddress(member, link)]
    await run('ip', ['link', 'add', ...end, 'type', 'veth', 'peer', 'name', port, 'netns', fabric])
  }
  await ipBatch(namespace, [
    'link set lo up',
    ...linksOf(member).flatMap(link => {
      const { v4, v6 } = addressOf(member, link)
      const inside = INTERFACE[link]
      return [
        `addr add ${v4}/${LAN_PREFIX.v4} dev ${inside}`,
        `addr add ${v6}/${LAN_PREFIX.v6} dev ${inside} nodad`,
        `link set ${inside} up`,
      ]
    }),
  ])
  await ipBatch(
    fabric,
    linksOf(member).flatMap(link => {
      const port = portName(member, link)
      return [`link set ${port} master ${BRIDGE[link]}`, `link set ${port} up`]
    }),
  )
}

/** Takes the carrier away from all links of a member, as a power cut does. */
export async function dropCarrier(lab: string, member: Member): Promise<void> {
  const fabric = namespaceName(lab, 'net')
  await ipBatch(
    fabric,
    linksOf(member).map(link => `link set ${portName(member, link)} down`),
  )
}

/** Removes a member's namespace with all the kernel kept for it: addresses, ruleset, neighbours. */
export async function unplug(lab: string, member: Member): Promise<void> {
  const fabric = namespaceName(lab, 'net')
  // The kernel destroys a namespace some time after its last user is gone; the links must be gone now.
  for (const link of linksOf(member)) await tryRun('ip', ['-n', fabric, 'link', 'del', portName(member, link)])
  await tryRun('ip', ['netns', 'del', namespaceName(lab, member)])
}

/** Removes whatever is there of the lab's network, in whatever state a crash left it. */
export async function destroyNetwork(lab: string): Promise<void> {
  if (!existsSync('/run/netns')) return
  for (const member of MEMBERS) if (existsSync(namespacePath(lab, member))) await unplug(lab, member)
  if (existsSync(namespacePath(lab, 'net'))) await run('ip', ['netns', 'del', namespaceName(lab, 'net')])
}

/** The lab's namespaces that exist now. */
export function existingNamespaces(lab: string): string[] {
  if (!existsSync('/run/netns')) return []
  const names = new Set([...MEMBERS, 'net' as const].map(member => namespaceName(lab, member)))
  return readdirSync('/run/netns').filter(name => names.has(name))
}
