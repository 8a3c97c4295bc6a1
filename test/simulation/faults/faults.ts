import type { Options } from '../options.ts'
import type { Pair } from '../pair.ts'
import { Random } from '../random.ts'
import { dataFaults } from './data-faults.ts'
import { type Act, type Fault, type FaultKind, longKinds, singleKinds, weights } from './fault.ts'
import { hostFaults } from './host-faults.ts'
import { linkFaults } from './link-faults.ts'
import { witnessAndOperator } from './witness-and-operator.ts'

/** Complete by the compiler: a kind of fault without an act does not build. */
const acts: { readonly [kind in FaultKind]: Act } = {
  ...hostFaults,
  ...dataFaults,
  ...linkFaults,
  ...witnessAndOperator,
}

export function drawFaults(options: Options): Fault[] {
  const r = new Random(options.seed, 'faults')
  const kinds = { ...weights, stoppedClock: options.runClass === 'wild' ? 8 : 0 }
  const faults: Fault[] = []
  // Half of the storms come in bursts: faults that hit what the one before set off.
  const burst = r.chance(0.5)
  let at = r.between(0, 4000)
  for (let id = 0; id < options.faults; id++) {
    const kind = options.runClass === 'single' ? r.pick(singleKinds) : r.weighted(kinds)
    faults.push({
      id,
      at,
      kind,
      role: r.chance(0.6) ? 'primary' : 'backup',
      ms: r.spread(20, longKinds.has(kind) ? 90_000 : 15_000),
      x: r.next(),
      y: r.next(),
    })
    const gap = options.safetyMs / options.faults
    at += burst && r.chance(0.6) ? r.spread(1, 1500) : r.between(0, 2 * gap)
    if (at > options.safetyMs) at = r.between(0, options.safetyMs)
  }
  return [...faults, ...changeOfProfile(options), ...decisionsAtOnce(options)]
}

/**
 * One more fault for some seeds, from a stream of its own: all other seeds make the runs that they made before there was
 * this fault, the kept ones among them.
 */
function changeOfProfile(options: Options): Fault[] {
  const r = new Random(options.seed, 'length of leases')
  if (!r.chance(0.04) || options.runClass === 'single') return []
  return [
    {
      id: options.faults,
      at: r.between(0, options.safetyMs * 0.8),
      kind: 'anotherProfile',
      role: r.chance(0.5) ? 'primary' : 'backup',
      ms: r.spread(2000, 40_000),
      x: r.next(),
      y: r.next(),
    },
  ]
}

/** What changes who may serve, who is a member, or what a host remembers: rare each, so that two of them hardly ever meet. */
const decisions: readonly FaultKind[] = [
  'force',
  'force',
  'leave',
  'switchover',
  'witnessReplace',
  'witnessGivenUp',
  'reimage',
  'suspend',
  'wallJump',
  'powerCut',
  'cutPeer',
]

/** Two to four of them within moments of each other, for some seeds, from a stream of its own for the same reason. */
function decisionsAtOnce(options: Options): Fault[] {
  const r = new Random(options.seed, 'decisions at once')
  if (!r.chance(decisionsShare) || options.runClass === 'single') return []
  const first = options.faults + 1
  let at = r.between(0, options.safetyMs * 0.8)
  return Array.from({ length: 2 + r.below(3) }, (_, index) => {
    at += r.spread(1, 4000)
    return {
      id: first + index,
      at,
      kind: r.pick(decisions),
      role: r.chance(0.5) ? 'primary' : 'backup',
      ms: r.spread(20, 20_000),
      x: r.next(),
      y: r.next(),
    }
  })
}
const decisionsShare = 0.05

export function begin(pair: Pair, fault: Fault): () => void {
  const primary = pair.hosts[pair.named ?? pair.options.primary]
  const host = fault.role === 'primary' ? primary : primary.peer
  pair.trace('fault', showFault(fault, host.node))
  pair.count(`fault: ${fault.kind}`)
  return acts[fault.kind]({ pair, host, fault })
}

export const showFault = (f: Fault, at: string): string =>
  `${f.id} ${f.kind} at ${at} for ${f.ms.toFixed(0)} ms (${f.x.toFixed(3)} ${f.y.toFixed(3)})`
