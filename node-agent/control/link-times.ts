import type { HostReport } from '../../shared/contract/report.ts'

/** When a link speaks next: pure, so that what a fleet does after an outage can be read in one place. */

/** With a broker that is away, documents are looked for this often. */
export const pullAloneSeconds = 5
const backOffFirstSeconds = 2
const backOffMaxSeconds = 60

/**
 * Full jitter after the cap: a fleet that lost its control plane does not come back in one instant.
 * @param part.askedSeconds by the control plane; null: it was not reached
 */
export function secondsToNextPull(part: {
  askedSeconds: number | null
  failures: number
  brokerAway: boolean
  random: () => number
}): number {
  const { askedSeconds, failures, brokerAway, random } = part
  if (askedSeconds === null) {
    const cap = Math.min(backOffMaxSeconds, backOffFirstSeconds * 2 ** Math.min(failures - 1, 8))
    return cap * (0.5 + random())
  }
  return (brokerAway ? Math.min(askedSeconds, pullAloneSeconds) : askedSeconds) * (0.8 + 0.4 * random())
}

/**
 * What a report tells is about to change by itself, and nothing else tells of that change: a backup at work on its data, or
 * a verdict that the pair has outlived. What was told then would stand in the way of a switchover until the next report.
 */
export function isInMotion(pair: HostReport['pair']): boolean {
  if (pair === null) return false
  const { role, protection, replication, check } = pair
  if (role === 'unsettled' || replication.operation !== null) return true
  if (role === 'backup' && !replication.streaming) return true
  return protection === 'protected' && check !== null && !(check.takeover && check.switchover)
}

const firstLookMs = 1_000
/** A base backup takes hours: ever less often, and then as often as without it. @param looks that were made already */
export const msToNextLook = (looks: number): number => firstLookMs * 1.5 ** Math.min(looks, 9)
