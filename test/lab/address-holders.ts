/**
 * Asks for an IPv4 address by ARP some times and prints who answered, as a JSON array of hardware addresses, each once.
 * `address-holders.ts INTERFACE OWN_HARDWARE_ADDRESS ADDRESS`, in the network that is meant. A probe asks without
 * claiming (RFC 5227, 1.1).
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { ETH_P_ARP, PacketSocket } from '../../node-agent/kernel/packet.ts'
import { arpProbe, readArp } from '../../node-agent/vip/frames.ts'

const REQUESTS = 5
const EVERY_MS = 20
const SETTLE_MS = 60
const FRAMES_LIMIT = 1_000

async function main([iface = '', mac = '', address = '']: string[]): Promise<void> {
  const socket = new PacketSocket({ iface, etherType: ETH_P_ARP })
  const wanted = Buffer.from(address.split('.').map(Number))
  const holders = new Set<string>()
  for (let request = 0; request < REQUESTS; request += 1) {
    socket.send(arpProbe(mac, address))
    await sleep(EVERY_MS)
  }
  await sleep(SETTLE_MS)
  for (let count = 0; count < FRAMES_LIMIT; count += 1) {
    const frame = socket.receive()
    if (frame === undefined) break
    const packet = readArp(frame)
    // Announcements are not answers to this question, but who sends one holds the address as well.
    if (packet?.senderIp.equals(wanted)) holders.add(packet.senderMac)
  }
  socket.close()
  process.stdout.write(JSON.stringify([...holders]))
}

await main(process.argv.slice(2))
