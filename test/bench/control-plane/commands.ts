import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { adoptLab } from '../../../infra/lab/adopt.ts'
import { down, up } from '../../../infra/lab/lab.ts'
import { until, untilProtected } from '../../../infra/lab/pair.ts'
import { agentPaths } from '../../../infra/lab/product.ts'
import { untilEnded } from '../../../infra/lab/remote-set-up.ts'
import { controlFolderOf } from '../../../node-agent/control/core-side.ts'
import { journalOf } from '../../../node-agent/control/memory.ts'
import { type Ack, ack as ackSchema } from '../../../shared/contract/documents.ts'
import { figuresOf } from '../../../shared/figures.ts'
import { buildBundles } from '../bundles.ts'
import { type Row, rounded } from './rows.ts'

/**
 * From the call of the API to its answer that the host has done it: two real hosts in the lab, with the agent as users
 * install it and Mosquitto between. Maintenance is what is commanded, since the pair has to agree on it (a round of its
 * register to the other host and the witness, written to both disks), and since it can be commanded again and again.
 */
const lab = 'bench-commands'
const warmUp = 10
const commands = 200
/** Seconds. */
const waitSeconds = 10
const reportLimitMs = 30_000
const endLimitMs = 60_000

export async function measureCommands(say: (what: string) => void): Promise<Row[]> {
  await buildBundles()
  await up({ name: lab, say })
  try {
    await untilProtected(lab)
    const plane = await adoptLab(lab, say)
    const { api, pair } = plane
    const params = { pair }
    const etag = await until(reportLimitMs, 'the pair does not report to the control plane', async () => {
      const answer = await api.getPair({ params })
      return answer.body.status.primary === null ? null : answer.etag
    })
    let ifMatch = etag
    const took: number[] = []
    const executed: number[] = []
    const phases: number[][] = []
    for (let number = 0; number < warmUp + commands; number++) {
      const began = performance.now()
      const part = { params, ifMatch, wait: waitSeconds }
      const asked = await (number % 2 === 0
        ? api.beginMaintenance({ ...part, body: { forMinutes: 10, reason: 'bench' } })
        : api.endMaintenance(part))
      // One that takes longer than an answer waits is measured to its end all the same.
      const { body } = asked.status === 200 ? asked : { body: await untilEnded(plane, asked.body.id, endLimitMs) }
      const tookMs = performance.now() - began
      const answeredAt = Date.now()
      if (body.state !== 'succeeded') throw new Error(`command ${number}: ${body.state}: ${body.message}`)
      if (number >= warmUp) {
        took.push(tookMs)
        const [step] = body.steps
        const [sentAt, takenAt] = [Date.parse(step?.startedAt ?? ''), Date.parse(step?.endedAt ?? '')]
        executed.push(takenAt - sentAt)
        const [begun, done] = acksOf(body.id)
        if (done !== undefined) {
          const times = [answeredAt - tookMs, sentAt, Date.parse(begun!.at), Date.parse(done.at), takenAt, answeredAt]
          phases.push(phaseNames.map((_, at) => Math.round(times[at + 1]! - times[at]!)))
        }
      }
      ifMatch = (await api.getPair({ params })).etag ?? ''
    }
    const figures = figuresOf(took)
    const name = 'API call, executed on the agent, acknowledged, in the lab'
    return [
      {
        name: `${name}, p50`,
        value: rounded(figures.p50Ms),
        unit: 'ms',
        bound: { atMost: 50 },
        of: { ...figures, fromSentToAnswered: figuresOf(executed), medianMsOf: mediansOf(phases) },
      },
      { name: `${name}, p99`, value: rounded(figures.p99Ms), unit: 'ms', bound: { atMost: 250 } },
    ]
  } finally {
    await down(lab)
  }
}

/** Of one command, one after the other, by the one clock of this machine. */
const phaseNames = [
  'the call, until the command is signed',
  'until the host has verified it',
  'until it is carried out there, written down before',
  'until its answer is taken',
  'until the call is answered',
] as const

/** Of host a, the primary: that it began and that it ended, as its link remembers them until it writes its memory whole. */
function acksOf(operation: string): Ack[] {
  const journal = journalOf(join(controlFolderOf(agentPaths(lab, 'a').stateDir), 'memory.json'))
  const acks = [...readFileSync(journal, 'latin1').matchAll(/\\"payload\\":\\"([\w-]+)\\"/g)].map(([, payload = '']) =>
    ackSchema.parse(JSON.parse(Buffer.from(payload, 'base64url').toString())),
  )
  return acks.filter(ack => ack.operation === operation)
}

const mediansOf = (phases: readonly number[][]): Record<string, number> =>
  Object.fromEntries(phaseNames.map((name, at) => [name, figuresOf(phases.map(one => one[at]!)).p50Ms]))
