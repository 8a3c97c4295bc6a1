import { cp, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Evidence } from './postgres/evidence.ts'

/** The bundles on disk; read by the CLI without an agent, since they may be all that is left to look at. */
export const evidenceDirOf = (stateDir: string): string => join(stateDir, 'evidence')

export interface Bundle {
  evidence: Evidence
  bytes: number
  /** A copy is elsewhere, so this one may be removed for want of space. */
  exported: boolean
}

const summaryName = 'evidence.json'
const exportedName = 'exported'

/** Oldest first; a folder without a readable summary is left out. */
export async function listEvidence(folder: string): Promise<Bundle[]> {
  const names = await readdir(folder).catch(() => [])
  const bundles = await Promise.all(names.map(name => readEvidence(folder, name)))
  return bundles
    .filter(one => one !== null)
    .sort((one, other) => (one.evidence.madeAt < other.evidence.madeAt ? -1 : 1))
}

/** null: there is none of this name. */
export async function readEvidence(folder: string, id: string): Promise<Bundle | null> {
  if (!/^[\w.-]{1,100}$/.test(id)) return null
  const path = join(folder, id)
  try {
    const evidence = JSON.parse(await readFile(join(path, summaryName), 'utf8')) as Evidence
    const names = await readdir(path)
    const sizes = await Promise.all(names.map(async name => (await stat(join(path, name))).size))
    return { evidence, bytes: sizes.reduce((sum, size) => sum + size, 0), exported: names.includes(exportedName) }
  } catch {
    return null
  }
}

/** Copies a bundle into a new folder, which must not exist. @returns the number of its files */
export async function exportEvidence(folder: string, id: string, target: string): Promise<number> {
  await mkdir(target, { mode: 0o700 })
  await cp(join(folder, id), target, { recursive: true })
  await writeFile(join(folder, id, exportedName), `${new Date().toISOString()} ${target}\n`, { mode: 0o600 })
  return (await readdir(target)).length
}

/**
 * Before a new bundle: the oldest that lost nothing or were exported go first. One with commits that is nowhere else
 * stays, whatever the limit says.
 */
export async function makeRoomForEvidence(folder: string, limitMb: number): Promise<void> {
  const bundles = await listEvidence(folder)
  let bytes = bundles.reduce((sum, one) => sum + one.bytes, 0)
  for (const { evidence, exported, bytes: size } of bundles) {
    if (bytes <= limitMb * 2 ** 20) return
    if (!exported && evidence.transactions.length > 0) continue
    await rm(join(folder, evidence.id), { recursive: true })
    bytes -= size
  }
}
