import { execFileSync } from 'node:child_process'

const git = (...args: string[]): string =>
  execFileSync('git', args, { cwd: import.meta.dirname, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()

/**
 * The commit that runs, with a plus where shared/ or the simulation has changes on top, other than what runs themselves write
 * down; 'unknown' outside of a clone.
 */
export function commitOfTree(): string {
  try {
    const own = ['.', ':!run-log.txt', ':!kept-seeds.txt']
    const dirty = git('status', '--porcelain', '--', '../../shared', ...own) !== ''
    return `${git('rev-parse', '--short=10', 'HEAD')}${dirty ? '+' : ''}`
  } catch {
    return 'unknown'
  }
}
