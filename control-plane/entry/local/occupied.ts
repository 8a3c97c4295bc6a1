import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * One control plane at a time for a folder with servers of its own: a second one would take the first one's database for the
 * leftover of a crash, and end it. A file names the process, so that none is taken for another that has its number now.
 * @returns what leaves the folder to the next one
 * @throws when a process that lives has it
 */
export function occupy(dataDir: string): () => void {
  const path = join(dataDir, 'running.json')
  const own = nameOf(process.pid)
  for (let tries = 0; ; tries++) {
    try {
      writeFileSync(path, JSON.stringify({ pid: process.pid, name: own }), { flag: 'wx', mode: 0o600 })
      return () => rmSync(path, { force: true })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || tries > 2) throw error
    }
    const holder = holderOf(path)
    if (holder !== null && nameOf(holder.pid) === holder.name)
      throw new Error(
        `${dataDir} is in use by the control plane that runs as process ${holder.pid}: stop that one, or give this one a DATA_DIR of its own`,
      )
    rmSync(path, { force: true })
  }
}

/** null: it says nothing, as after a loss of power while it was written. */
function holderOf(path: string): { pid: number; name: string } | null {
  try {
    const { pid, name } = JSON.parse(readFileSync(path, 'utf8')) as { pid?: unknown; name?: unknown }
    return Number.isInteger(pid) && typeof name === 'string' ? { pid: pid as number, name } : null
  } catch {
    return null
  }
}

/** This boot of the machine and when the process began in it (proc(5), /proc/PID/stat, field 22); '' where none lives. */
function nameOf(pid: number): string {
  try {
    const [state = '', ...rest] = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ')
    if ('ZX'.includes(state)) return ''
    return `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()} ${rest[startField - stateField - 1]}`
  } catch {
    return ''
  }
}
const stateField = 3
const startField = 22
