import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { exec } from '../exec.ts'
import { openFolderWriter } from '../state-file/atomic-write.ts'
import { listSessions } from './adapters.ts'
import { type IscsiHost, initiatorNamePath, readNameFile } from './initiator-name.ts'
import type { SessionUse } from './session-users.ts'
import type { Sysfs } from './sysfs.ts'

/** It writes to sysfs, and hangs there as long as a driver does. */
const bounds = { limitMs: 30_000, whenKilled: 'leave' } as const
/** iscsiadm's exit codes for "no session found", nothing to log out of, and "session is there already" (iscsiadm(8)). */
const noSessions = 21
const sessionExists = 15
/** As long as one of ours may go on, and some. */
const settleMs = 40_000
const settleEveryMs = 500

/** The host that this process runs on. `uses` looks at its devices, which may hang with a driver. */
export function iscsiHost(sysfs: Sysfs, uses: () => Promise<SessionUse[]>): IscsiHost {
  const run = async (argv: readonly string[], fine: readonly number[] = []): Promise<string | null> => {
    const result = await exec(argv, bounds)
    return result.ok || (result.code !== null && fine.includes(result.code)) ? null : result.why
  }
  /** The first process of this name; undefined: there is none. */
  const processOf = (name: string): string | undefined =>
    sysfs.list('proc').find(pid => /^\d+$/.test(pid) && sysfs.text(`proc/${pid}/comm`) === name)
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
    sessions: () =>
      listSessions(sysfs).map(({ id, target, portal, iface, initiatorName }) => ({
        id,
        target,
        portal,
        iface,
        initiatorName,
      })),
    inUse: uses,
    // What a process began that was killed goes on without it, and would come in between.
    settled: async () => {
      for (let waitedMs = 0; ; waitedMs += settleEveryMs) {
        const pid = processOf('iscsiadm')
        if (pid === undefined) return null
        if (waitedMs >= settleMs) return `iscsiadm is still at work (process ${pid})`
        await sleep(settleEveryMs)
      }
    },
    logOut: async sessions => {
      for (const id of sessions) {
        const number = id.replace(/^session/, '')
        const why = await run(['iscsiadm', '--mode', 'session', '--sid', number, '--logout'], [noSessions])
        if (why !== null) return why
      }
      return null
    },
    // Those that were logged in, one by one: Debian's nodes are not automatic, and "all", or all portals of a target, is more
    // than there was, of which one that is not reached would count as a failure. A record may stand for several sessions.
    logIn: async logins => {
      for (const { target, portal, iface } of logins) {
        const at = [...(portal === null ? [] : ['--portal', portal]), ...(iface === null ? [] : ['--interface', iface])]
        const argv = ['iscsiadm', '--mode', 'node', '--targetname', target, ...at, '--login']
        const why = await run(argv, [sessionExists])
        if (why !== null) return why
      }
      return null
    },
    restartDaemon: () => run(['systemctl', 'restart', 'iscsid.service']),
    daemonRuns: () => processOf('iscsid') !== undefined,
  }
}
