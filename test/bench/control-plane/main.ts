/**
 * `npm run bench:control-plane [-- --json] [-- --only commands,requests,batches,fleet,sweep] [--agents 10000]`: what the control plane
 * carries, on its own PostgreSQL and Mosquitto, each figure beside the bound it is held to and the floor of the same run.
 * The last line of --json is one object. The load comes from this machine too, so its processor is part of each figure.
 */
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { ensureDebianPackages, LAB_PACKAGES } from '../../../infra/dev/debian-packages.ts'
import { measureCommands } from './commands.ts'
import { measureFleet } from './fleet.ts'
import { measureRequests } from './requests.ts'
import { met, type Row, show } from './rows.ts'
import { makeStand, seedFleet } from './stand.ts'
import { measureBatches, measureSweep } from './tables.ts'

const parts = ['commands', 'requests', 'batches', 'fleet', 'sweep'] as const
const { values } = parseArgs({
  options: {
    json: { type: 'boolean' },
    only: { type: 'string', default: parts.join(',') },
    agents: { type: 'string', default: '10000' },
    nodes: { type: 'string', default: '100000' },
  },
})
const wanted = values.only.split(',')
const unknown = wanted.find(one => !parts.some(part => part === one))
if (unknown !== undefined) throw new Error(`--only ${unknown}: choose of ${parts.join(', ')}`)
const count = Number(values.agents)
const nodes = Number(values.nodes)

const rows: Row[] = []
const began = performance.now()
const say = (what: string): void => {
  process.stderr.write(`${((performance.now() - began) / 1000).toFixed(0)} s: ${what}\n`)
}
const add = (measured: Row[]): void => {
  rows.push(...measured)
  if (values.json !== true) for (const row of measured) console.log(show(row))
}
if (wanted.includes('commands')) {
  say('two hosts in the lab, for commands')
  await ensureDebianPackages([...LAB_PACKAGES, 'mosquitto'], { why: 'the benchmark', say })
  add(await measureCommands(say))
}
say('PostgreSQL and Mosquitto start')
const stand = await makeStand()
try {
  if (wanted.includes('requests')) {
    say(`${count} hosts into the tables, then requests`)
    await seedFleet(stand, count)
    add(await measureRequests(stand))
  }
  if (wanted.includes('batches')) {
    say('batches')
    add(await measureBatches(stand, { count }))
  }
  if (wanted.includes('fleet')) {
    say(`${count} agents`)
    add(await measureFleet(stand, { count }))
  }
  if (wanted.includes('sweep')) {
    say(`sweep over ${nodes} nodes`)
    add(await measureSweep(stand, { nodes }))
  }
} finally {
  await stand.close()
}
const missed = rows.filter(row => met(row) === false)
if (values.json === true) {
  const [processor] = cpus()
  const machine = { cores: cpus().length, processor: processor?.model ?? 'unknown' }
  console.log(
    JSON.stringify({ bench: 'control-plane', v: 1, machine, rows: rows.map(row => ({ ...row, met: met(row) })) }),
  )
} else {
  for (const row of rows) console.log(`  ${row.name}: ${JSON.stringify(row.of ?? {})}`)
}
process.exitCode = missed.length === 0 ? 0 : 1
