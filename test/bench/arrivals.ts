/**
 * When packets of the peer link pass an interface, both ways. As a program (`arrivals.ts IFACE UDP_PORT OWN_ADDRESS`) it
 * looks every millisecond, in the real-time class, since the machine around it is kept busy on purpose, and prints a
 * line for each: "> time" or "< time", in ms of CLOCK_MONOTONIC.
 */
import { spawn } from 'node:child_process'
import type { HostName } from '../../infra/lab/addresses.ts'
import { addressOf, INTERFACE, PEER_PORT } from '../../infra/lab/addresses.ts'
import { nowMs } from '../../infra/lab/database-client.ts'
import { nodeCommand } from '../../infra/lab/fabric.ts'
import { networkOf } from '../../infra/lab/hosts.ts'
import { PacketSocket } from '../../node-agent/kernel/packet.ts'

export interface Arrival {
  atMs: number
  outgoing: boolean
}

/** packet(7): both directions, whatever the protocol. */
const ETH_P_ALL = 3
const LOOK_EVERY_MS = 1
const ETHERNET_BYTES = 14
const UDP = 17

/** Watches the direct link of a lab host until `end`. */
export function watchPeerLink(lab: string, host: HostName): { end: () => Arrival[] } {
  const args = [INTERFACE.peer, String(PEER_PORT), addressOf(host, 'peer').v4]
  const [command, rest] = networkOf(lab, host, ['chrt', '--rr', '2', ...nodeCommand(import.meta.filename, args)])
  const watcher = spawn(command, rest, { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  watcher.stdout.on('data', chunk => {
    text += chunk
  })
  return {
    end: () => {
      watcher.kill('SIGKILL')
      const lines = text.split('\n').slice(0, -1)
      return lines.map(line => ({ outgoing: line.startsWith('>'), atMs: Number(line.slice(2)) }))
    },
  }
}

function watch(iface: string, udpPort: number, own: string): void {
  const socket = new PacketSocket({ iface, etherType: ETH_P_ALL })
  const ownBytes = Buffer.from(own.split('.').map(Number))
  setInterval(() => {
    for (let frame = socket.receive(); frame !== undefined; frame = socket.receive()) {
      const packet = frame.subarray(ETHERNET_BYTES)
      const isIpv4Udp = frame.readUInt16BE(12) === 0x0800 && packet[9] === UDP
      if (!isIpv4Udp || packet.readUInt16BE((packet[0]! & 15) * 4 + 2) !== udpPort) continue
      const outgoing = packet.subarray(12, 16).equals(ownBytes)
      process.stdout.write(`${outgoing ? '>' : '<'} ${nowMs().toFixed(2)}\n`)
    }
  }, LOOK_EVERY_MS)
}

if (import.meta.main) {
  const [iface, udpPort, own] = process.argv.slice(2)
  if (iface === undefined || udpPort === undefined || own === undefined)
    throw new Error('usage: arrivals.ts IFACE UDP_PORT OWN_ADDRESS')
  watch(iface, Number(udpPort), own)
}
