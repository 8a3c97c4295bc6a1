/** The first letters of a text, at most `max` of UTF-16: never half a pair, which neither UTF-8 nor PostgreSQL's jsonb can hold. */
export function cutTo(text: string, max: number): string {
  if (text.length <= max) return text
  const cut = text.slice(0, max)
  return cut.isWellFormed() ? cut : cut.slice(0, -1)
}
