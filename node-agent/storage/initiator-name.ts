import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { initiatorNameFault } from '../../shared/hosts/iscsi-name.ts'

/**
 * The name by which targets know this host (open-iscsi's README, "InitiatorName"). A session keeps the name it was
 * logged in with, so a change wants no session: refused, or logged out and in again when asked to. In this order only:
 * an iscsid that is restarted below a session tries to get it back, and a logout then fails.
 */

export const initiatorNamePath = '/etc/iscsi/initiatorname.iscsi'

/** null where open-iscsi is not installed or has no name. */
export function readInitiatorName(root = '/'): string | null {
  const text = readNameFile(root)
  return text === null ? null : (nameLine.exec(text)?.[1] ?? null)
}
const nameLine = /^InitiatorName=(\S+)[ \t]*$/m

export function readNameFile(root: string): string | null {
  const path = join(root, initiatorNamePath)
  return existsSync(path) ? readFileSync(path, 'utf8') : null
}

/** What of the host a change needs; the real one is `iscsiHost`, tests have their own. */
export interface IscsiHost {
  readText(): string | null
  writeText(text: string): Promise<void>
  sessions(): (Login & { initiatorName: string | null })[]
  /** Devices of its sessions that somebody uses: "sdb (/srv)". */
  inUse(): Promise<string[]>
  /** Each ends with null, or a sentence that says what failed. */
  logOut(): Promise<string | null>
  logIn(logins: readonly Login[]): Promise<string | null>
  restartDaemon(): Promise<string | null>
}

export interface Login {
  target: string
  /** One of the target's; null: not known. */
  portal: string | null
}

export interface NameChange {
  name: string
  /** Sessions may be logged out for it, and in again. */
  logOutSessions: boolean
  /** Of the other host; null: not known. */
  theirs: string | null
}

export type NameChangeResult =
  | { ok: true; from: string | null; to: string; sessions: number; why: string }
  | { ok: false; why: string }

export async function changeInitiatorName(host: IscsiHost, change: NameChange): Promise<NameChangeResult> {
  const { name } = change
  const others = change.theirs === null ? [] : [{ host: 'the other host', name: change.theirs }]
  const fault = initiatorNameFault(name, others)
  if (fault !== null) return { ok: false, why: `the initiator name "${name}" ${fault}` }
  const before = host.readText()
  if (before === null) return { ok: false, why: `there is no ${initiatorNamePath}: install open-iscsi first` }
  const from = nameLine.exec(before)?.[1] ?? null
  const sessions = host.sessions()
  if (from === name && sessions.every(session => session.initiatorName === null || session.initiatorName === name)) {
    return { ok: true, from, to: name, sessions: sessions.length, why: 'it has that name already' }
  }
  if (sessions.length > 0 && !change.logOutSessions) {
    return {
      ok: false,
      why: `${sessions.length} session${sessions.length === 1 ? ' is' : 's are'} logged in (${sessions.map(one => one.target).join(', ')}), and would keep the old name: log out first, or ask for it to be done`,
    }
  }
  const inUse = sessions.length > 0 ? await host.inUse() : []
  if (inUse.length > 0) {
    return {
      ok: false,
      why: `devices of its sessions are in use: ${inUse.slice(0, shownMax).join(', ')}; a logout would take them away from under their users. Unmount or stop these first; nothing was changed`,
    }
  }
  const logins = sessions.map(({ target, portal }) => ({ target, portal }))
  if (sessions.length > 0) {
    const why = await host.logOut()
    if (why !== null) return undo(host, { before: null, logins, why: `could not log out: ${why}` })
  }
  const why =
    (await written(host, withName(before, name))) ??
    (await host.restartDaemon()) ??
    (logins.length > 0 ? await host.logIn(logins) : null) ??
    notVerified(host, { name, logins })
  if (why !== null) return undo(host, { before, logins, why })
  return {
    ok: true,
    from,
    to: name,
    sessions: sessions.length,
    why: sessions.length > 0 ? 'seen in its sessions' : 'in the file; no session was there to show it',
  }
}

/** Every session that was there is there again, by the new name: no session is no proof. */
function notVerified(host: IscsiHost, { name, logins }: { name: string; logins: readonly Login[] }): string | null {
  const sessions = host.sessions()
  const [gone] = missing(host, logins)
  if (gone !== undefined)
    return `no session with ${gone.target}${gone.portal === null ? '' : ` at ${gone.portal}`} came back`
  const other = sessions.find(session => session.initiatorName !== null && session.initiatorName !== name)
  return other === undefined ? null : `the session with ${other.target} still has the name ${other.initiatorName}`
}

const missing = (host: IscsiHost, logins: readonly Login[]): Login[] =>
  logins.filter(
    ({ target, portal }) =>
      !host.sessions().some(session => session.target === target && (portal === null || session.portal === portal)),
  )

/** A full or read-only disk finds sessions logged out, so it is no exception. */
const written = (host: IscsiHost, text: string): Promise<string | null> =>
  host.writeText(text).then(
    () => null,
    (error: unknown) =>
      `${initiatorNamePath} could not be written: ${error instanceof Error ? error.message : String(error)}`,
  )

/** The host is as it was; what could not be put back is said. */
async function undo(
  host: IscsiHost,
  { before, logins, why }: { before: string | null; logins: readonly Login[]; why: string },
): Promise<NameChangeResult> {
  const left: string[] = []
  if (before !== null) {
    if (host.sessions().length > 0) left.push((await host.logOut()) ?? '')
    left.push((await written(host, before)) ?? '', (await host.restartDaemon()) ?? '')
  }
  const gone = missing(host, logins)
  if (gone.length > 0) left.push((await host.logIn(gone)) ?? '')
  const failed = left.filter(Boolean)
  const end =
    failed.length === 0 ? 'the old name is back' : `and putting the old name back failed too: ${failed.join('; ')}`
  return { ok: false, why: `${why}; ${before === null && failed.length === 0 ? 'nothing was changed' : end}` }
}

/** Comments and other lines stay. */
function withName(text: string, name: string): string {
  const line = `InitiatorName=${name}`
  if (nameLine.test(text)) return text.replace(nameLine, line)
  return `${text}${text === '' || text.endsWith('\n') ? '' : '\n'}${line}\n`
}

/** Of what is in the way, as much as a sentence holds. */
const shownMax = 8
