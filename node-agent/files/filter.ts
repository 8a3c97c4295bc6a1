import { fromText, joinPath } from './names.ts'

/**
 * Which paths of a tree are replicated. A pattern is a path from the root with `*` (no slash), `**` (any) and `?`; one
 * without a slash inside matches the name in every directory; what lies below an excluded directory is excluded with it.
 * `include` takes back what `exclude` names, but only where the directories above are not excluded themselves.
 */
export interface Filter {
  isExcluded(folder: string, name: string): boolean
  /** Some pattern is a path: what is excluded in a directory changes when that is renamed. */
  readonly dependsOnPlace: boolean
}

/** More patterns would cost time at every file. */
export const patternsMax = 64
export const patternBytesMax = 1024

/** Why a pattern can't be one, or null. */
export function patternFault(pattern: string): string | null {
  if (pattern === '' || Buffer.byteLength(pattern) > patternBytesMax) return `has 1 to ${patternBytesMax} bytes`
  if (pattern.includes('\0')) return 'contains a zero byte, which no name has'
  if (pattern.split('/').includes('..')) return 'contains "..": it is a path within the tree'
  return null
}

export function makeFilter(patterns: { include: readonly string[]; exclude: readonly string[] }): Filter {
  const exclude = patterns.exclude.map(compile)
  const include = patterns.include.map(compile)
  if (exclude.length === 0) return { isExcluded: () => false, dependsOnPlace: false }
  return {
    dependsOnPlace: [...exclude, ...include].some(one => one.wholePath),
    isExcluded(folder, name) {
      const path = joinPath(folder, name)
      const hit = (one: Pattern): boolean => one.expression.test(one.wholePath ? path : name)
      return exclude.some(hit) && !include.some(hit)
    },
  }
}

interface Pattern {
  expression: RegExp
  wholePath: boolean
}

function compile(pattern: string): Pattern {
  const bare = fromText(pattern).replace(/^\/+|\/+$/g, '')
  const wholePath = bare.includes('/') || pattern.startsWith('/')
  const source = bare.replace(/\*\*\/?|[*?]|[\\^$.|+()[\]{}]/g, token => {
    if (token === '**/') return '(?:[^]*/)?'
    if (token === '**') return '[^]*'
    if (token === '*') return '[^/]*'
    if (token === '?') return '[^/]'
    return `\\${token}`
  })
  return { expression: new RegExp(`^${source}$`), wholePath }
}
