import { open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import type { ClusterSpec } from './cluster.ts'
import { own } from './config-files.ts'

/**
 * The epoch in which this data directory last became a primary, durable inside it. A cluster may be restarted on its
 * own timeline only in that epoch; in any other one it takes a new timeline.
 */
const markerFile = (spec: ClusterSpec): string => join(spec.dataDir, 'understudy.epoch')

/** 0: never, or not by us. */
export async function readEpoch(spec: ClusterSpec): Promise<number> {
  try {
    const epoch = Number((await readFile(markerFile(spec), 'utf8')).trim())
    return Number.isSafeInteger(epoch) && epoch >= 0 ? epoch : 0
  } catch {
    return 0
  }
}

/** Durable when it resolves. */
export async function writeEpoch(spec: ClusterSpec, epoch: number): Promise<void> {
  const path = markerFile(spec)
  const file = await open(`${path}.new`, 'w', 0o600)
  try {
    await file.write(`${epoch}\n`)
    await file.sync()
  } finally {
    await file.close()
  }
  await own(spec, `${path}.new`, 0o600)
  await rename(`${path}.new`, path)
  const folder = await open(spec.dataDir, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}
