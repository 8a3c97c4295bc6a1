import { existsSync, readFileSync, realpathSync, statSync } from 'node:fs'

/** What is mounted where, as the kernel has it in this process's view (proc(5), mountinfo). */
export interface Mount {
  /** "major:minor" of the block device, or a number of the kernel's own. */
  device: string
  source: string
}

const deviceField = 2
const pointField = 4

/** null: this directory is no mount of its own. */
export function mountAt(path: string): Mount | null {
  if (!existsSync(path)) return null
  const real = realpathSync(path)
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').trimEnd().split('\n')
  // The last one lies on top.
  const line = lines.findLast(one => unescaped(one.split(' ')[pointField] ?? '') === real)
  if (line === undefined) return null
  const afterOptions = line.split(' - ')[1]?.split(' ') ?? []
  return { device: line.split(' ')[deviceField] ?? '', source: unescaped(afterOptions[1] ?? '') }
}

/** Whether it is this device, or this file by a loop device, that is mounted there. */
export function isMountOf(mount: Mount, source: string): boolean {
  const stat = statSync(source, { throwIfNoEntry: false })
  if (stat === undefined) return false
  const backing = `/sys/dev/block/${mount.device}/loop/backing_file`
  if (existsSync(backing)) return readFileSync(backing, 'utf8').trimEnd() === realpathSync(source)
  return stat.isBlockDevice() && numbersOf(stat.rdev) === mount.device
}

/** Major and minor of Linux's 64-bit device number (makedev(3)); minors above 20 bits are not in use. */
const numbersOf = (rdev: number): string => `${(rdev >> 8) & 0xfff}:${(rdev & 0xff) | ((rdev >> 12) & 0xfff00)}`

/** Spaces and the like are octal there. */
const unescaped = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
