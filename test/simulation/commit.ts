import { execFileSync } from 'node:child_process'

const git = (...args: string[]): string =>
  execFileSync('git', args, { cwd: import.meta.dirname, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()

/** The commit that runs, with a plus where shared/ or the simulation has changes on top; 'unknown' outside of a clone. */
export function commitOfTree(): string {
  try {
    const dirty = git('status', '--porcelain', '--', '../../shared', '.') !== ''
    return `${git('rev-parse', '--short=10', 'HEAD')}${dirty ? '+' : ''}`
  } catch {
    return 'unknown'
  }
}
