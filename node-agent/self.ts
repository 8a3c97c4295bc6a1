import { softwareVersion } from './version.ts'

/**
 * How this program starts a child that is part of it. As one bundled file it starts itself with a hidden verb; in
 * development the child has a file of its own, named by whoever starts it.
 */
export function bundledChild(verb: string): { command: string; args: string[] } | undefined {
  const file = process.argv[1]
  if (softwareVersion === 'development' || file === undefined) return undefined
  return { command: process.execPath, args: [file, verb] }
}
