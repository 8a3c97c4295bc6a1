import { basename, dirname, join } from 'node:path'
import { type StorageInventory, softwareIscsiName } from '../../shared/hosts/storage.ts'
import { exec } from '../exec.ts'
import { openFolderWriter } from '../state-file/atomic-write.ts'
import { listSessions } from './adapters.ts'
import { type IscsiHost, initiatorNamePath, readNameFile } from './initiator-name.ts'
import type { Sysfs } from './sysfs.ts'

const iscsiLimitMs = 30_000
/** iscsiadm's exit code for "no session found" (iscsiadm(8)): nothing to log out of. */
const noSessions = 21

/** The host that this process runs on. `storage` looks at its devices, which may hang with a driver. */
export function iscsiHost(sysfs: Sysfs, storage: () => Promise<StorageInventory>): IscsiHost {
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
    inUse: async () => {
      const { devices } = await storage()
      return devices
        .filter(one => one.usedBy.length > 0 && one.paths.some(path => path.adapter === softwareIscsiName))
        .map(one => `${one.name} (${one.usedBy.join(', ')})`)
    },
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
