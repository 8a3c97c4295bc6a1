import { sql } from 'drizzle-orm'
import { storeHeartbeats } from '../../../control-plane/services/ingest/store-reports.ts'
import { sweep } from '../../../control-plane/services/sweep.ts'
import { summary } from '../statistics.ts'
import { benchDeps } from './bench-deps.ts'
import { type Row, rounded } from './rows.ts'
import { hostId, processorSeconds, type Stand, seedFleet } from './stand.ts'

const batchRows = 500
const batches = 200

/** Heartbeats that are decoded already, in batches as the ingest makes them, into rows: what the database bears. */
export async function measureBatches(stand: Stand, { count }: { count: number }): Promise<Row[]> {
  await seedFleet(stand, count)
  const { deps, close } = await benchDeps(stand, { connections: 1 })
  try {
    const batch = (number: number) =>
      Array.from({ length: batchRows }, (_, at) => ({
        organisation: stand.organisation,
        host: hostId(((number * batchRows + at) % count) + 1),
        body: { boot: 2, seq: number, role: 'backup' as const, epoch: 1 },
      }))
    for (let number = 1; number <= 20; number++) await storeHeartbeats(deps, batch(number))
    let stored = 0
    const began = performance.now()
    for (let number = 21; number <= 20 + batches; number++) stored += await storeHeartbeats(deps, batch(number))
    const seconds = (performance.now() - began) / 1000
    return [
      {
        name: 'decoded heartbeats to rows, batches of 500',
        value: Math.round(stored / seconds),
        unit: 'rows/s',
        bound: { atLeast: 20_000 },
        of: { rows: stored, hosts: count },
      },
    ]
  } finally {
    await close()
  }
}

const sweeps = 7

/** One sweep over a fleet at rest, and one in which a sixtieth of an hour's documents are due. */
export async function measureSweep(stand: Stand, { nodes }: { nodes: number }): Promise<Row[]> {
  await seedFleet(stand, nodes)
  const { deps, close } = await benchDeps(stand)
  try {
    const timed = async (): Promise<number> => {
      const began = performance.now()
      await sweep(deps)
      return performance.now() - began
    }
    const refresh = async (): Promise<void> => {
      await deps.database.execute(sql`update host_seen set received_at = now()`)
    }
    await timed()
    const rest: number[] = []
    let processorMs = 0
    const used = (): number =>
      Object.values(processorSeconds()).reduce((sum, seconds) => sum + seconds * 1000, 0) +
      process.cpuUsage().user / 1000
    for (let round = 0; round < sweeps; round++) {
      await refresh()
      const before = used()
      rest.push(await timed())
      processorMs += used() - before
    }
    const due = Math.ceil(nodes / 60)
    const pushing: number[] = []
    for (let round = 0; round < 3; round++) {
      await refresh()
      await deps.database.transaction(async tx => {
        await tx.execute(sql`select set_config('app.organisation', '*', true)`)
        await tx.execute(
          sql`update host_desired set pushed_at = now() - interval '1 hour', push_at = now() where host <= ${hostId(due)}`,
        )
      })
      pushing.push(await timed())
    }
    return [
      {
        name: `sweep over ${nodes} nodes at rest`,
        value: rounded(summary(rest).median),
        unit: 'ms',
        bound: { atMost: 1000 },
        of: { ...summary(rest), processorMs: rounded(processorMs / sweeps, 0) },
      },
      {
        name: `sweep over ${nodes} nodes, ${due} documents due again`,
        value: rounded(summary(pushing).median),
        unit: 'ms',
        of: { ...summary(pushing) },
      },
    ]
  } finally {
    await close()
  }
}
