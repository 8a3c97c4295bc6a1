import { obstacleToProtection } from '../../shared/protocol/duties.ts'
import { isBackup, isPrimary } from '../../shared/protocol/facts.ts'
import { readyToSwitch } from '../../shared/protocol/primary-conditions.ts'
import { leaseLeftAtShrinkMs, shrinkNeedsMs, voteLimitMs } from '../../shared/protocol/timing.ts'
import { type Agent, hostsTopic } from '../agent.ts'
import { filesObstacles, reportedTrees } from '../files/core-side.ts'

/** Would a takeover succeed now, and what would it cost? */
export interface CheckReport {
  node: string
  role: string
  takeover: boolean
  switchover: boolean
  /** Each a sentence; with any of them a takeover does not happen or is not safe. */
  blocking: string[]
  warnings: string[]
  predicted: {
    /** null: no automatic takeover, so for as long as the host is away. */
    powerCutOutageMs: number | null
    databaseDeathOutageMs: number | null
    switchoverOutageMs: number | null
    /** Acknowledged writes that would be lost, in words. */
    loss: string
  }
  /** The sums that the profile rests on. */
  timing: {
    profile: string
    leaseMs: number
    shrinkNeedsMs: number
    leaseLeftMs: number
    voteP99Ms: number | null
    voteLimitMs: number
  }
}

/** Promotion, gate, announcement and a client's reconnect, as measured by the benchmark on real parts. */
const promotionMs = 60
const handOverMs = 100
/** Vote of a witness that was not measured yet: the profile's budget would flatter, this does not. */
const unknownVoteMs = 300

/** `asked`: a duplicate probe and a look at the settings of roles, made for this report. */
export function checkReport(
  agent: Agent,
  asked: { addresses: readonly { address: string; conflict: string | null }[]; unprotectedCommits: readonly string[] },
): CheckReport {
  const { state, timing, ports } = agent
  const status = agent.status()
  const now = ports.clock.bootMs()
  const voteP99Ms = ports.witness?.health().p99Ms ?? null
  const limit = voteLimitMs(timing)
  const blocking = obstacles(agent, now)
  // Lag and trouble of files are alarms of the agent already.
  const warnings = [...agent.alarms].flatMap(([topic, why]) => (topic === hostsTopic ? [] : [why]))
  // What the other host lacks is said one by one.
  for (const { why, blocks } of agent.comparison.differences) (blocks ? blocking : warnings).push(why)
  const files = filesObstacles(reportedTrees(agent.workers))
  blocking.push(...files.filter(why => !blocking.includes(why)))
  if (voteP99Ms !== null && voteP99Ms > limit) {
    blocking.push(
      `the witness votes in ${Math.round(voteP99Ms)} ms (p99), the profile ${timing.profile} allows ${Math.round(limit)} ms: use a nearer witness or a slower profile`,
    )
  }
  for (const one of asked.unprotectedCommits) warnings.push(`${one}: a takeover may lose what it was told is done`)
  for (const { address, conflict } of asked.addresses) {
    if (conflict !== null)
      warnings.push(
        `${address} is answered by ${conflict}, which is not this host: find it and give it another address`,
      )
  }
  const healthy = blocking.length === 0
  const vote = voteP99Ms ?? unknownVoteMs
  const switchover = isPrimary(state) ? readyToSwitch(state, now) === null : healthy
  return {
    node: status.node,
    role: status.role,
    takeover: healthy,
    switchover,
    blocking,
    warnings,
    predicted: {
      powerCutOutageMs: healthy ? Math.round(timing.leaseMs + vote + promotionMs) : null,
      databaseDeathOutageMs: healthy ? handOverMs + promotionMs : null,
      switchoverOutageMs: switchover ? handOverMs : null,
      loss: lossOf(agent, { healthy }),
    },
    timing: {
      profile: timing.profile,
      leaseMs: timing.leaseMs,
      shrinkNeedsMs: shrinkNeedsMs(timing),
      leaseLeftMs: leaseLeftAtShrinkMs(timing),
      voteP99Ms,
      voteLimitMs: limit,
    },
  }
}

/** As this host sees it; [] when a takeover would succeed. */
export function obstacles(agent: Agent, now: number): string[] {
  const { state } = agent
  const status = agent.status()
  const trouble = agent.ports.peer.trouble()
  const found = trouble === '' ? [] : [trouble]
  if (isPrimary(state)) {
    if (status.protection !== 'protected') found.push(status.why)
    const obstacle = obstacleToProtection(state, now)
    const isSaid = obstacle === status.why || agent.files.why === status.why
    if (obstacle !== null && !isSaid && !status.successor) found.push(obstacle)
    return found
  }
  if (!isBackup(state)) return [...found, `this host is ${status.role}: ${status.why}`]
  if (!status.successor)
    found.push(
      'the register names no successor: the primary has not made this host eligible, `understudy why` on it says why',
    )
  if (status.witness !== 'yes') found.push('this host does not reach the witness')
  if (state.database.view.process !== 'standby')
    found.push(`the database here is ${state.database.view.process}, a takeover needs a standby`)
  else if (!state.database.view.streaming) found.push('the standby does not stream from the primary')
  if (state.backup.heartbeat === null || now - state.backup.heardAt > agent.timing.silenceMs)
    found.push('the primary is silent')
  const standing = state.duty.said.database ?? ''
  if (standing !== '') found.push(standing)
  return found
}

function lossOf(agent: Agent, { healthy }: { healthy: boolean }): string {
  if (healthy) return 'none: every acknowledged write is on both hosts'
  const { lagBytes } = agent.status().database
  if (isPrimary(agent.state)) {
    const behind = lagBytes === null ? 'an unknown amount' : `${lagBytes} bytes of log`
    return `none by itself, since nothing takes over; a forced takeover would lose ${behind}`
  }
  return 'none by itself, since nothing takes over; a forced takeover loses what the primary acknowledged alone'
}
