import type { WalPosition } from './types.ts'

/**
 * How a host whose database is down becomes a standby of the primary again, from facts alone.
 *
 * A log that goes past the point where the primary's timeline left it holds records that the primary has not got: a
 * standby started on it shows up as streaming, reports its own, diverged position and makes the primary acknowledge
 * commits that have no copy. So nothing is started before this was decided.
 */
export interface RejoinFacts {
  /** null: there is no cluster here, or a clone or rewind of it was not finished. */
  own: { system: string; end: WalPosition; canRewind: boolean } | null
  source: {
    system: string
    end: WalPosition
    /** The source's ancestors, oldest first: each timeline ended at `endsAt` (its history file). */
    history: readonly { timeline: number; endsAt: number }[]
  }
}
export type RejoinPlan =
  | { how: 'follow'; why: string }
  | { how: 'rewind'; fork: WalPosition; why: string }
  | { how: 'clone'; fork: WalPosition | null; why: string }
  | { how: 'refuse'; why: string }

export function rejoinPlan({ own, source }: RejoinFacts): RejoinPlan {
  if (own === null) return { how: 'clone', fork: null, why: 'there is no whole cluster here' }
  if (own.system !== source.system) {
    return {
      how: 'refuse',
      why: `the cluster here has system identifier ${own.system}, the primary's has ${source.system}; move it away if it may be replaced`,
    }
  }
  const { end } = own
  if (end.timeline === source.end.timeline) {
    if (end.lsn <= source.end.lsn)
      return { how: 'follow', why: `the log ends on the primary's timeline ${end.timeline}` }
    // Two logs that share a timeline and differ can't be told apart by a rewind.
    return {
      how: 'clone',
      fork: source.end,
      why: `the log goes ${end.lsn - source.end.lsn} bytes past the primary's on the same timeline ${end.timeline}`,
    }
  }
  const ancestor = source.history.find(one => one.timeline === end.timeline)
  if (ancestor === undefined) {
    return {
      how: 'clone',
      fork: null,
      why: `timeline ${end.timeline} is no ancestor of the primary's ${source.end.timeline}`,
    }
  }
  if (end.lsn <= ancestor.endsAt) {
    return { how: 'follow', why: `the log ends before the primary left timeline ${end.timeline}` }
  }
  const fork = { timeline: end.timeline, lsn: ancestor.endsAt }
  const tail = `${end.lsn - ancestor.endsAt} bytes past the fork of timeline ${end.timeline}`
  return own.canRewind
    ? { how: 'rewind', fork, why: `the log goes ${tail}` }
    : { how: 'clone', fork, why: `the log goes ${tail}, and without checksums or wal_log_hints it can't be rewound` }
}

/** A timeline history file: "parentTLI <tab> switchpoint <tab> reason" a line (manual, 26.3.6 "Timelines"). */
export function parseHistory(text: string, parseLsn: (lsn: string) => number): { timeline: number; endsAt: number }[] {
  return text
    .split('\n')
    .map(line => line.replace(/#.*/, '').trim())
    .filter(line => line !== '')
    .map(line => {
      const [timeline = '', lsn = ''] = line.split(/\s+/)
      return { timeline: Number.parseInt(timeline, 10), endsAt: parseLsn(lsn) }
    })
}
