import { lstatSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { chmod, mkdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { NetworkManager, Vswitch } from '../../shared/hosts/network.ts'
import { exec } from '../exec.ts'
import { openFolderWriter } from '../state-file/atomic-write.ts'
import { bootFileMode, bootFiles, ownFiles } from './boot-files.ts'

const folders = ['/etc/systemd/network', '/etc/network/interfaces.d', '/etc/netplan']
const generateLimitMs = 20_000

/**
 * Makes the boot files those of the vSwitches given, removing ours of vSwitches that are gone. Nothing is reloaded: what
 * runs is what was confirmed, and a reload may take links down.
 */
export async function writeBootFiles(
  parts: { root: string; manager: NetworkManager },
  vswitches: readonly Vswitch[],
): Promise<void> {
  const files = bootFiles(parts.manager, vswitches) ?? []
  for (const { path, text } of files) {
    const target = join(parts.root, path)
    const made = await mkdir(dirname(target), { recursive: true })
    // The agent's umask is its own affair.
    if (made !== undefined) await chmod(dirname(target), 0o755)
    const folder = await openFolderWriter(dirname(target))
    try {
      // Whoever takes a change back on a full disk has no room for what is there already.
      if (isThere(target, { text, mode: bootFileMode(parts.manager) })) await folder.sync()
      else await folder.write(basename(target), Buffer.from(text), bootFileMode(parts.manager))
    } finally {
      await folder.close()
    }
  }
  const wanted = new Set(files.map(file => file.path))
  for (const path of writtenBefore(parts.root)) if (!wanted.has(path)) rmSync(join(parts.root, path), { force: true })
  // netplan's own files are made from these at boot as well; this shows a fault now instead of then.
  if (parts.manager !== 'netplan' || files.length === 0) return
  const generated = await exec(['netplan', 'generate'], { limitMs: generateLimitMs })
  if (!generated.ok) throw new Error(`netplan refuses our file: ${generated.why}`)
}

function isThere(path: string, { text, mode }: { text: string; mode: number }): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false })
  return found?.isFile() === true && (found.mode & 0o7777) === mode && readFileSync(path, 'utf8') === text
}

function writtenBefore(root: string): string[] {
  return folders.flatMap(folder => {
    try {
      return readdirSync(join(root, folder))
        .map(name => join(folder, name))
        .filter(path => ownFiles.some(pattern => pattern.test(path)))
    } catch {
      return [] // this host does not have such a folder
    }
  })
}
