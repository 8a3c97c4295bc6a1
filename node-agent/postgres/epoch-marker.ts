import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { ClusterSpec } from './cluster.ts'
import { own } from './config-files.ts'

/**
 * The epoch in which this data directory last became a primary, durable inside it. A cluster may be restarted on its
 * own timeline only in that epoch; in any other one it takes a new timeline.
 */
const markerFile = (spec: ClusterSpec): string => join(spec.dataDir, 'understudy.epoch')

export function readEpoch(spec: ClusterSpec): number {
  try {
    const epoch = Number(readFileSync(markerFile(spec), 'utf8').trim())
    return Number.isSafeInteger(epoch) && epoch >= 0 ? epoch : 0
  } catch {
    return 0
  }
}

export function writeEpoch(spec: ClusterSpec, epoch: number): void {
  const path = markerFile(spec)
  const file = openSync(`${path}.new`, 'w', 0o600)
  try {
    writeSync(file, `${epoch}\n`)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
  own(spec, `${path}.new`, 0o600)
  renameSync(`${path}.new`, path)
  const folder = openSync(spec.dataDir, 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}
