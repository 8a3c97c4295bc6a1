/**
 * A client of `bench:adapters`: sends a datagram to the address each millisecond; answers over IPC with the time
 * (CLOCK_BOOTTIME, ms) of the first answer that a server gave after the time asked about.
 */
import { createSocket } from 'node:dgram'
import { bootMs } from '../../node-agent/kernel/clock.ts'

const [, , role, address = '', port = '0'] = process.argv
const socket = createSocket('udp4')

if (role === 'server') {
  // The name of the server is its first argument after the port.
  const name = Buffer.from(process.argv[5] ?? '')
  socket.on('message', (_, from) => socket.send(name, from.port, from.address))
  socket.bind(Number(port), address, () => process.send?.('ready'))
} else {
  let wanted: { server: string; afterMs: number } | null = null
  socket.on('message', text => {
    const now = bootMs()
    if (wanted === null || text.toString() !== wanted.server || now < wanted.afterMs) return
    wanted = null
    process.send?.({ answeredMs: now })
  })
  socket.bind(0, () => process.send?.('ready'))
  setInterval(() => socket.send('?', Number(port), address), 1)
  process.on('message', (ask: { server: string; afterMs: number }) => {
    wanted = ask
  })
}
