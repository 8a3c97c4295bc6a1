import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { initiatorNameFault } from '../../shared/hosts/iscsi-name.ts'
import {
  isJournalThere,
  type JournalPlace,
  readJournalFile,
  removeJournalFile,
  writeJournalFile,
} from '../state-file/change-journal.ts'
import type { SessionUse } from './session-users.ts'

/**
 * The name by which targets know this host (open-iscsi's README, "InitiatorName"). A session keeps the name it was
 * logged in with, so a change wants no session: refused, or logged out and in again when asked to. In this order only:
 * an iscsid that is restarted below a session tries to get it back, and a logout then fails.
 *
 * What the host was is written down before anything is done. A change that fails is taken back by that, and so is one whose
 * process or host ended in the middle, by whoever finds it.
 */

export const initiatorNamePath = '/etc/iscsi/initiatorname.iscsi'

/** null where open-iscsi is not installed or has no name. */
export function readInitiatorName(root = '/'): string | null {
  return nameIn(readNameFile(root))
}
const nameIn = (text: string | null): string | null => (text === null ? null : (nameLine.exec(text)?.[1] ?? null))
const nameLine = /^InitiatorName=(\S+)[ \t]*$/m

export function readNameFile(root: string): string | null {
  const path = join(root, initiatorNamePath)
  return existsSync(path) ? readFileSync(path, 'utf8') : null
}

/** What of the host a change needs; the real one is `iscsiHost`, tests have their own. */
export interface IscsiHost {
  readText(): string | null
  writeText(text: string): Promise<void>
  sessions(): Session[]
  /** Who uses the devices of its sessions. */
  inUse(): Promise<SessionUse[]>
  /** Each ends with null, or a sentence that says what failed. The first waits for what an earlier caller has begun. */
  settled(): Promise<string | null>
  logOut(sessions: readonly string[]): Promise<string | null>
  logIn(logins: readonly Login[]): Promise<string | null>
  restartDaemon(): Promise<string | null>
  /** One that does not run reads the name when it is started. */
  daemonRuns(): boolean
}

const loginSchema = z.strictObject({
  target: z.string(),
  /** One of the target's; null: not known. */
  portal: z.string().nullable(),
  /** open-iscsi's record of the interface; null: not known. */
  iface: z.string().nullable(),
})
export type Login = z.output<typeof loginSchema>

export interface Session extends Login {
  id: string
  /** null: the kernel does not say. */
  initiatorName: string | null
}

export interface NameChange {
  name: string
  /** Sessions may be logged out for it, and in again. */
  logOutSessions: boolean
  /** Of the other host; null: not known. */
  theirs: string | null
}

/** `begun`: something was done, and has been taken back as far as the sentence says. */
export type NameChangeResult =
  | { ok: true; from: string | null; to: string; sessions: number; why: string }
  | { ok: false; begun: boolean; why: string }

/** A host with more sessions is no host. */
const loginsMax = 4096
const journalSchema = z.strictObject({
  version: z.literal(1),
  /** The whole file as it was, and the name it is to have. */
  before: z.string(),
  name: z.string(),
  logins: z.array(loginSchema).max(loginsMax),
})
type Journal = z.output<typeof journalSchema>

const placeIn = (folder: string): JournalPlace => ({
  folder,
  name: 'initiator-name-change.json',
  of: 'says how a change of the iSCSI name is taken back',
  remedy: `look at ${initiatorNamePath} and the sessions of this host, and remove it then`,
})

export const isNameUnfinished = (folder: string): boolean => isJournalThere(placeIn(folder))

/** What is wrong with the name itself, before anything of the host is asked; null: nothing. */
export function nameRefusal({ name, theirs }: Pick<NameChange, 'name' | 'theirs'>): string | null {
  const others = theirs === null ? [] : [{ host: 'the other host', name: theirs }]
  const fault = initiatorNameFault(name, others)
  return fault === null ? null : `the initiator name "${name}" ${fault}`
}

export interface NameParts {
  host: IscsiHost
  /** Where the journal stands. Whoever calls these has it for himself. */
  folder: string
  /** From here on the change has to be taken back if nobody ends it. */
  begun?: () => void
}

export async function changeInitiatorName(
  { host, folder, begun }: NameParts,
  change: NameChange,
): Promise<NameChangeResult> {
  const { name } = change
  const refused = (why: string): NameChangeResult => ({ ok: false, begun: false, why })
  const refusal = nameRefusal(change)
  if (refusal !== null) return refused(refusal)
  const before = host.readText()
  if (before === null) return refused(`there is no ${initiatorNamePath}: install open-iscsi first`)
  const from = nameIn(before)
  const all = host.sessions()
  const sessions = all.filter(session => goesBy(session, [from, name]))
  if (from === name && sessions.every(session => session.initiatorName === null || session.initiatorName === name)) {
    return { ok: true, from, to: name, sessions: sessions.length, why: 'it has that name already' }
  }
  if (sessions.length > 0 && !change.logOutSessions) {
    return refused(
      `${sessions.length} session${sessions.length === 1 ? ' is' : 's are'} logged in (${shown(sessions.map(one => one.target))}), and would keep the old name: log out first, or ask for it to be done`,
    )
  }
  const inUse = await usesOf(host, sessions)
  if (inUse.length > 0) {
    return refused(
      `devices of its sessions are in use: ${shown(inUse)}; a logout would take them away from under their users. Unmount or stop these first; nothing was changed`,
    )
  }
  const logins = sessions.map(({ target, portal, iface }) => ({ target, portal, iface }))
  const journal: Journal = { version: 1, before, name, logins }
  await writeJournalFile(placeIn(folder), journal)
  begun?.()
  const why =
    (sessions.length === 0 ? null : prefixed('could not log out', await host.logOut(idsOf(sessions)))) ??
    (await written(host, withName(before, name))) ??
    (await host.restartDaemon()) ??
    overwritten(host, name) ??
    (logins.length > 0 ? await host.logIn(logins) : null) ??
    notVerified(host, { name, logins })
  if (why !== null) {
    const left = await takeBack(host, journal)
    if (left === null) removeJournalFile(placeIn(folder))
    return {
      ok: false,
      begun: true,
      why: `${why}; ${left === null ? whatIsBack(host, before) : stillLeft(folder, left)}`,
    }
  }
  removeJournalFile(placeIn(folder))
  const others = all.length - sessions.length
  const seen = sessions.length > 0 ? 'seen in its sessions' : 'in the file; no session was there to show it'
  const apart = others === 0 ? '' : `; sessions with a name of their own interface were left alone: ${others}`
  return { ok: true, from, to: name, sessions: sessions.length, why: `${seen}${apart}` }
}

function whatIsBack(host: IscsiHost, before: string): string {
  const [now, old] = [nameIn(host.readText()), nameIn(before)]
  return now === old
    ? 'the old name is back'
    : `the name ${now ?? 'of nobody'}, which somebody else has given, was left`
}

const stillLeft = (folder: string, left: string): string =>
  `and putting the old name back failed too: ${left}. This host tries it again by itself; to have it left as it is, remove ${join(folder, placeIn(folder).name)}`

/** What became of a change whose process has ended. `whole`: the host is as it was, or as it was to be. */
export type NameUndone = { whole: boolean; why: string }

/** Takes back, or finds to be done, what was left half-way; null: nothing was. */
export async function endUnfinishedName({ host, folder }: NameParts): Promise<NameUndone | null> {
  const journal = readJournalFile(placeIn(folder), journalSchema)
  if (journal === null) return null
  const what = `the change of the iSCSI name to ${journal.name} was under way when its process ended`
  if (await isDone(host, journal)) {
    removeJournalFile(placeIn(folder))
    return { whole: true, why: `${what}, and was done: it stays` }
  }
  const left = await takeBack(host, journal)
  if (left !== null) return { whole: false, why: `${what}, ${stillLeft(folder, left)}` }
  removeJournalFile(placeIn(folder))
  return { whole: true, why: `${what}: it was taken back, and ${whatIsBack(host, journal.before)}` }
}

/**
 * The file and every session have the new name. Where a boot has logged in some of them and somebody uses these already,
 * the others follow: those can't be taken away from under him.
 */
async function isDone(host: IscsiHost, journal: Journal): Promise<boolean> {
  if (journal.logins.length === 0 || nameIn(host.readText()) !== journal.name) return false
  if (notVerified(host, journal) === null) return true
  const renamed = host.sessions().filter(session => session.initiatorName === journal.name)
  if ((await host.settled()) !== null || (await usesOf(host, renamed)).length === 0) return false
  await host.logIn(missing(host, journal.logins))
  return notVerified(host, journal) === null
}

/**
 * By what is there now, so that it can be begun again wherever it was cut off itself.
 * @returns null: the host is as it was
 */
async function takeBack(host: IscsiHost, { before, name, logins }: Journal): Promise<string | null> {
  const busy = await host.settled()
  if (busy !== null) return busy
  const [text, old] = [host.readText(), nameIn(before)]
  const rewritten = text !== before
  // Whoever has written a third name since knows better; sessions are brought back by his.
  const foreign = rewritten && nameIn(text) !== name
  if (!foreign) {
    const renamed = host.sessions().filter(session => session.initiatorName === name && name !== old)
    const inUse = await usesOf(host, renamed)
    if (inUse.length > 0) return `devices of sessions with the new name are in use by now: ${shown(inUse)}`
    const why = renamed.length === 0 ? null : prefixed('could not log out', await host.logOut(idsOf(renamed)))
    if (why !== null) return why
    const rest = host.sessions().filter(session => goesBy(session, [old, name]))
    const put = rewritten ? await written(host, before) : null
    if (put !== null) return put
    // The file may be back already, and the daemon not know it; below a session there was no need for it.
    const unaware = rewritten || rest.length === 0 ? await host.restartDaemon() : null
    if (unaware !== null && host.daemonRuns()) return unaware
  }
  const gone = missing(host, logins)
  const failed = gone.length === 0 ? null : ((await host.logIn(gone)) ?? notVerified(host, { name: null, logins }))
  if (failed !== null || foreign) return failed
  const still = host.sessions().find(session => session.initiatorName === name && name !== old)
  return still === undefined ? null : `the session with ${still.target} still has the name ${name}`
}

/** Every session that was there is there again, by this name (null: any): no session is no proof. */
function notVerified(
  host: IscsiHost,
  { name, logins }: { name: string | null; logins: readonly Login[] },
): string | null {
  const [gone] = missing(host, logins)
  if (gone !== undefined)
    return `no session with ${gone.target}${gone.portal === null ? '' : ` at ${gone.portal}`} came back`
  const other = host
    .sessions()
    .filter(session => logins.some(login => isOf(session, login)))
    .find(session => name !== null && session.initiatorName !== null && session.initiatorName !== name)
  return other === undefined ? null : `the session with ${other.target} still has the name ${other.initiatorName}`
}

/** Several sessions may be alike: each is missed for itself. */
function missing(host: IscsiHost, logins: readonly Login[]): Login[] {
  const there = [...host.sessions()]
  return logins.filter(login => {
    const found = there.findIndex(session => isOf(session, login))
    if (found >= 0) there.splice(found, 1)
    return found < 0
  })
}

const isOf = (session: Session, { target, portal, iface }: Login): boolean =>
  session.target === target &&
  (portal === null || session.portal === portal) &&
  (iface === null || session.iface === iface)

/** An interface of open-iscsi may have an initiator name of its own (iscsiadm(8), "iface.initiatorname"). */
const goesBy = ({ initiatorName, iface }: Session, names: readonly (string | null)[]): boolean =>
  initiatorName === null || names.includes(initiatorName) || iface === null || iface === 'default'

async function usesOf(host: IscsiHost, sessions: readonly Session[]): Promise<string[]> {
  if (sessions.length === 0) return []
  const ids = idsOf(sessions)
  const uses = (await host.inUse()).filter(use => ids.includes(use.session))
  return [...new Set(uses.map(use => use.what))]
}

const idsOf = (sessions: readonly Session[]): string[] => sessions.map(session => session.id)

/** A full or read-only disk finds sessions logged out, so it is no exception. */
const written = (host: IscsiHost, text: string): Promise<string | null> =>
  host.writeText(text).then(
    () => null,
    (error: unknown) =>
      `${initiatorNamePath} could not be written: ${error instanceof Error ? error.message : String(error)}`,
  )

const prefixed = (what: string, why: string | null): string | null => (why === null ? null : `${what}: ${why}`)

/** By whatever runs at a start of the daemon. */
function overwritten(host: IscsiHost, name: string): string | null {
  const now = nameIn(host.readText())
  return now === name
    ? null
    : `the file has the name ${now ?? 'of nobody'} after the restart of iscsid: something writes it`
}

/**
 * Comments and other lines stay, but for other names and the wish to have one made up, which Debian's start of the daemon
 * fulfils (startup-checks.sh of open-iscsi).
 */
function withName(text: string, name: string): string {
  const line = `InitiatorName=${name}`
  const lines = text.split('\n').filter(one => !one.startsWith('GenerateName='))
  const at = lines.findIndex(one => nameLine.test(one))
  const others = lines.filter((one, index) => index < at || !nameLine.test(one))
  if (at >= 0) return others.toSpliced(at, 0, line).join('\n')
  const rest = others.join('\n')
  return `${rest}${rest === '' || rest.endsWith('\n') ? '' : '\n'}${line}\n`
}

/** Of what is in the way, as much as a sentence holds. */
const shownMax = 8
const shown = (words: readonly string[]): string =>
  `${words.slice(0, shownMax).join(', ')}${words.length > shownMax ? ` and ${words.length - shownMax} more` : ''}`
