/**
 * A defect: text of the source that is replaced by other text while it is loaded, never on disk. The text has to be there
 * exactly once, so that a defect whose place has moved is an error and not a test of nothing.
 */
export interface Edit {
  /** From the top of the repository. */
  file: string
  before: string
  after: string
}

export function applyEdits(source: string, edits: readonly Edit[]): string {
  let text = source
  for (const { file, before, after } of edits) {
    const places = text.split(before).length - 1
    if (places !== 1) {
      throw new Error(
        `${file} holds the text to be replaced ${places} times, a defect wants it once; look for what became of it:\n${before}`,
      )
    }
    if (before === after) throw new Error(`${file}: a defect that changes nothing:\n${before}`)
    text = text.replace(before, () => after)
  }
  return text
}
