/** The faults a lab can make, as data, and their words on the command line. */

import type { HostName, LinkName, Member } from './addresses.ts'

export type FreezeWhat = 'agent' | 'postgres' | 'all'
export type KillWhat = 'agent' | 'postmaster' | 'backend' | 'walsender' | 'walreceiver' | 'service'

export type Fault =
  | { kind: 'power'; host: HostName }
  | { kind: 'power-on'; host: HostName }
  | { kind: 'isolate'; member: Member }
  | { kind: 'mute'; member: Member }
  | { kind: 'deaf'; member: Member }
  | { kind: 'cut'; from: Member; to: Member; oneWay: boolean; link?: LinkName }
  | { kind: 'loss'; from: Member; to: Member; percent: number; link?: LinkName }
  | {
      kind: 'slow'
      from: Member
      to: Member
      delayMs: number
      jitterMs: number
      duplicatePercent: number
      link?: LinkName
    }
  | { kind: 'freeze'; host: HostName; what: FreezeWhat }
  | { kind: 'continue'; host: HostName }
  | { kind: 'kill'; host: HostName; what: KillWhat }
  | { kind: 'start-agent'; host: HostName }
  | { kind: 'disk-full'; host: HostName }
  | { kind: 'disk-hang'; host: HostName }
  | { kind: 'clock'; host: HostName; jumpMs: number }
  | { kind: 'witness-down' }
  | { kind: 'witness-up' }
  | { kind: 'witness-slow'; delayMs: number }

export const FAULT_HELP = `  power a                     power cut: links down, then every process of the host killed at once
  power-on a                  the host boots again and its agent starts
  isolate a                   nothing gets to a and nothing gets out (also: w)
  mute a | deaf a             nothing gets out of a | nothing gets to a
  cut a b [--one-way] [--link lan|peer]
                              no packet from a to b, and back unless --one-way
  loss a b --percent 5 [--link …]
                              that share of frames is lost, both ways
  slow a b --delay-ms 200 [--jitter-ms 50] [--duplicate-percent 1] [--link …]
                              frames arrive late, both ways; with jitter they overtake each other
  freeze a [agent|postgres|all]
                              SIGSTOP to the agent and its children but the database, to the database, or to all
  continue a                  SIGCONT to all that is stopped
  kill a [agent|postmaster|backend|walsender|walreceiver|service]
  start-agent a               starts the agent again after it was killed
  disk-full a                 fills the host's disk (needs a lab made with --disk-mib)
  disk-hang a                 no write to the host's disk ends until heal (needs a lab made with --disk-mib)
  clock a --jump-ms 3600000   the agent's wall clock jumps
  witness-down                kills the witness
  witness-up                  starts it again
  witness-slow --delay-ms 800 the witness answers late`

export interface FaultOptions {
  oneWay?: boolean
  link?: string
  percent?: string
  delayMs?: string
  jitterMs?: string
  duplicatePercent?: string
  jumpMs?: string
}

const FREEZE_WHATS: readonly FreezeWhat[] = ['agent', 'postgres', 'all']
const KILL_WHATS: readonly KillWhat[] = ['agent', 'postmaster', 'backend', 'walsender', 'walreceiver', 'service']
const MEMBERS: readonly Member[] = ['a', 'b', 'w', 'c']
const HOSTS: readonly HostName[] = ['a', 'b']
const LINKS: readonly LinkName[] = ['lan', 'peer']

function oneOf<T extends string>(words: readonly T[], word: string | undefined, meaning: string): T {
  const found = words.find(candidate => candidate === word)
  if (word === undefined) throw new Error(`A ${meaning} is missing: add one of ${words.join(', ')}.`)
  if (found === undefined) throw new Error(`"${word}" is no ${meaning}: use one of ${words.join(', ')}.`)
  return found
}

function numberIn(text: string | undefined, option: string, range: { least: number; most: number }): number {
  const value = Number(text)
  if (text === undefined || !(value >= range.least && value <= range.most)) {
    throw new Error(`--${option} is "${text ?? ''}" and must be a number from ${range.least} to ${range.most}.`)
  }
  return value
}

const DELAY_RANGE = { least: 0, most: 60_000 }
const PERCENT_RANGE = { least: 0, most: 100 }
/** Ten years, either way. */
const JUMP_RANGE = { least: -3.2e11, most: 3.2e11 }

/** @throws a sentence about the word that is wrong */
export function parseFault(words: readonly string[], options: FaultOptions): Fault {
  const [kind, first, second] = words
  const host = (): HostName => oneOf(HOSTS, first, 'host')
  const member = (): Member => oneOf(MEMBERS, first, 'member')
  const pair = () => {
    const ends = { from: member(), to: oneOf(MEMBERS, second, 'member') }
    if (ends.from === ends.to) throw new Error(`A link joins two members, and "${ends.from}" was given twice.`)
    return options.link === undefined ? ends : { ...ends, link: oneOf(LINKS, options.link, 'link') }
  }
  switch (kind) {
    case 'power':
    case 'power-on':
    case 'continue':
    case 'start-agent':
    case 'disk-full':
    case 'disk-hang':
      return { kind, host: host() }
    case 'isolate':
    case 'mute':
    case 'deaf':
      return { kind, member: member() }
    case 'cut':
      return { kind, ...pair(), oneWay: options.oneWay ?? false }
    case 'loss':
      return { kind, ...pair(), percent: numberIn(options.percent, 'percent', PERCENT_RANGE) }
    case 'slow':
      return {
        kind,
        ...pair(),
        delayMs: numberIn(options.delayMs, 'delay-ms', DELAY_RANGE),
        jitterMs: numberIn(options.jitterMs ?? '0', 'jitter-ms', DELAY_RANGE),
        duplicatePercent: numberIn(options.duplicatePercent ?? '0', 'duplicate-percent', PERCENT_RANGE),
      }
    case 'freeze':
      return { kind, host: host(), what: oneOf(FREEZE_WHATS, second ?? 'agent', 'thing to freeze') }
    case 'kill':
      return { kind, host: host(), what: oneOf(KILL_WHATS, second ?? 'agent', 'thing to kill') }
    case 'clock':
      return { kind, host: host(), jumpMs: numberIn(options.jumpMs, 'jump-ms', JUMP_RANGE) }
    case 'witness-down':
    case 'witness-up':
      return { kind }
    case 'witness-slow':
      return { kind, delayMs: numberIn(options.delayMs, 'delay-ms', DELAY_RANGE) }
    default:
      throw new Error(`"${kind ?? ''}" is no fault. These are:\n${FAULT_HELP}`)
  }
}
