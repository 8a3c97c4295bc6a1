import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  holdsLease,
  isBackup,
  isPrimary,
  knownValue,
  nobodyMaySucceed,
  rightToServe,
} from '../shared/protocol/facts.ts'
import type { Agent } from './agent.ts'
import { exec } from './exec.ts'
import { quiesce } from './files/quiesce.ts'

/**
 * What an agent does before it ends. Hand-off: the other host serves before this one goes. Leave running: PostgreSQL,
 * address, services and the gate with its grant stay, and the next agent adopts them.
 */
export type StopKind = 'handOff' | 'leaveRunning'

/** The unit has 60 s for all of this (TimeoutStopSec=); a switchover that takes longer than this is not going to happen. */
const handOffLimitMs = 10_000
/** What stops a service may be given ten minutes, and the host that is not handed over by then is killed with its agent. */
export const quietenLimitMs = 30_000
/** A restart within a pinned grant interrupts nothing; without a witness in time the lease has to do. */
const pinLimitMs = 1500
/** Automatic takeover comes back by itself when the next agent has not said otherwise by then. */
const pinForMs = 60_000
const lookMs = 20
const systemctlLimitMs = 1000

/** Why the agent was sent SIGTERM. A stop is also what can't be told apart: a hand-over costs less than nobody serving. */
export type StopCause = 'hostShutdown' | 'agentRestart' | 'agentStop'

/** SIGTERM by itself does not tell why: the manager knows whether the whole host goes down, and what it does with the unit. */
export async function stopKindOf(agent: Agent): Promise<StopKind> {
  const { onHostShutdown, onAgentRestart, onAgentStop } = agent.config.stop
  const unit = unitOf(ownCgroups())
  const ask = async (...args: string[]): Promise<string> =>
    (await exec(['systemctl', ...args], { limitMs: systemctlLimitMs })).stdout
  const [state, jobs] = await Promise.all([
    ask('is-system-running'),
    unit === null ? '' : ask('list-jobs', '--no-legend', '--plain', unit),
  ])
  switch (causeOf({ state, jobs, unit })) {
    case 'hostShutdown':
      return onHostShutdown
    case 'agentRestart':
      return onAgentRestart
    case 'agentStop':
      return onAgentStop
  }
}

/** '' where this process can't read it, for want of descriptors: then it is not known what is done with the unit. */
function ownCgroups(): string {
  try {
    return readFileSync('/proc/self/cgroup', 'utf8')
  } catch {
    return ''
  }
}

/**
 * By what systemctl prints: `is-system-running`, and `list-jobs` ("JOB UNIT TYPE STATE" a line), where a unit that is stopped
 * in order to be started again has a job of the type restart until it has stopped (systemctl(1)).
 */
export function causeOf({ state, jobs, unit }: { state: string; jobs: string; unit: string | null }): StopCause {
  if (state.trim() === 'stopping') return 'hostShutdown'
  const restarts = jobs.split('\n').some(line => {
    const [, name, type] = line.trim().split(/\s+/)
    return name === unit && type === 'restart'
  })
  return restarts ? 'agentRestart' : 'agentStop'
}

/** The service that systemd started this process for, by its cgroup (cgroups(7)); null where it did not. */
export function unitOf(cgroups: string): string | null {
  const path = cgroups
    .split('\n')
    .map(line => /^(?:0:|\d+:name=systemd):(.*)$/.exec(line)?.[1])
    .find(found => found?.includes('.service') === true)
  return path?.split('/').findLast(part => part.endsWith('.service')) ?? null
}

export async function prepareStop(agent: Agent, kind: StopKind): Promise<void> {
  if (kind === 'handOff') await handOff(agent)
  else await leaveRunning(agent)
}

async function handOff(agent: Agent): Promise<void> {
  if (knownValue(agent.state)?.successor === true) {
    const quiet = quiesce(agent).catch(error => agent.note(`hands over with files behind: ${String(error)}`))
    if ((await Promise.race([quiet, later(quietenLimitMs)])) === 'later')
      agent.note(`hands over, though services or files were not brought to rest within ${quietenLimitMs / 1000} s`)
  }
  const answer = await agent.operator({ command: 'leave' }, handOffLimitMs)
  if (!answer.ok) agent.note(`the service was not handed over: ${answer.why}`)
  // A backup waits until nothing waits for it any more; a primary that handed over is backup by now.
  const released = (): boolean => knownValue(agent.state)?.successor !== true
  await until(released, handOffLimitMs / 2)
}

/**
 * Pinned first where that can be had: a grant that nobody may succeed lasts ten seconds, a lease is over before Node has
 * started. The pair is unprotected meanwhile, and `status` says so.
 */
async function leaveRunning(agent: Agent): Promise<void> {
  const now = (): number => agent.ports.clock.bootMs()
  if (isBackup(agent.state)) {
    // Said, it is dropped before a commit waits for it, and does not count as lost.
    await agent.operator({ command: 'leave' }, pinLimitMs)
    await until(() => knownValue(agent.state)?.successor !== true, pinLimitMs)
  }
  if (isPrimary(agent.state) && !nobodyMaySucceed(agent.state)) {
    await agent.operator({ command: 'maintenance', until: now() + pinForMs }, pinLimitMs)
    await until(() => nobodyMaySucceed(agent.state), pinLimitMs)
  }
  renewLast(agent, now())
}

/** The last act: the longest grant that the core's rights allow. */
function renewLast(agent: Agent, now: number): void {
  const { state, timing, ports } = agent
  const right = rightToServe(state, now)
  if (state.gate.set !== 'open' || right === null) return
  const untilMs = right === 'lease' ? state.lease.leaseUntil : now + timing.pinnedGrantMs
  if (right === 'nobody may succeed' || holdsLease(state, now)) ports.gate.open(untilMs)
}

const later = (ms: number): Promise<'later'> =>
  new Promise(resolve => {
    setTimeout(() => resolve('later'), ms).unref()
  })

async function until(holds: () => boolean, limitMs: number): Promise<void> {
  const end = performance.now() + limitMs
  while (!holds() && performance.now() < end) await sleep(lookMs)
}
