import {
  type Command,
  clockSkewSecondsMax,
  command,
  commandLifeSecondsMax,
  type TrustedTool,
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
  /** Keys of the organisation's own tooling, and the pair they may command; from the last desired document. */
  tooling: { pair: string; tools: readonly TrustedTool[] } | null
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
  const tools = context.tooling?.tools ?? []
  const ring: KeyRing = kid => context.ring(kid) ?? tools.find(one => one.kid === kid)?.publicKey ?? null
  const verified = await verifyDocument(text, 'command', ring)
  if (!verified.ok) return { verdict: 'ignore', why: verified.why }
  const parsed = command.safeParse(verified.payload)
  if (!parsed.success) return { verdict: 'ignore', why: 'the command is of a form this version does not know' }
  const { data } = parsed
  if (data.audience !== context.host || data.organisation !== context.organisation)
    return { verdict: 'ignore', why: `the command is meant for host ${data.audience}` }
  const refuse = (why: string): Verdict => ({ verdict: 'refuse', command: data, why })
  if (context.ring(verified.kid) === null) {
    const beyond = whyBeyondTool(data, { kid: verified.kid, tooling: context.tooling })
    if (beyond !== null) return refuse(beyond)
  }
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

/** Tooling's key opens some verbs on its pairs; and what touches the role must name the epoch that it saw. */
function whyBeyondTool(
  { verb, pair, only }: Command,
  { kid, tooling }: { kid: string; tooling: CommandContext['tooling'] },
): string | null {
  const tool = tooling?.tools.find(one => one.kid === kid)
  if (tool === undefined || !(tool.verbs as readonly string[]).includes(verb))
    return `the key ${kid} of the organisation’s tooling may not command ${verb}`
  if (pair !== tooling?.pair) return `the command is for pair ${pair ?? 'none'}, and this host is in ${tooling?.pair}`
  if (verb !== 'prechecks' && (only.gen === undefined || only.epoch === undefined || only.node === undefined))
    return `a ${verb} of tooling must say for which gen, epoch and node it is meant`
  return null
}
