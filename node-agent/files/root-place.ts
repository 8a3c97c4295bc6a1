import type { Tree } from './tree.ts'

/**
 * Whether the primary's tree is still what its path leads to. Where services write is not seen any more once it is not: then
 * nothing is sent, nothing promised, and an operator is told. Nobody else can say whether the directory that is there now,
 * an empty one perhaps, is what the backup should have.
 */
export class RootPlace {
  readonly #part: { tree: Tree; note: (why: string) => void; onBack: () => void }
  #isKept = true

  constructor(part: { tree: Tree; note: (why: string) => void; onBack: () => void }) {
    this.#part = part
  }

  /** As of the last look. */
  get isKept(): boolean {
    return this.#isKept
  }

  get why(): string {
    return `${this.#part.tree.path} is not the directory any more that is replicated: it was moved, removed or unmounted, or something is mounted over it; put it back, or restart the agent to replicate what is there now`
  }

  look(): boolean {
    const { tree, note, onBack } = this.#part
    const { isInPlace } = tree
    if (isInPlace !== this.#isKept) {
      this.#isKept = isInPlace
      note(isInPlace ? `${tree.path} is back, and replicated again` : this.why)
      if (isInPlace) onBack()
    }
    return isInPlace
  }
}
