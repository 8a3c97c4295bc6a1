import type { Comparison } from './comparison.ts'
import type { Contents } from './contents.ts'
import type { Emitter } from './emitter.ts'
import type { DirectoryNode } from './local-tree.ts'
import type { NackCode } from './messages.ts'
import type { SentLog } from './sent-log.ts'
import type { WorkQueue } from './work-queue.ts'

interface SecondLook {
  seq: number
  code: NackCode
  sent: SentLog
  queue: WorkQueue
  comparison: Comparison
  contents: Contents
  emitter: Emitter
  /** When it is looked at, monotonic ms; null: at its turn. */
  notBeforeMs: number | null
}

/** The backup left an operation undone: what it was about is looked at again, in full. */
export function lookAgain(part: SecondLook): void {
  const { seq, sent, queue, comparison } = part
  const how = part.notBeforeMs === null ? atItsTurn : { lane: 'settling' as const, dueMs: part.notBeforeMs }
  const entry = sent.get(seq)?.entry
  if (entry === undefined) return
  switch (entry.kind) {
    case 'node':
      entry.dir.isKnown = false
      if (!entry.dir.isGone) queue.directory(entry.dir, { ...how, since: entry.since })
      return
    case 'name':
      return atName(part, { dir: entry.dir, name: entry.name, since: entry.since })
    case 'rename': {
      const { node, from, to, since } = entry
      if (node !== null && !node.isGone) {
        for (const one of node.all()) one.isKnown = false
        queue.directory(node, { ...how, since })
        queue.compare(node, { ...how, since })
      }
      atName(part, { ...from, since })
      if (node === null) atName(part, { ...to, since })
      return
    }
    case 'verify':
      if (part.code !== 'content') return
      part.contents.differs(entry)
      return atName(part, { dir: entry.dir, name: entry.name, since: entry.isScrub ? queue.nextMark() : entry.since })
    case 'compare':
      return comparison.begin('missed')
  }
}

const atItsTurn = { lane: 'live' } as const

function atName(part: SecondLook, at: { dir: DirectoryNode; name: string; since: number }): void {
  const { since } = at
  mark(part, at)
  // It was renamed since: what the backup has under its later names is no better.
  let { dir, name } = at
  for (const { entry } of part.sent.after(part.seq)) {
    if (entry.kind !== 'rename' || entry.node !== null || entry.from.dir !== dir || entry.from.name !== name) continue
    dir = entry.to.dir
    name = entry.to.name
    mark(part, { dir, name, since })
  }
}

function mark(
  { code, emitter, queue, notBeforeMs }: SecondLook,
  at: { dir: DirectoryNode; name: string; since: number },
): void {
  const { dir, name, since } = at
  if (dir.isGone) return
  if (code === 'no parent') for (let up: DirectoryNode | null = dir; up !== null; up = up.parent) up.isKnown = false
  emitter.forgetFile(dir, name)
  const lane = notBeforeMs === null ? 'live' : 'settling'
  const entry = queue.changed(dir, name, { lane, since, isWritten: true, isClosed: true })
  // Made anew where the backup did not remove what was there before.
  entry.isNew = false
  if (notBeforeMs !== null) entry.dueMs = Math.max(entry.dueMs, notBeforeMs)
}

/**
 * Answers that concern the backup's disk, or all of its host: nothing more is sent for a moment. Any other concerns the
 * one file (a right that the agent lacks, an attribute that the file system does not have), and others go on.
 */
const ofTheDisk: ReadonlySet<string> = new Set([
  'ENOSPC',
  'EDQUOT',
  'EIO',
  'EROFS',
  'ENOMEM',
  'EMFILE',
  'ENFILE',
  'ENODEV',
  'ENXIO',
  'EUCLEAN',
  'ESHUTDOWN',
  'ESTALE',
])
export const isRefusal = (code: NackCode): boolean => code.startsWith('E') && !ofTheDisk.has(code)
/** A file that the backup refuses is tried again at this pace. */
export const refusedRetryMs = 5000
