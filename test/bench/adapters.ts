/**
 * `npm run bench:adapters`: what the adapters to the host cost. A virtual address until a client is answered through it,
 * beside the round trip of one that is there; the inventory of a large host, and what a loop beside it notices, and the
 * heartbeats of a real pair; a scan of 32 adapters. `--json`: the last line of stdout is one JSON object. `--seconds N` for
 * each of the two parts of the pair (default 60; 0 leaves the pair out).
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { ALL_PACKAGES, ensureDebianPackages, unsuitable } from '../../infra/dev/debian-packages.ts'
import { exec } from '../../node-agent/exec.ts'
import { bootMs } from '../../node-agent/kernel/clock.ts'
import { readNetwork } from '../../node-agent/network/inventory.ts'
import { storageInventory } from '../../node-agent/storage/inventory.ts'
import { Scanner } from '../../node-agent/storage/scan.ts'
import { Sysfs } from '../../node-agent/storage/sysfs.ts'
import { VirtualAddresses } from '../../node-agent/vip/virtual-addresses.ts'
import { stepBack } from '../../node-agent/workers/worker-process.ts'
import { type Figures, figuresOf } from '../../shared/figures.ts'
import { Netns } from '../integration/support/netns.ts'
import { createPair, type TestPair, VIP4 } from '../integration/support/pair.ts'
import { fakeSysfs } from '../unit/hosts/fake-sysfs.ts'
import { DEVICES, INTERFACES, interfacesBatch, largeHost } from './adapters-large-host.ts'
import { type Beats, heartbeatsOfAPair } from './adapters-pair.ts'

const PORT = 7000
const CLIENT = new URL('./adapters-client.ts', import.meta.url)
const HEART = new URL('./adapters-heart.ts', import.meta.url)

async function ready(child: ChildProcess): Promise<ChildProcess> {
  await once(child, 'message')
  return child
}

/** The address moves to and fro between two hosts; a client sends each millisecond. */
async function virtualAddress(runs: number): Promise<{ vipAddMs: Figures; floorRoundTripMs: Figures }> {
  const net: TestPair = createPair('unba')
  try {
    const stdio = { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] as ['ignore', 'inherit', 'inherit', 'ipc'] }
    const server = (ns: Netns, name: string) => ready(ns.node(CLIENT, ['server', '0.0.0.0', `${PORT}`, name], stdio))
    await server(net.host, 'host')
    await server(net.peer, 'peer')
    const client = await ready(net.client.node(CLIENT, ['client', VIP4, `${PORT}`], stdio))
    const vipsOf = (ns: Netns) => ns.run(() => new VirtualAddresses([{ iface: 'lan0', address: VIP4 }]))
    const sides = [
      { name: 'host', ns: net.host, vips: vipsOf(net.host) },
      { name: 'peer', ns: net.peer, vips: vipsOf(net.peer) },
    ]
    const answerOf = async (name: string, afterMs: number): Promise<number> => {
      client.send({ server: name, afterMs })
      const [{ answeredMs }] = (await once(client, 'message')) as [{ answeredMs: number }]
      return answeredMs - afterMs
    }
    const claim = (side: (typeof sides)[number]): Promise<number> => {
      const began = bootMs()
      side.ns.run(() => {
        side.vips.add()
        side.vips.announce(bootMs())
      })
      return answerOf(side.name, began)
    }
    await claim(sides[0]!)
    const moves: number[] = []
    const trips: number[] = []
    for (let run = 1; run <= runs; run += 1) {
      const [from, to] = [sides[(run + 1) % 2]!, sides[run % 2]!]
      // The next answer of a server that has the address: a wait for the next datagram, and its way there and back.
      trips.push(await answerOf(from.name, bootMs()))
      from.ns.run(() => from.vips.remove())
      await sleep(20 + Math.random() * 20)
      moves.push(await claim(to))
    }
    for (const side of sides) side.vips.close()
    return { vipAddMs: figuresOf(moves), floorRoundTripMs: figuresOf(trips) }
  } finally {
    await net.remove()
  }
}

/** A host with many interfaces and disks; the disks are a tree of files, which sysfs is too. */
async function inventory(runs: number): Promise<{ inventoryMs: Figures; devices: number; interfaces: number }> {
  const tree = fakeSysfs(largeHost())
  const ns = new Netns('unba-inv')
  try {
    for (const line of interfacesBatch()) ns.exec('ip', ...line.split(' '))
    const ask = (argv: readonly string[], limitMs: number) =>
      exec(['ip', 'netns', 'exec', ns.name, ...argv], { limitMs })
    const sysfs = new Sysfs(tree.root)
    const samples: number[] = []
    let seen = { devices: 0, interfaces: 0 }
    for (let run = 0; run < runs; run += 1) {
      const began = performance.now()
      const [storage, network] = await Promise.all([
        storageInventory(sysfs),
        readNetwork({ record: [], vips: [], root: tree.root, ask }),
      ])
      samples.push(performance.now() - began)
      seen = { devices: storage.devices.length, interfaces: network.nics.length }
    }
    if (seen.devices !== DEVICES || seen.interfaces !== INTERFACES) {
      throw new Error(
        `the inventory saw ${seen.devices} devices and ${seen.interfaces} interfaces of ${DEVICES} and ${INTERFACES}`,
      )
    }
    return { inventoryMs: figuresOf(samples), ...seen }
  } finally {
    await ns.remove()
    tree.remove()
  }
}

/** How late the core's loop is, calm and while a look at a large host runs beside it as the agent has it run. */
async function heartbeatBeside(): Promise<{
  loopLateCalmMs: Figures
  loopLateBesideMs: Figures
  netlinkCalmMs: Figures
  netlinkBesideMs: Figures
}> {
  const stdio = ['ignore', 'inherit', 'inherit', 'ipc'] as ['ignore', 'inherit', 'inherit', 'ipc']
  const node = ['--disable-warning=ExperimentalWarning']
  const heart = await ready(spawn(process.execPath, [...node, fileURLToPath(HEART)], { stdio }))
  const beats = async (): Promise<{ late: number[]; netlinkMs: number[] }> => {
    heart.send('tell')
    const [told] = (await once(heart, 'message')) as [{ late: number[]; netlinkMs: number[] }]
    return told
  }
  try {
    await sleep(500)
    await beats()
    await sleep(5000)
    const calm = await beats()
    const child = spawn(process.execPath, [...node, import.meta.filename, '--only-inventory'], {
      stdio: 'ignore',
    })
    await once(child, 'close')
    const beside = await beats()
    return {
      loopLateCalmMs: figuresOf(calm.late),
      loopLateBesideMs: figuresOf(beside.late),
      netlinkCalmMs: figuresOf(calm.netlinkMs),
      netlinkBesideMs: figuresOf(beside.netlinkMs),
    }
  } finally {
    heart.kill('SIGKILL')
  }
}

async function scan(runs: number): Promise<{ scanMs: Figures; adapters: number; devices: number }> {
  const tree = fakeSysfs(largeHost())
  try {
    const sysfs = new Sysfs(tree.root)
    const { adapters, devices } = await storageInventory(sysfs)
    // Without devices: their capacities are one write each, and the adapters are what is scanned.
    const scanner = new Scanner({ sysfs, devices: async () => [] })
    const samples: number[] = []
    for (let run = 0; run < runs; run += 1) {
      const began = performance.now()
      const result = await scanner.scan(adapters, { limitMs: 10_000, lip: false })
      samples.push(performance.now() - began)
      const failed = result.adapters.find(one => !one.ok)
      if (failed !== undefined) throw new Error(`${failed.adapter} was not scanned`)
    }
    return { scanMs: figuresOf(samples), adapters: adapters.length, devices: devices.length }
  } finally {
    tree.remove()
  }
}

const say = (line: string): void => {
  process.stderr.write(`${line}\n`)
}
const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    runs: { type: 'string', default: '20' },
    seconds: { type: 'string', default: '60' },
    'only-inventory': { type: 'boolean', default: false },
  },
})
const runs = Number(values.runs)
const seconds = Number(values.seconds)
if (!(runs >= 1 && runs <= 10_000)) throw new Error(`--runs is "${values.runs}"; use 1 to 10000.`)
if (!(seconds >= 0 && seconds <= 3600)) throw new Error(`--seconds is "${values.seconds}"; use 0 to 3600.`)
const reason = unsuitable()
if (reason !== null) throw new Error(reason)
if (values['only-inventory']) {
  stepBack()
  await inventory(10)
} else {
  await ensureDebianPackages(ALL_PACKAGES, { why: 'the benchmark', say })
  const vip = await virtualAddress(runs)
  const large = await inventory(runs)
  const scanned = await scan(Math.min(runs, 10))
  const beside = await heartbeatBeside()
  const pair = seconds === 0 ? null : await heartbeatsOfAPair(seconds, say)
  const show = (f: Figures): string => `p50 ${f.p50Ms} ms, p99 ${f.p99Ms} ms, max ${f.maxMs} ms (${f.count} runs)`
  console.log(`virtual address until a client is answered: ${show(vip.vipAddMs)}   to reach: 30 ms`)
  console.log(`  floor, the next answer of one that is there: ${show(vip.floorRoundTripMs)}`)
  console.log(
    `inventory of ${large.interfaces} interfaces and ${large.devices} block devices: ${show(large.inventoryMs)}   to reach: 300 ms`,
  )
  console.log(`scan of ${scanned.adapters} adapters at once: ${show(scanned.scanMs)}`)
  console.log(`the core's loop of 10 ms is late, calm: ${show(beside.loopLateCalmMs)}`)
  console.log(`  and beside inventories without a pause: ${show(beside.loopLateBesideMs)}`)
  console.log(`its question to the kernel for addresses takes, calm: ${show(beside.netlinkCalmMs)}`)
  console.log(`  and beside: ${show(beside.netlinkBesideMs)}`)
  if (pair !== null) {
    const beats = ({ primary, backup, late }: Beats): string =>
      `primary ${show(primary)}; backup ${show(backup)}; ${late} half an interval late`
    console.log(`between heartbeats of a pair of such hosts (${pair.heartbeatMs} ms wanted), calm: ${beats(pair.calm)}`)
    console.log(`  and beside ${pair.looks} inventories: ${beats(pair.beside)}   to reach: none late`)
    console.log(`  the pair was ${pair.stillProtected ? 'protected all the time' : 'NOT PROTECTED meanwhile'}`)
  }
  if (values.json) console.log(JSON.stringify({ bench: 'adapters', ...vip, ...large, ...scanned, ...beside, pair }))
}
