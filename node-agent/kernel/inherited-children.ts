import { readFileSync } from 'node:fs'
import { reapChild } from './libc.ts'

/**
 * Children of the program that this process was before it began anew (execve(2)): PostgreSQL, services. They are still
 * this process's, but Node knows nothing of them and would never take their end. An ended child that nobody takes keeps
 * its process id, and PostgreSQL refuses to start while the id in an old lock file is in use.
 */
export function takeInheritedChildren(): void {
  let left = childrenNow()
  if (left.length === 0) return
  const reap = (): void => {
    left = left.filter(pid => !reapChild(pid))
    if (left.length === 0) process.off('SIGCHLD', reap)
  }
  process.on('SIGCHLD', reap)
  reap()
}

/** By the thread that forked them, which after execve(2) is the first one: proc(5). Before anything is started here. */
function childrenNow(): number[] {
  try {
    return readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)
  } catch {
    // A kernel without CONFIG_PROC_CHILDREN.
    return []
  }
}
