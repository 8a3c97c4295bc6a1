/** The network most driver tests use: a host with a LAN and a link to its peer, a client, the peer. */
import type { GateSpec } from '../../../node-agent/gate/ruleset.ts'
import { connectByBridge, Netns } from './netns.ts'

export const VIP4 = '10.9.0.100'
export const VIP6 = 'fd09::100'
export const HOST4 = '10.9.0.1'
export const HOST6 = 'fd09::1'
export const PEER_LAN4 = '10.9.0.2'
export const CLIENT4 = '10.9.0.9'
export const PEER_LINK4 = '10.9.1.2'
export const PEER_LINK6 = 'fd19::2'
export const HOST_LINK4 = '10.9.1.1'
export const HOST_LINK6 = 'fd19::1'
export const PROTECTED_PORT = 5432
export const OTHER_PORT = 8080

export const SPEC: GateSpec = {
  table: 'understudy',
  vips: [VIP4, VIP6],
  ports: [PROTECTED_PORT],
  peers: [
    { iface: 'pl0', address: PEER_LINK4 },
    { iface: 'pl0', address: PEER_LINK6 },
  ],
  devices: ['lan0'],
  forwarded: false,
}

export type TestPair = { host: Netns; peer: Netns; client: Netns; remove: () => Promise<void> }

/** `prefix` keeps the namespaces of concurrent runs apart. */
export function createPair(prefix: string): TestPair {
  const [host, peer, client, wires] = ['h', 'p', 'c', 'w'].map(name => new Netns(`${prefix}${name}`)) as [
    Netns,
    Netns,
    Netns,
    Netns,
  ]
  connectByBridge({
    bridge: wires,
    name: 'lan',
    attachments: [
      { ns: host, iface: 'lan0', mac: '52:54:00:00:09:01', addresses: [`${HOST4}/24`, `${HOST6}/64`] },
      { ns: peer, iface: 'lan0', mac: '52:54:00:00:09:02', addresses: [`${PEER_LAN4}/24`, 'fd09::2/64'] },
      { ns: client, iface: 'lan0', mac: '52:54:00:00:09:09', addresses: [`${CLIENT4}/24`, 'fd09::9/64'] },
    ],
  })
  connectByBridge({
    bridge: wires,
    name: 'peers',
    attachments: [
      { ns: host, iface: 'pl0', addresses: [`${HOST_LINK4}/24`, `${HOST_LINK6}/64`] },
      { ns: peer, iface: 'pl0', addresses: [`${PEER_LINK4}/24`, `${PEER_LINK6}/64`] },
    ],
  })
  const remove = async () => {
    await Promise.all([host, peer, client, wires].map(ns => ns.remove()))
  }
  return { host, peer, client, remove }
}
