import { basename, dirname, join } from 'node:path'
import { type StorageInventory, softwareIscsiName } from '../../shared/hosts/storage.ts'
import { exec } from '../exec.ts'
import { openFolderWriter } from '../state-file/atomic-write.ts'
import { listSessions } from './adapters.ts'
import { type IscsiHost, initiatorNamePath, readNameFile } from './initiator-name.ts'
import type { Sysfs } from './sysfs.ts'

/** It writes to sysfs, and hangs there as long as a driver does. */
const bounds = { limitMs: 30_000, whenKilled: 'leave' } as const
/** iscsiadm's exit code for "no session found" (iscsiadm(8)): nothing to log out of. */
const noSessions = 21

/** The host that this process runs on. `storage` looks at its devices, which may hang with a driver. */
export function iscsiHost(sysfs: Sysfs, storage: () => Promise<StorageInventory>): IscsiHost {
  const run = async (argv: readonly string[]): Promise<string | null> => {
    const result = await exec(argv, bounds)
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
    sessions: () => listSessions(sysfs).map(({ target, portal, initiatorName }) => ({ target, portal, initiatorName })),
    inUse: async () => {
      const { devices } = await storage()
      return devices
        .filter(one => one.usedBy.length > 0 && one.paths.some(path => path.adapter === softwareIscsiName))
        .map(one => `${one.name} (${one.usedBy.join(', ')})`)
    },
    logOut: async () => {
      const result = await exec(['iscsiadm', '--mode', 'session', '--logout'], bounds)
      return result.ok || result.code === noSessions ? null : result.why
    },
    // Those that were logged in, one by one: Debian's nodes are not automatic, and "all", or all portals of a target, is more
    // than there was, of which one that is not reached would count as a failure.
    logIn: async logins => {
      for (const { target, portal } of logins) {
        const at = portal === null ? [] : ['--portal', portal]
        const why = await run(['iscsiadm', '--mode', 'node', '--targetname', target, ...at, '--login'])
        if (why !== null) return why
      }
      return null
    },
    restartDaemon: () => run(['systemctl', 'restart', 'iscsid.service']),
  }
}
