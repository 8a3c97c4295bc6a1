import { randomBytes } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { witnessVote } from '../../../control-plane/db/schema/witness.ts'
import { currentPlace, currentTimeline } from '../../../control-plane/services/witness/timeline.ts'
import { headerHost, headerSignature, witnessPath } from '../../../shared/contract/witness.ts'
import { figuresOf } from '../../../shared/figures.ts'
import { ballotOf } from '../../../shared/protocol/ballot.ts'
import type { RegisterRequest } from '../../../shared/protocol/types.ts'
import { signRequest } from '../../../shared/signing.ts'
import { newHostKey, valueWith } from '../../fixtures/witness.ts'
import { summary } from '../statistics.ts'
import { type Part, startPart } from './child.ts'
import { load } from './http-load.ts'
import { type Row, rounded } from './rows.ts'
import { hostId, type Stand } from './stand.ts'

/** What a request costs: a read beside its floor, and a vote. */
export async function measureRequests(stand: Stand): Promise<Row[]> {
  const { part, first } = await startPart<{ url: string; bareUrl: string }>('server.ts', [
    `${stand.folder}/server`,
    stand.databaseUrl,
  ])
  try {
    return [...(await reads(stand, part, first)), ...(await votes(stand, first.url))]
  } finally {
    await part.end()
  }
}

const rounds = 9
const perRound = 150

/** In turns, so that whatever else this machine does falls on both; each round is one ratio. */
async function reads(stand: Stand, part: Part, at: { url: string; bareUrl: string }): Promise<Row[]> {
  const make = () => ({ method: 'GET', headers: { authorization: `Bearer ${stand.token}` } })
  const ours = `${at.url}/v1/hosts/${hostId(1)}`
  const bare = `${at.bareUrl}/hosts/${hostId(1)}`
  const cpuMs = async (): Promise<number> => {
    const { user, system } = await part.ask<NodeJS.CpuUsage>('cpu')
    return (user + system) / 1000
  }
  const rows: Row[] = []
  for (const connections of [1, 8]) {
    const ratios: number[] = []
    const spent = { ours: 0, bare: 0 }
    const took: { ours: number[]; bare: number[] } = { ours: [], bare: [] }
    for (const url of [ours, bare]) await load({ url, connections, count: perRound, make })
    for (let round = 0; round < rounds; round++) {
      const mean: Record<'ours' | 'bare', number> = { ours: 0, bare: 0 }
      for (const which of round % 2 === 0 ? (['ours', 'bare'] as const) : (['bare', 'ours'] as const)) {
        const before = await cpuMs()
        const began = performance.now()
        took[which].push(...(await load({ url: which === 'ours' ? ours : bare, connections, count: perRound, make })))
        mean[which] = (performance.now() - began) / perRound
        spent[which] += (await cpuMs()) - before
      }
      ratios.push(mean.ours / mean.bare)
    }
    const requests = rounds * perRound
    rows.push({
      name: `authenticated GET, ${connections} at once, beside bare Hono`,
      value: rounded(summary(ratios.map(one => one * 1000)).median / 1000),
      unit: 'times',
      bound: { atMost: 1.5 },
      of: {
        rounds,
        requests,
        ours: figuresOf(took.ours),
        bare: figuresOf(took.bare),
        processorMsPerRequest: { ours: rounded(spent.ours / requests, 3), bare: rounded(spent.bare / requests, 3) },
      },
    })
  }
  return rows
}

const voteCount = 700

/** Each a durable write, signed, over HTTP; the client's signature is outside the measured time. */
async function votes(stand: Stand, url: string): Promise<Row[]> {
  const key = await newHostKey()
  const inc = `bench-${randomBytes(8).toString('hex')}`
  const pair = 'bench'
  const ballot = (n: number): number => ballotOf({ gen: 0, n, node: 'a' })
  const admin = postgres(stand.adminUrl, { max: 1 })
  await drizzle(admin)
    .insert(witnessVote)
    .values({
      organisation: stand.organisation,
      pair,
      inc,
      timeline: sql<number>`${currentTimeline}`,
      admittedIn: sql<string>`${currentPlace}`,
      promised: ballot(1),
      acceptedBallot: ballot(1),
      acceptedValue: valueWith(inc),
      nonce: 'bench',
      keys: { a: key.publicKey },
      keysGeneration: 1,
      admittedAt: new Date(),
    })
  await admin.end()
  const path = witnessPath.vote(pair)
  const signed = await Promise.all(
    Array.from({ length: voteCount }, async (_, at) => {
      const n = at + 2
      const request: RegisterRequest = {
        kind: 'cas',
        req: n,
        inc,
        ballot: ballot(n),
        expect: ballot(n - 1),
        value: valueWith(inc, { version: n }),
      }
      const body = new TextEncoder().encode(JSON.stringify(request))
      const signature = await signRequest(key.signingKey, { host: 'a', method: 'POST', path, body })
      const headers = { 'content-type': 'application/json', [headerHost]: 'a', [headerSignature]: signature }
      return { method: 'POST', headers, body }
    }),
  )
  const took = await load({
    url: `${url}/witness/v1/${stand.organisation}${path}`,
    connections: 1,
    count: voteCount,
    make: number => signed[number]!,
  })
  const figures = figuresOf(took.slice(100))
  return [
    {
      name: 'vote of the hosted witness, over HTTP on loopback, p50',
      value: rounded(figures.p50Ms),
      unit: 'ms',
      bound: { atMost: 5 },
      of: { ...figures },
    },
  ]
}
