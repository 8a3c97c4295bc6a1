import type { ChildProcess } from 'node:child_process'
import koffi from 'koffi'
import { closeFd, runOrdinary, runRealTimeAgain } from './libc.ts'

/**
 * Takes the end of a child with several threads as an ordinary process.
 *
 * Node takes it (waitpid(2)) as soon as the kernel tells. The last thread of the child may then still be in the middle of
 * removing what /proc had of it, and the kernel lets whoever takes the child wait for that without sleeping. A real-time
 * thread that wakes on the very processor of that last one never lets it go on: both stand until the kernel's limit for
 * real-time threads (sched(7), sched_rt_runtime_us) is used up, 0.95 s without a heartbeat. What /proc has of the threads of
 * a process is what somebody has read there: htop, `ps -L`, a monitor. A process of one thread has nothing like it.
 *
 * The descriptor of the child becomes readable before the signal by which Node learns of its end, and Node looks at signals
 * last: in between this thread becomes an ordinary one, and a real-time one again when the child has been taken.
 */
const libc = koffi.load('libc.so.6')
const syscall = libc.func('int64 syscall(int64 number, int64 pid, int64 flags)')
/** pidfd_open(2), on every architecture; the C library has it only since 2.36. */
const SYS_PIDFD_OPEN = 434

/** Children that have ended and were not taken yet. */
let ended = 0

const watches = new Set<{ close(): void }>()
// Node turns its loop once more when it takes itself apart, and a child that has just ended would be told to nobody: koffi
// ends the process then, by SIGABRT.
process.once('exit', () => {
  for (const watch of watches) watch.close()
})

/** To be called right after the start of it. */
export function takeEndCalmly(child: ChildProcess): void {
  const fd = child.pid === undefined ? -1 : Number(syscall(SYS_PIDFD_OPEN, child.pid, 0))
  // It was never there, or is taken already.
  if (fd < 0) return
  let hasEnded = false
  const watch = koffi.node.poll(fd, { readable: true }, () => {
    close()
    hasEnded = true
    ended += 1
    runOrdinary()
  })
  // Whether anybody waits for the child is said by the child.
  watch.unref()
  watches.add(watch)
  const close = (): void => {
    watches.delete(watch)
    watch.close()
  }
  child.once('exit', () => {
    if (!hasEnded) close()
    closeFd(fd)
    if (!hasEnded) return
    ended -= 1
    if (ended === 0) runRealTimeAgain()
  })
}
