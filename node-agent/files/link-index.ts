import type { DirectoryNode } from './local-tree.ts'

export interface FilePlace {
  dir: DirectoryNode
  name: string
}

/** With the comparison that has seen it last. */
interface Noted extends FilePlace {
  run: number
}

/** Looked at in one go when what is not there any more is let go. */
const sweptAtOnce = 2000

/**
 * Which names share a file. Known names are hints: each is looked at before it is used. What no comparison of everything
 * sees any more is let go, since inode numbers tell nothing about it: they are used again, or never.
 */
export class LinkIndex {
  /** Nearly all files have one name; those with more have them by directory, however many there are. */
  readonly #places = new Map<number, Noted | Map<DirectoryNode, Map<string, Noted>>>()
  /** Files that have names we do not know (yet): what comes to light under one has to be looked at. */
  readonly #partial = new Set<number>()
  #run = 0
  #sweep: Iterator<[number, Noted | Map<DirectoryNode, Map<string, Noted>>]> | null = null

  note(ino: number, dir: DirectoryNode, name: string): void {
    const present = this.#places.get(ino)
    const place = { dir, name, run: this.#run }
    if (present === undefined) this.#places.set(ino, place)
    else if (present instanceof Map) add(present, place)
    else if (present.dir === dir && present.name === name) present.run = this.#run
    else this.#places.set(ino, add(add(new Map(), present), place))
  }

  /** It has this name and no other: what else is known was of a file before it. */
  noteOnly(ino: number, dir: DirectoryNode, name: string): void {
    const present = this.#places.get(ino)
    if (present instanceof Map) this.#places.delete(ino)
    else if (present !== undefined) {
      present.dir = dir
      present.name = name
      present.run = this.#run
      return
    }
    this.note(ino, dir, name)
  }

  forget(ino: number, { dir, name }: FilePlace): void {
    const present = this.#places.get(ino)
    if (present instanceof Map) {
      remove(present, { dir, name })
      if (present.size === 0) this.#places.delete(ino)
    } else if (present?.dir === dir && present.name === name) this.#places.delete(ino)
  }

  *others(ino: number, dir: DirectoryNode, name: string): Generator<FilePlace> {
    const present = this.#places.get(ino)
    if (present === undefined) return
    for (const place of present instanceof Map ? all(present) : [present]) {
      if (place.dir !== dir || place.name !== name) yield place
    }
  }

  setPartial(ino: number, is: { partial: boolean }): void {
    if (is.partial) this.#partial.add(ino)
    else this.#partial.delete(ino)
  }

  isPartial(ino: number): boolean {
    return this.#partial.has(ino)
  }

  isShared(ino: number): boolean {
    const present = this.#places.get(ino)
    if (!(present instanceof Map)) return false
    const [first] = present.values()
    return present.size > 1 || (first?.size ?? 0) > 1
  }

  get size(): number {
    return this.#places.size
  }

  /** Everything is about to be seen. */
  beginRun(): void {
    this.#run += 1
    this.#sweep = null
  }

  /** Everything was seen: the rest is let go by {@link sweepSome}. */
  endRun(): void {
    this.#sweep = this.#places.entries()
  }

  /** False when nothing is to be let go. */
  sweepSome(): boolean {
    if (this.#sweep === null) return false
    for (let left = sweptAtOnce; left > 0; left -= 1) {
      const next = this.#sweep.next()
      if (next.done === true) {
        this.#sweep = null
        return true
      }
      const [ino, present] = next.value
      for (const place of present instanceof Map ? all(present) : [present]) {
        if (place.run < this.#run) this.forget(ino, place)
      }
      if (!this.#places.has(ino)) this.#partial.delete(ino)
    }
    return true
  }
}

function add(places: Map<DirectoryNode, Map<string, Noted>>, place: Noted): Map<DirectoryNode, Map<string, Noted>> {
  const names = places.get(place.dir)
  if (names === undefined) places.set(place.dir, new Map([[place.name, place]]))
  else names.set(place.name, place)
  return places
}

function remove(places: Map<DirectoryNode, Map<string, Noted>>, { dir, name }: FilePlace): void {
  const names = places.get(dir)
  names?.delete(name)
  if (names?.size === 0) places.delete(dir)
}

function* all(places: Map<DirectoryNode, Map<string, Noted>>): Generator<Noted> {
  for (const names of places.values()) yield* names.values()
}
