import { outageLimitMs, promises } from './checkers/l2-outage-bounded.ts'
import type { Fault, FaultKind } from './faults/fault.ts'
import { drawOptions, type Options } from './options.ts'
import { Pair } from './pair.ts'
import { Random } from './random.ts'
import { prepare, reach, schedule } from './run.ts'

/** What a client loses to a fault, as the simulation predicts it: the longest time without an acknowledged write. */
export interface OutageRow {
  fault: string
  witness: 'near' | 'far'
  runs: number
  p50Ms: number
  p99Ms: number
  maxMs: number
  /** The longest that is promised for any of these runs. */
  promisedMs: number
}

interface Case {
  fault: string
  kind: FaultKind
  role: Fault['role']
  /** The backup is not heard from the same moment on, so that there is nobody to hand over to: the primary resigns. */
  unheard?: boolean
}
const cases: readonly Case[] = [
  { fault: 'power cut of the primary', kind: 'powerCut', role: 'primary' },
  { fault: 'loss of the backup', kind: 'powerCut', role: 'backup' },
  { fault: 'partition between the hosts', kind: 'cutPeer', role: 'primary' },
  { fault: 'database of the primary dies (hand-over)', kind: 'backendCrash', role: 'primary' },
  { fault: 'the same, and the backup is not heard (resign)', kind: 'backendCrash', role: 'primary', unheard: true },
  { fault: 'planned switchover', kind: 'switchover', role: 'primary' },
]

/** A client that writes this often sees an outage to the millisecond or two. */
const clientEveryMs = 2
const faultMs = 4000
const settleMs = 5000

/** Usual hosts and links: what is drawn is where in its course the pair is hit, and how long each part takes this time. */
function options(seed: number, witness: 'near' | 'far'): Options {
  const drawn = drawOptions(seed)
  return {
    ...drawn,
    runClass: 'single',
    profile: 'default',
    tickMs: 10,
    observeMs: 50,
    loss: 0,
    duplicates: 0,
    linkMs: 0.2,
    linkJitterMs: 0.5,
    witness,
    witnessMs: witness === 'near' ? 0.5 : 20,
    witnessJitterMs: witness === 'near' ? 2 : 15,
    fsyncMs: 1,
    fsyncJitterMs: 4,
    checkpointerMs: 10,
    checkpointerLateMs: 100,
    promoteMs: 25,
    recoveryMs: 100,
    cloneMs: 1000,
    killMs: 15,
    clientEveryMs,
    strictQueue: false,
    gateLagMs: 0.1,
    rates: { a: 1, b: 1 },
  }
}

export function measureOutages(wish: { first: number; runs: number }): OutageRow[] {
  return cases.flatMap(one =>
    (['near', 'far'] as const).map(witness => {
      const gaps: number[] = []
      let promisedMs = 0
      for (let seed = wish.first; seed < wish.first + wish.runs; seed++) {
        const measured = measure(options(seed, witness), one)
        gaps.push(measured.gapMs)
        promisedMs = Math.max(promisedMs, measured.promisedMs)
      }
      gaps.sort((x, y) => x - y)
      const at = (share: number): number =>
        Math.round(gaps[Math.min(gaps.length - 1, Math.floor(share * gaps.length))] ?? 0)
      return {
        fault: one.fault,
        witness,
        runs: wish.runs,
        p50Ms: at(0.5),
        p99Ms: at(0.99),
        maxMs: at(1),
        promisedMs: Math.round(promisedMs),
      }
    }),
  )
}

function measure(o: Options, what: Case): { gapMs: number; promisedMs: number } {
  const pair = new Pair(o, { text: false })
  const { world } = pair
  const r = new Random(o.seed, 'outages')
  prepare(pair)
  world.runUntil(world.now + 500 + r.next() * 1000)
  const fault: Fault = { id: 0, at: 0, kind: what.kind, role: what.role, ms: faultMs, x: 0, y: 0 }
  pair.client.resetGap()
  if (what.unheard === true) {
    const primary = pair.hosts[pair.named ?? 'a']
    pair.network.cutAll(primary.peer.node, primary.node, 1)
  }
  schedule(pair, fault, new Set())
  reach(pair, () => false, settleMs)
  const promise = what.unheard === true ? 'takeover' : (promises[what.kind]?.[what.role] ?? 'takeover')
  return { gapMs: pair.client.gapMs, promisedMs: outageLimitMs(pair, promise) }
}

export function showOutages(rows: readonly OutageRow[]): string {
  const line = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |`
  return [
    line(['fault', 'witness', 'p50 ms', 'p99 ms', 'longest ms', 'promised ms']),
    line(['---', '---', '--:', '--:', '--:', '--:']),
    ...rows.map(row => line([row.fault, row.witness, row.p50Ms, row.p99Ms, row.maxMs, row.promisedMs])),
  ].join('\n')
}
