import { readdirSync, readFileSync } from 'node:fs'
import { join, matchesGlob } from 'node:path'

/**
 * The repository's own files: all but what .gitignore names. Git itself is not asked: the rules hold as well in a copy that
 * has no .git, or that belongs to somebody else (which git takes for dangerous).
 */
export const root = join(import.meta.dirname, '../..')

export interface SourceFile {
  /** From the repository's root, with slashes. */
  path: string
  text: string
  lines: readonly string[]
}

/** Names of folders, with a slash behind, and patterns of names of files: nothing else stands in .gitignore. */
const ignored = ['.git', '.git/', ...readFileSync(join(root, '.gitignore'), 'utf8').split('\n').filter(Boolean)]
const isOurs = (name: string): boolean => !ignored.some(pattern => matchesGlob(name, pattern))

function below(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap(entry => {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) return isOurs(`${entry.name}/`) ? below(path) : []
    return isOurs(entry.name) ? [path] : []
  })
}

const paths = (ending = ''): string[] =>
  below('')
    .filter(path => path.endsWith(ending))
    .sort()

export function read(path: string): SourceFile {
  const text = readFileSync(join(root, path), 'utf8')
  return { path, text, lines: text.split('\n') }
}

export const typescriptFiles = (): SourceFile[] => paths('.ts').map(read)
export const documents = (): SourceFile[] => paths('.md').map(read)
export const allPaths = (): string[] => paths()

/** What a file imports, as written: `import … from 'x'`, `export … from 'x'`, `import('x')`. */
export function importsOf(file: SourceFile): string[] {
  const found = file.text.matchAll(/(?:^|\n)\s*(?:import|export)\b[^'"\n;]*?(?:\n[^'"\n;]*?)*?from\s*['"]([^'"]+)['"]/g)
  const bare = file.text.matchAll(/(?:^|\n)import\s*['"]([^'"]+)['"]/g)
  const dynamic = file.text.matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g)
  return [...found, ...bare, ...dynamic].map(match => match[1]!)
}
