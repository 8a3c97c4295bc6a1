import { type Dir, opendirSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { ENOENT } from '../kernel/libc.ts'

/**
 * Directories with any number of names. Whatever is done with all names of one directory is done a part at a time, so that
 * one with a million of them holds up neither live changes nor the connection's signs of life, and no message, question or
 * answer is larger because of it. Names are told apart by a hash and not by their order: nothing has to be sorted.
 */
export interface Part {
  /** From 0. */
  index: number
  /** Into how many parts the directory is divided. */
  count: number
}

/** Names in a part: looked at, hashed and compared within some milliseconds. */
export const partNames = 256
/** More names than this in a part are not what its sender meant: the directory grew, or its copy has many more. */
export const crowdedNames = 4 * partNames
/** Of a directory with sixteen million names; ext4 ends before. */
export const partsMax = 65_536
/** Read from a directory at once; one system call brings about as many. */
const sliceNames = 1024
/** Put into their parts at once: a tenth of a microsecond each. */
const sortedAtOnce = 32_768
/** Work without a pause, before whatever else waits for this process has its turn. */
const turnMs = 8

export const partsFor = (names: number): number => Math.min(partsMax, Math.max(1, Math.ceil(names / partNames)))

/** FNV-1a from a start that nobody who makes names knows: else he could put them all into one part. */
export function partOf(name: string, { count, start }: { count: number; start: number }): number {
  if (count === 1) return 0
  let hash = start
  for (let at = 0; at < name.length; at += 1) hash = Math.imul(hash ^ name.charCodeAt(at), 0x01000193)
  // The low bits alone would hardly depend on the last character's high ones.
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d)
  return ((hash ^ (hash >>> 13)) >>> 0) % count
}

/** Work that stops now and then, to be gone on with. */
export type Steps<T> = Generator<undefined, T>

/** Does such work, and lets others have their turn between. */
export async function inTurns<T>(steps: Steps<T>): Promise<T> {
  let endMs = performance.now() + turnMs
  for (;;) {
    const { done, value } = steps.next()
    if (done === true) return value
    if (performance.now() < endMs) continue
    await nextTurn()
    endMs = performance.now() + turnMs
  }
}

/** A turn for others, whenever so long was worked without one. */
export class Turns {
  #endMs = performance.now() + turnMs

  async next(): Promise<void> {
    if (performance.now() < this.#endMs) return
    await nextTurn()
    this.#endMs = performance.now() + turnMs
  }
}

/** Names of an open directory, some at a time; ends where it was removed meanwhile. @throws what the disk says */
export function* namesInSlices(dirFd: number): Generator<string[], 'read' | 'gone'> {
  let dir: Dir | null = null
  try {
    // A descriptor of its own: the caller's may be closed before the next slice.
    dir = opendirSync(`/proc/self/fd/${dirFd}`, { encoding: 'latin1', bufferSize: sliceNames })
    for (;;) {
      const names: string[] = []
      while (names.length < sliceNames) {
        const entry = dir.readSync()
        if (entry === null) {
          yield names
          return 'read'
        }
        names.push(entry.name)
      }
      yield names
    }
  } catch (error) {
    if (error instanceof Error && 'errno' in error && error.errno === -ENOENT) return 'gone'
    throw error
  } finally {
    dir?.closeSync()
  }
}

/** All names that are wanted; null when the directory is gone. @throws what the disk says */
export function* readNames(dirFd: number, isWanted: (name: string) => boolean): Steps<string[] | null> {
  const slices = namesInSlices(dirFd)
  const names: string[] = []
  try {
    for (;;) {
      const { done, value } = slices.next()
      if (done === true) return value === 'read' ? names : null
      for (const name of value) if (isWanted(name)) names.push(name)
      if (value.length === sliceNames) yield
    }
  } finally {
    slices.return('gone')
  }
}

/** The names, by their parts. */
export function* parted(names: Iterable<string>, how: { count: number; start: number }): Steps<string[][]> {
  const parts: string[][] = Array.from({ length: how.count }, () => [])
  let left = sortedAtOnce
  for (const name of names) {
    parts[partOf(name, how)]!.push(name)
    left -= 1
    if (left > 0) continue
    left = sortedAtOnce
    yield
  }
  return parts
}
