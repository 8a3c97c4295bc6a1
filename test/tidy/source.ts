import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** The repository's own files, as git knows them: what is ignored is nobody's business. */
export const root = join(import.meta.dirname, '../..')

export interface SourceFile {
  /** From the repository's root, with slashes. */
  path: string
  text: string
  lines: readonly string[]
}

const list = (...pathspecs: string[]): string[] =>
  execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard', '--', ...pathspecs], {
    cwd: root,
    encoding: 'utf8',
  })
    .split('\0')
    .filter(Boolean)

export function read(path: string): SourceFile {
  const text = readFileSync(join(root, path), 'utf8')
  return { path, text, lines: text.split('\n') }
}

export const typescriptFiles = (): SourceFile[] => list('*.ts').map(read)
export const documents = (): SourceFile[] => list('*.md').map(read)
export const allPaths = (): string[] => list()

/** What a file imports, as written: `import … from 'x'`, `export … from 'x'`, `import('x')`. */
export function importsOf(file: SourceFile): string[] {
  const found = file.text.matchAll(/(?:^|\n)\s*(?:import|export)\b[^'"\n;]*?(?:\n[^'"\n;]*?)*?from\s*['"]([^'"]+)['"]/g)
  const bare = file.text.matchAll(/(?:^|\n)import\s*['"]([^'"]+)['"]/g)
  const dynamic = file.text.matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g)
  return [...found, ...bare, ...dynamic].map(match => match[1]!)
}
