import type { FileStat } from '../kernel/file-calls.ts'
import { errorName } from '../kernel/libc.ts'
import type { Known } from './big-file.ts'
import type { FramePool } from './framing.ts'
import type { LinkIndex } from './link-index.ts'
import type { OtherName } from './linked-names.ts'
import type { DirectoryNode } from './local-tree.ts'
import type { Operation, StreamFrame } from './messages.ts'
import type { Meta } from './meta.ts'
import type { Tree } from './tree.ts'
import type { CompareEntry, Entry, NameEntry, VerifyEntry, WorkQueue } from './work-queue.ts'

/** What the emitter works with, and what it gives. */

type WithoutSeq<T> = T extends { seq: number } ? Omit<T, 'seq'> : never
export type NewOperation = WithoutSeq<Operation>

export interface EmitterPart {
  tree: Tree
  queue: WorkQueue
  links: LinkIndex
  hashKey: Buffer
  now: () => number
  /** Numbers and sends an operation; `entry` is what has to be done again if it is not acknowledged. */
  send: (operation: NewOperation, entry: Entry, known?: { ino: number; known: Known }) => number
  stream: (frame: StreamFrame) => void
  sendData: (buffer: Buffer, frame: Buffer) => void
  pool: FramePool
  /** What the backup's hashes of a file are; null when it has none. */
  askHashes: (path: string, entry: NameEntry) => Promise<Known | null>
  /** Something that can't be replicated, or not now. */
  problem: (path: string, why: string | null) => void
  /** It was removed, with all below it. */
  gone: (path: string) => void
  /** No comparison is under way. */
  isCompared: () => boolean
  /** False while something of this age would be taken for what the backup had already, were this primary to return now. */
  mayBeSent: (changedMs: number) => boolean
  /** Missed until now: it has to be watched. */
  adopt: (dir: DirectoryNode, name: string) => DirectoryNode | null
}

/**
 * A large file or directory in hand. `step` answers false when it is done, null when an answer of the backup is awaited.
 */
export interface Transfer {
  entry: NameEntry | VerifyEntry | CompareEntry
  step: () => boolean | null
  abort: () => void
}

/** moved: an event that says where to is on its way. */
export type Said = 'said' | 'moved' | 'unreadable'

/** For people. `error`: what was thrown, or an errno. */
export function unreadableWhy(error: unknown): string {
  const errno = error instanceof Error && 'errno' in error ? Number(error.errno) : error
  return `it can't be read: ${typeof errno === 'number' ? errorName(Math.abs(errno)) : String(error)}`
}

export interface FileInHand {
  entry: NameEntry
  path: string
  fd: number
  stat: FileStat
  meta: Meta
  others: readonly OtherName[]
}
