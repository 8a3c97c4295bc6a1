import { softwareVersion } from './version.ts'

/** The build puts the state writer's program here, see infra/dev/build.ts. */
declare const UNDERSTUDY_STATE_WRITER: string | undefined
/** The open file of the native part, in a bundled agent. */
declare const UNDERSTUDY_NATIVE_FD: number | undefined

/** Where the state writer finds that file: behind its standard ones and the lock. */
export const nativeDescriptor = 4

/**
 * Some hundred lines that run a few times a second at most: a compiler, and threads for it, would cost more memory than all
 * that they work on, and a write is no sooner on the disk.
 */
const interpreted = ['--jitless', '--v8-pool-size=0']

/**
 * The state writer of a bundled agent: handed to Node as text, since the whole bundle would cost a second process 80 MB
 * for 40 lines. undefined in development.
 */
export function bundledStateWriter(): { command: string; args: string[]; native?: number } | undefined {
  if (typeof UNDERSTUDY_STATE_WRITER !== 'string') return undefined
  const native = typeof UNDERSTUDY_NATIVE_FD === 'number' ? { native: UNDERSTUDY_NATIVE_FD } : {}
  return { command: process.execPath, args: [...interpreted, '--eval', UNDERSTUDY_STATE_WRITER, '--'], ...native }
}

/**
 * How this program starts a child that is part of it. As one bundled file it starts itself with a hidden verb; in
 * development the child has a file of its own, named by whoever starts it.
 */
export function bundledChild(verb: string): { command: string; args: string[] } | undefined {
  const file = process.argv[1]
  if (softwareVersion === 'development' || file === undefined) return undefined
  return { command: process.execPath, args: [file, verb] }
}
