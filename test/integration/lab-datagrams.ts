/**
 * Sends numbered datagrams from one lab member to another and tells which arrived, and how late: the measure for every
 * fault of the network. As a program: `lab-datagrams.ts listen ADDRESS` or `… send ADDRESS PORT COUNT INTERVAL_MS`.
 */

import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { addressOf, type LinkName, type Member } from '../../infra/lab/addresses.ts'
import { nowMs } from '../../infra/lab/database-client.ts'
import { run } from '../../infra/lab/exec.ts'
import { nodeCommand } from '../../infra/lab/fabric.ts'
import { networkOf } from '../../infra/lab/hosts.ts'
import { until } from '../fixtures/until.ts'

const DRAIN_MS = 5

export interface Arrival {
  sequence: number
  lateMs: number
}

export interface Flow {
  from: Member
  to: Member
  link?: LinkName
  family?: 'v4' | 'v6'
  count?: number
  intervalMs?: number
  /** Wait so long after the last one was sent. */
  settleMs?: number
}

/** Arrivals in the order of arrival, duplicates included. */
export async function sendDatagrams(lab: string, flow: Flow): Promise<Arrival[]> {
  const { from, to, link = 'lan', family = 'v4', count = 20, intervalMs = 1, settleMs = 50 } = flow
  const address = addressOf(to, link)[family]
  const program = (...args: string[]) => nodeCommand(import.meta.filename, args)
  const [command, args] = networkOf(lab, to, program('listen', address))
  const listener = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  listener.stdout.on('data', chunk => {
    output += chunk
  })
  const port = () => /^listening (\d+)\n/.exec(output)?.[1]
  await until(() => port() !== undefined)
  await run(...networkOf(lab, from, program('send', address, port() ?? '', String(count), String(intervalMs))))
  await sleep(settleMs)
  listener.kill('SIGTERM')
  await once(listener, 'close')
  return output
    .split('\n')
    .filter(line => /^\d/.test(line))
    .map(line => ({ sequence: Number(line.split(' ')[0]), lateMs: Number(line.split(' ')[1]) }))
}

/** True if every one of a few datagrams arrives, false if none does. */
export async function passes(lab: string, flow: Flow): Promise<boolean> {
  const count = 5
  const arrived = (await sendDatagrams(lab, { ...flow, count })).length
  if (arrived !== 0 && arrived !== count) throw new Error(`${arrived} of ${count} datagrams arrived.`)
  return arrived === count
}

async function main([mode, address = '', port = '', count = '', intervalMs = '']: string[]): Promise<void> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
  if (mode === 'listen') {
    socket.on('message', message => {
      const [sequence, sentMs] = message.toString().split(' ')
      process.stdout.write(`${sequence} ${(nowMs() - Number(sentMs)).toFixed(3)}\n`)
    })
    // A port of its own for each flow: the kernel keeps datagrams that wait for an address (ARP, RFC 1122 2.3.2.2) and
    // delivers them when the address is known, which would be to the next flow.
    socket.bind(0, address, () => process.stdout.write(`listening ${socket.address().port}\n`))
    // What has arrived by then is told, also where this process had no processor until now: between two timers the loop
    // reads its sockets.
    process.once('SIGTERM', () => setTimeout(() => setTimeout(() => process.exit(0), DRAIN_MS), DRAIN_MS))
    return
  }
  for (let sequence = 0; sequence < Number(count); sequence += 1) {
    // The member's network may have no route left; that is a datagram that does not arrive.
    socket.send(`${sequence} ${nowMs()}`, Number(port), address, () => {})
    await sleep(Number(intervalMs))
  }
  await sleep(20)
  socket.close()
}

if (import.meta.main) await main(process.argv.slice(2))
