import { readFileSync } from 'node:fs'

/** A process of one boot by its pid and its start time: a pid alone may belong to somebody else by now. */
export interface ProcessIdentity {
  pid: number
  /** Field 22 of /proc/pid/stat, proc(5): ticks after boot. */
  startTicks: string
}

/** null: no such process, or a zombie, which runs nothing and holds nothing. @throws where the kernel does not say */
export function startTicksOf(pid: number): string | null {
  const fields = statOf(pid)
  return fields === null || fields[0] === 'Z' ? null : (fields[19] ?? null)
}

export const stillRuns = ({ pid, startTicks }: ProcessIdentity): boolean => startTicksOf(pid) === startTicks

/** Fields of /proc/pid/stat from the third (the state) on: the second, the name, may contain spaces and brackets. */
export function statOf(pid: number | string): string[] | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  } catch (error) {
    if (isNoProcess(error)) return null
    throw error
  }
}

/** Of /proc: it has ended. Any other error, such as want of descriptors (EMFILE), says nothing of it. */
export function isNoProcess(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'ENOENT' || code === 'ESRCH'
}

/** What `JSON.stringify` made of one; null for anything else. */
export function parseIdentity(text: string): ProcessIdentity | null {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null) return null
    const [pid, startTicks] = [Reflect.get(value, 'pid'), Reflect.get(value, 'startTicks')]
    return Number.isSafeInteger(pid) && pid > 1 && typeof startTicks === 'string' ? { pid, startTicks } : null
  } catch {
    return null
  }
}

/** Of the process group; nothing left of it is no error. */
export function signalGroup(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-group, signal)
  } catch {
    // Nothing of the group is left.
  }
}
