import { existsSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { initiatorNameFault } from '../../shared/hosts/iscsi-name.ts'
import { exec } from '../exec.ts'
import { openFolderWriter } from '../state-file/atomic-write.ts'
import { listSessions } from './adapters.ts'
import type { Sysfs } from './sysfs.ts'

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

function readNameFile(root: string): string | null {
  const path = join(root, initiatorNamePath)
  return existsSync(path) ? readFileSync(path, 'utf8') : null
}

/** What of the host a change needs; the real one is below, tests have their own. */
export interface IscsiHost {
  readText(): string | null
  writeText(text: string): Promise<void>
  sessions(): { id: string; target: string; initiatorName: string | null }[]
  /** Each ends with null, or a sentence that says what failed. */
  logOut(): Promise<string | null>
  logIn(targets: readonly string[]): Promise<string | null>
  restartDaemon(): Promise<string | null>
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
  const targets = [...new Set(sessions.map(one => one.target))]
  if (sessions.length > 0) {
    const why = await host.logOut()
    if (why !== null) return undo(host, { before: null, targets, why: `could not log out: ${why}` })
  }
  await host.writeText(withName(before, name))
  const why =
    (await host.restartDaemon()) ??
    (targets.length > 0 ? await host.logIn(targets) : null) ??
    notVerified(host, { name, targets })
  if (why !== null) return undo(host, { before, targets, why })
  return {
    ok: true,
    from,
    to: name,
    sessions: sessions.length,
    why: sessions.length > 0 ? 'seen in its sessions' : 'in the file; no session was there to show it',
  }
}

/** Every target that was there is there again, by the new name: no session is no proof. */
function notVerified(host: IscsiHost, { name, targets }: { name: string; targets: readonly string[] }): string | null {
  const sessions = host.sessions()
  const gone = targets.find(target => !sessions.some(session => session.target === target))
  if (gone !== undefined) return `no session with ${gone} came back`
  const other = sessions.find(session => session.initiatorName !== null && session.initiatorName !== name)
  return other === undefined ? null : `the session with ${other.target} still has the name ${other.initiatorName}`
}

/** The host is as it was; what could not be put back is said. */
async function undo(
  host: IscsiHost,
  { before, targets, why }: { before: string | null; targets: readonly string[]; why: string },
): Promise<NameChangeResult> {
  const left: string[] = []
  if (before !== null) {
    if (host.sessions().length > 0) left.push((await host.logOut()) ?? '')
    await host.writeText(before)
    left.push((await host.restartDaemon()) ?? '')
  }
  const gone = targets.filter(target => !host.sessions().some(session => session.target === target))
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

const iscsiLimitMs = 30_000
/** iscsiadm's exit code for "no session found" (iscsiadm(8)): nothing to log out of. */
const noSessions = 21

/** The host that this process runs on. */
export function iscsiHost(sysfs: Sysfs): IscsiHost {
  const run = async (argv: readonly string[]): Promise<string | null> => {
    const result = await exec(argv, { limitMs: iscsiLimitMs })
    return result.ok ? null : result.why
  }
  return {
    readText: () => readNameFile(sysfs.root),
    writeText: async text => {
      const path = join(sysfs.root, initiatorNamePath)
      const folder = await openFolderWriter(dirname(path))
      try {
        await folder.write(basename(path), Buffer.from(text))
      } finally {
        await folder.close()
      }
    },
    sessions: () => listSessions(sysfs).map(({ id, target, initiatorName }) => ({ id, target, initiatorName })),
    logOut: async () => {
      const result = await exec(['iscsiadm', '--mode', 'session', '--logout'], { limitMs: iscsiLimitMs })
      return result.ok || result.code === noSessions ? null : result.why
    },
    // Those that were logged in, one by one: Debian's nodes are not automatic, and "all" is more than there was.
    logIn: async targets => {
      for (const target of targets) {
        const why = await run(['iscsiadm', '--mode', 'node', '--targetname', target, '--login'])
        if (why !== null) return why
      }
      return null
    },
    restartDaemon: () => run(['systemctl', 'restart', 'iscsid.service']),
  }
}
