import postgres from 'postgres'
import { type Part, startPart } from './child.ts'
import { type Row, rounded } from './rows.ts'
import { processorSeconds, type Stand, seedFleet } from './stand.ts'

/** Ten thousand agents against one broker, one ingest worker and PostgreSQL, all on this machine. */
const lookEveryMs = 250

interface Counts {
  reports: number
  heartbeats: number
  refused: number
  dropped: number
}

interface Course {
  name: string
  heartbeatEveryMs: number
  reportEveryMs: number | null
  seconds: number
  bound: Row['bound']
}

const courses: readonly Course[] = [
  {
    name: 'lag, heartbeats each 10 s and reports each 30 s, as agents do',
    heartbeatEveryMs: 10_000,
    reportEveryMs: 30_000,
    seconds: 30,
    bound: { atMost: 2000 },
  },
  {
    name: 'lag, heartbeats and whole reports each 10 s',
    heartbeatEveryMs: 10_000,
    reportEveryMs: 10_000,
    seconds: 40,
    bound: { atMost: 2000 },
  },
]

export async function measureFleet(stand: Stand, { count }: { count: number }): Promise<Row[]> {
  await seedFleet(stand, count)
  const worker = await startPart<string>('ingest-worker.ts', [
    stand.databaseUrl,
    JSON.stringify(stand.broker),
    JSON.stringify(stand.secrets),
  ])
  const agents = await startPart<string>('agents.ts', [])
  try {
    const began = performance.now()
    const connected = await agents.part.ask<number>({
      do: 'connect',
      organisation: stand.organisation,
      count,
      port: Number(new URL(stand.broker.url).port),
      authority: stand.authority,
      secrets: stand.secrets,
      hostKey: stand.hostKey,
    })
    const rows: Row[] = [
      {
        name: 'agents connected with TLS and a certificate each',
        value: connected,
        unit: 'agents',
        of: { perSecond: Math.round((connected / (performance.now() - began)) * 1000) },
      },
    ]
    for (const course of courses) rows.push(await run(stand, course, { worker: worker.part, agents: agents.part }))
    rows.push(await flood(stand, { count, worker: worker.part, agents: agents.part }))
    return rows
  } finally {
    await agents.part.end()
    await worker.part.end()
  }
}

/**
 * Lag: how old the last word of a host is in the tables, as another connection sees them, beyond the pause between two
 * words. The worst of ten thousand is what counts, at every look.
 */
async function run(stand: Stand, course: Course, { worker, agents }: { worker: Part; agents: Part }): Promise<Row> {
  const { heartbeatEveryMs, reportEveryMs } = course
  const sql = postgres(stand.adminUrl, { max: 1 })
  try {
    await agents.ask({ do: 'pace', heartbeatEveryMs, reportEveryMs })
    // Until each host has spoken once.
    await pause(heartbeatEveryMs + 1_000)
    const before = { counts: await worker.ask<Counts>('counts'), cpu: processorSeconds() }
    const worst: number[] = []
    const worstReport: number[] = []
    const began = performance.now()
    while (performance.now() - began < course.seconds * 1000) {
      const now = Date.now()
      const [seen] = await sql<{ age: number }[]>`select (${now}::bigint - min(seq))::float8 as age from host_seen`
      worst.push(seen!.age - heartbeatEveryMs)
      if (reportEveryMs === heartbeatEveryMs) {
        const [reported] = await sql<
          { age: number }[]
        >`select (${now}::bigint - min(seq))::float8 as age from host_reported`
        worstReport.push(reported!.age - reportEveryMs)
      }
      await pause(lookEveryMs)
    }
    const elapsed = (performance.now() - began) / 1000
    const after = { counts: await worker.ask<Counts>('counts'), cpu: processorSeconds() }
    await agents.ask({ do: 'stop' })
    const rate = (name: 'heartbeats' | 'reports'): number =>
      Math.round((after.counts[name] - before.counts[name]) / elapsed)
    return {
      name: course.name,
      value: Math.max(0, Math.round(Math.max(...worst, ...worstReport))),
      unit: 'ms',
      bound: course.bound!,
      of: {
        looks: worst.length,
        heartbeatsPerSecond: rate('heartbeats'),
        reportsPerSecond: rate('reports'),
        dropped: after.counts.dropped - before.counts.dropped,
        refused: after.counts.refused - before.counts.refused,
        coresUsed: Object.fromEntries(
          Object.entries(after.cpu)
            .map(([program, seconds]) => [program, rounded((seconds - (before.cpu[program] ?? 0)) / elapsed)] as const)
            .filter(([, cores]) => cores > 0.01),
        ),
      },
    }
  } finally {
    await sql.end()
  }
}

const floodSeconds = 10

/** As fast as the way carries it: agents speak ten times a second each, until something is full. */
async function flood(stand: Stand, part: { count: number; worker: Part; agents: Part }): Promise<Row> {
  const { count, worker, agents } = part
  const rates: { offered: number; stored: number }[] = []
  for (const everyMs of [2_000, 1_000, 500]) {
    await agents.ask({ do: 'pace', heartbeatEveryMs: everyMs, reportEveryMs: null })
    await pause(1_000)
    const before = await worker.ask<Counts>('counts')
    const began = performance.now()
    await pause(floodSeconds * 1000)
    const after = await worker.ask<Counts>('counts')
    const seconds = (performance.now() - began) / 1000
    await agents.ask({ do: 'stop' })
    rates.push({
      offered: Math.round((count * 1000) / everyMs),
      stored: Math.round((after.heartbeats - before.heartbeats) / seconds),
    })
    await pause(2_000)
  }
  return {
    name: 'heartbeats from agents to rows, the whole way over MQTT',
    value: Math.max(...rates.map(rate => rate.stored)),
    unit: 'rows/s',
    of: { rates, agentsOnTheSameCores: stand.folder !== '' },
  }
}

const pause = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
