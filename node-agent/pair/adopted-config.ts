import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, isAbsolute, join } from 'node:path'

/**
 * The configuration of a cluster that is adopted, as one text: Debian keeps it outside the data directory, in files that
 * include others. In the data directory it travels with every base backup, so that both hosts run with the same.
 * Manual, 20.1.5 "Managing Configuration File Contents".
 *
 * @throws with a sentence if a file can't be read or includes go in a circle.
 */
export function flattenConfig(path: string, depth = 0): string {
  if (depth > depthMax)
    throw new Error(`${path} is included more than ${depthMax} deep: do the files include each other?`)
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw new Error(`${path} can't be read: ${error instanceof Error ? error.message : String(error)}`)
  }
  return text
    .split('\n')
    .map(line => {
      const [, word = '', quoted, bare] = includeLine.exec(line) ?? []
      if (word === '') return line
      const named = quoted?.replaceAll("''", "'") ?? bare ?? ''
      const target = isAbsolute(named) ? named : join(dirname(path), named)
      return [`# ${line.trim()}`, ...included(word.toLowerCase(), target, depth + 1)].join('\n')
    })
    .join('\n')
}
const depthMax = 10
const includeLine = /^\s*(include|include_if_exists|include_dir)\s*=?\s*(?:'((?:[^']|'')*)'|(\S+))\s*(?:#.*)?$/i

function included(word: string, target: string, depth: number): string[] {
  if (word === 'include_if_exists' && !existsSync(target)) return []
  if (word !== 'include_dir') return [flattenConfig(target, depth)]
  // Files that begin with a dot are left out, the others are read in order of their names.
  const names = readdirSync(target).filter(name => name.endsWith('.conf') && !name.startsWith('.'))
  return names.sort().map(name => flattenConfig(join(target, name), depth))
}
