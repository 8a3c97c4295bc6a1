import { existsSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { type MountLine, mountLines } from '../kernel/mountinfo.ts'

/** null: this directory is no mount of its own. In this process's view. */
export function mountAt(path: string): MountLine | null {
  if (!existsSync(path)) return null
  const real = realpathSync(path)
  // The last one lies on top.
  return mountLines(readFileSync('/proc/self/mountinfo', 'utf8')).findLast(one => one.point === real) ?? null
}

/** Whether it is this device, or this file by a loop device, that is mounted there. */
export function isMountOf(mount: MountLine, source: string): boolean {
  const stat = statSync(source, { throwIfNoEntry: false })
  if (stat === undefined) return false
  const backing = `/sys/dev/block/${mount.device}/loop/backing_file`
  if (existsSync(backing)) return readFileSync(backing, 'utf8').trimEnd() === realpathSync(source)
  return stat.isBlockDevice() && numbersOf(stat.rdev) === mount.device
}

/** Major and minor of Linux's 64-bit device number (makedev(3)); minors above 20 bits are not in use. */
const numbersOf = (rdev: number): string => `${(rdev >> 8) & 0xfff}:${(rdev & 0xff) | ((rdev >> 12) & 0xfff00)}`
