import {
  type Command,
  clockSkewSecondsMax,
  command,
  commandLifeSecondsMax,
  type Verb,
  verbs,
} from '../../shared/contract/documents.ts'
import { type KeyRing, verifyDocument } from '../../shared/contract/signing.ts'

/**
 * May this command run here, now? Pure but for the signature: what the host knows comes in, the verdict goes out. The
 * broker, the network and whoever stores messages between are not trusted with anything: what is late, replayed, meant
 * for another host or another epoch, or not allowed by the operator of this host, changes nothing.
 */
export interface CommandContext {
  host: string
  organisation: string
  ring: KeyRing
  nowMs: number
  /** What the core says of itself; null: it is in no pair, or does not answer. */
  present: { gen: number; epoch: number; node: 'a' | 'b' } | null
  policy: LocalPolicy
}

/** The operator's file on this host: verbs that nobody commands from afar. */
export interface LocalPolicy {
  refuse: readonly Verb[]
}

/** Where there is no file: what can lose data by a wrong word stays with whoever stands at the host. */
export const defaultPolicy: LocalPolicy = { refuse: [] }

export type Verdict =
  | { verdict: 'run'; command: Command }
  /** The command is genuine and is told why it is not obeyed. */
  | { verdict: 'refuse'; command: Command; why: string }
  /** No command of ours: it is not even answered. */
  | { verdict: 'ignore'; why: string }

export async function judgeCommand(text: string, context: CommandContext): Promise<Verdict> {
  const verified = await verifyDocument(text, 'command', context.ring)
  if (!verified.ok) return { verdict: 'ignore', why: verified.why }
  const parsed = command.safeParse(verified.payload)
  if (!parsed.success) return { verdict: 'ignore', why: 'the command is of a form this version does not know' }
  const { data } = parsed
  if (data.audience !== context.host || data.organisation !== context.organisation)
    return { verdict: 'ignore', why: `the command is meant for host ${data.audience}` }
  const refuse = (why: string): Verdict => ({ verdict: 'refuse', command: data, why })
  const late = whyNotInTime(data, context.nowMs)
  if (late !== null) return refuse(late)
  if (context.policy.refuse.includes(data.verb))
    return refuse(`the local policy of this host allows no ${data.verb} from afar; do it there, with its command line`)
  const args = verbs[data.verb].safeParse(data.args)
  if (!args.success) return refuse(`the arguments of ${data.verb} are of a form this version does not know`)
  const mismatch = whyNotMeant(data, context.present)
  return mismatch === null ? { verdict: 'run', command: data } : refuse(mismatch)
}

function whyNotInTime({ issuedAt, expiresAt }: Command, nowMs: number): string | null {
  const now = nowMs / 1000
  if (expiresAt - issuedAt > commandLifeSecondsMax)
    return `the command would live ${expiresAt - issuedAt} s; ${commandLifeSecondsMax} s are the most`
  if (now > expiresAt) return `the command ended ${Math.round(now - expiresAt)} s ago by the clock of this host`
  if (now < issuedAt - clockSkewSecondsMax)
    return `the command is from the future by ${Math.round(issuedAt - now)} s: look at the clock of this host`
  return null
}

function whyNotMeant({ only, verb }: Command, present: CommandContext['present']): string | null {
  const wanted = Object.entries(only)
  if (wanted.length === 0) return null
  if (present === null)
    return `${verb} is meant for a member of a pair, and this host is none, or its agent does not answer`
  const differs = wanted.find(([name, value]) => present[name as keyof typeof present] !== value)
  if (differs === undefined) return null
  const [name, value] = differs
  return `the command is meant for ${name} ${value}, and this host is at ${name} ${present[name as keyof typeof present]}`
}
