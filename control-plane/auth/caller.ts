import type { Permission, Role } from '../../shared/contract/api/permissions.ts'
import { Refusal } from '../http/problem.ts'

/** Who asks. */
export type Caller =
  | { kind: 'nobody' }
  /** Whoever runs this control plane. */
  | { kind: 'instance'; subject: string }
  | Member
  | { kind: 'host'; subject: string; organisation: string; host: string }

/** A person or a tool of one organisation. */
export interface Member {
  kind: 'member'
  /** For the audit: a person where one is known, not the kind of his credential. */
  subject: string
  /** What counts as one caller: the token, or the person, whatever he is called in the audit. */
  credential: string
  organisation: string
  role: Role
  permissions: ReadonlySet<Permission>
  /** null: every pair of the organisation. */
  pairs: ReadonlySet<string> | null
}

export function asMember(caller: Caller): Member {
  if (caller.kind === 'member') return caller
  throw new Refusal('forbidden', 'this is the affair of an organisation’s members')
}

export function asHost(caller: Caller): Caller & { kind: 'host' } {
  if (caller.kind === 'host') return caller
  throw new Refusal('forbidden', 'this is the affair of an enrolled host')
}

export const seesPair = (member: Member, pair: string | null): boolean =>
  member.pairs === null || (pair !== null && member.pairs.has(pair))
