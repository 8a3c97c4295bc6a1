import { readFileSync, realpathSync, statfsSync } from 'node:fs'
import { mountLines, withoutEscapes } from '../kernel/mountinfo.ts'

/**
 * Durable state must lie where fsync means something and where it is still the same after a boot. These file systems
 * are told apart by the magic numbers of statfs(2).
 */
export type LocationCheck = { ok: true } | { ok: false; why: string }

const kernels: { [magic: number]: string } = {
  40864: 'a proc: what the kernel shows of itself, in which nothing can be kept',
  1650812274: 'a sysfs: what the kernel shows of itself, in which nothing can be kept',
  1667723888: 'a cgroup2: groups of processes, in which nothing can be kept',
}
const memory: { [magic: number]: string } = {
  16914836: 'a tmpfs: it lives in memory and is empty after a boot',
  2240043254: 'a ramfs: it lives in memory and is empty after a boot',
}
const refused: { [magic: number]: string } = {
  ...kernels,
  ...memory,
  26985: 'an NFS mount: another host decides whether a write is durable, and hangs take this one along',
  4283649346: 'a CIFS mount: another host decides whether a write is durable, and hangs take this one along',
  4266872130: 'an SMB2 mount: another host decides whether a write is durable, and hangs take this one along',
}
const overlayMagic = 0x794c7630

/** `statfs` and `mounts` are parameters only so that a test can show a container's view. */
export function checkLocation(
  folder: string,
  look: { magicOf: (path: string) => number; mounts: () => string } = system,
): LocationCheck {
  const magic = look.magicOf(folder)
  const why = magic === overlayMagic ? overlayWhy(folder, look) : refused[magic]
  if (why === undefined) return { ok: true }
  return { ok: false, why: `${folder} lies on ${why}. Name a folder on a local disk instead.` }
}

/** For what need not be durable: why nobody can make a folder there; undefined where one can. */
export function kernelsOwn(folder: string): string | undefined {
  const why = kernels[system.magicOf(folder)]
  return why === undefined ? undefined : `${folder} lies on ${why}`
}

/** For what has to be there after a boot, wherever it lies: why it would not be. */
export const notKept = (folder: string): string | undefined => {
  const why = memory[system.magicOf(folder)]
  return why === undefined ? kernelsOwn(folder) : `${folder} lies on ${why}`
}

/** An overlay is as durable as its upper layer, which a container often can't see. */
function overlayWhy(
  folder: string,
  look: { magicOf: (path: string) => number; mounts: () => string },
): string | undefined {
  const upper = upperOf(realpathSync(folder), look.mounts())
  if (upper === null) return 'an overlay whose upper layer is not to be found in /proc/self/mountinfo'
  let magic: number
  try {
    magic = look.magicOf(upper)
  } catch {
    return `an overlay whose upper layer ${upper} is not visible here, such as a container's root: it goes with the container`
  }
  const why = magic === overlayMagic ? 'another overlay' : refused[magic]
  return why === undefined ? undefined : `an overlay whose upper layer ${upper} is ${why}`
}

/** The upperdir= of the mount that holds the path; proc(5), /proc/pid/mountinfo. */
function upperOf(path: string, mounts: string): string | null {
  let best: { point: string; upper: string | null } | null = null
  for (const { point, options } of mountLines(mounts)) {
    // A later mount on the same point hides the earlier one.
    if (holds(point, path) && (best === null || point.length >= best.point.length))
      best = { point, upper: /(?:^|,)upperdir=([^,]+)/.exec(options)?.[1] ?? null }
  }
  return best?.upper == null ? null : withoutEscapes(best.upper)
}

const holds = (point: string, path: string): boolean => point === '/' || path === point || path.startsWith(`${point}/`)

const system = {
  magicOf: (path: string): number => statfsSync(path).type,
  mounts: (): string => readFileSync('/proc/self/mountinfo', 'utf8'),
}
