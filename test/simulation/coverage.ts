import { crashEffects } from './faults/crash-at.ts'
import { weights } from './faults/fault.ts'

/** How often each thing that matters happened. A count that stays at zero over a whole set of runs means that the set proves nothing about it. */
export class Coverage {
  readonly counts: { [name: string]: number } = {}

  count(name: string): void {
    this.counts[name] = (this.counts[name] ?? 0) + 1
  }
}

type Counts = { readonly [name: string]: number }

/**
 * A set of so many runs has to have seen all of `required`: the rarest of them then happens about ten times, so that
 * a zero is no chance.
 */
export const coverageRuns = 2000

export const missingIn = (counts: Counts): string[] => required.filter(name => !counts[name])

export const showCoverage = (counts: Counts): string =>
  [...new Set([...required, ...Object.keys(counts)])]
    .sort()
    .map(name => `${name}: ${counts[name] ?? 0}`)
    .join('\n')

/** What a set of runs has to have seen. */
export const required: readonly string[] = [
  'takeover',
  'takeover after a resign',
  'shrink',
  'grow',
  'hand-over',
  'hand-over while pinned',
  'switchover',
  'switchover called off',
  'resign',
  'pin',
  'unpin',
  'freeze',
  'thaw',
  'hold',
  'abdication',
  'restart in place',
  'promotion',
  'promotion without its agent',
  'rejoin: follow',
  'rejoin: rewind',
  'rejoin: clone',
  'force',
  'force without the witness',
  'sealed',
  'given up',
  'maintenance',
  'leave',
  'agent restart adopted',
  'agent upgrade',
  'another profile on one host',
  'another profile on both hosts',
  'grow with another profile',
  'leases of two lengths refused',
  'longer promises waited out',
  'clock jump',
  'witness amnesia',
  'witness replaced',
  'witness named again',
  'witness set back',
  'host re-imaged',
  'lost tail refused',
  'member removed',
  'member added',
  'cancelled wait',
  'orphans served',
  'late grant refused',
  'failed write',
  'adopted an unknown outcome',
  'stale command refused',
  'rest of the primary',
  'rest of the backup',
  'log removed',
  'torn flush of the log',
  'torn write of the register',
  ...crashEffects.filter(effect => effect !== '*').map(effect => `crash at ${effect}`),
  ...Object.keys(weights).map(kind => `fault: ${kind}`),
]
