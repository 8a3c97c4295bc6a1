import { lstatSync, readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import type { Config } from '../config.ts'
import type { ConfigFault } from '../config-faults.ts'

/** As many as one reads. */
const namedMax = 8

/**
 * What keeps the trees of a configuration from being replicated, before anything is changed. The host that joins gets the
 * other one's files: whoever has files open below its trees would go on in what is replaced.
 */
export function treeFaults({ sync }: Config, part: 'begins' | 'joins'): ConfigFault[] {
  return (sync?.trees ?? []).flatMap(({ path }, index) => {
    const field = `sync.trees[${index}].path`
    const stat = lstatSync(path, { throwIfNoEntry: false })
    if (stat?.isDirectory() !== true) {
      const rule = stat === undefined ? 'is not there' : 'is not a directory'
      return [{ field, value: path, rule, remedy: `make it: mkdir -p ${path}, or mount its partition there` }]
    }
    const users = part === 'joins' ? openBelow(path) : []
    if (users.length === 0) return []
    const rule = `has files open by ${users.slice(0, namedMax).join(', ')}${users.length > namedMax ? ', …' : ''}`
    return [{ field, value: path, rule, remedy: 'stop them: this host’s copy is replaced by the other one’s' }]
  })
}

/** Processes with a file, a working directory or a root in a folder, as `command (pid)`. */
export function openBelow(folder: string): string[] {
  const real = realpathSync(folder)
  const isBelow = (target: string | null): boolean => target === real || target?.startsWith(`${real}/`) === true
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter(pid => {
      const at = join('/proc', pid)
      return isBelow(link(join(at, 'cwd'))) || isBelow(link(join(at, 'root'))) || descriptors(at).some(isBelow)
    })
    .map(pid => `${command(pid)} (${pid})`)
}

function descriptors(at: string): (string | null)[] {
  try {
    return readdirSync(join(at, 'fd')).map(fd => link(join(at, 'fd', fd)))
  } catch {
    // It has ended.
    return []
  }
}

function link(path: string): string | null {
  try {
    return readlinkSync(path)
  } catch {
    return null
  }
}

function command(pid: string): string {
  try {
    return readFileSync(join('/proc', pid, 'comm'), 'utf8').trim()
  } catch {
    return 'a process'
  }
}
